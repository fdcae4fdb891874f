from __future__ import annotations

import pytest

from musubi import About, ConfigError


def test_tags_are_words_that_can_be_joined_by_commas() -> None:
    with pytest.raises(ConfigError) as caught:
        About(tags=("clay", "a,b"))

    assert "without a comma, got 'a,b'" in str(caught.value)
    assert About.from_toml(About(title="T", tags=("clay", "stop motion")).to_toml()).tags == ("clay", "stop motion")
