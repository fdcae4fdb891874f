from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub.file_download import DryRunFileInfo

from musubi.architectures.qwen_image.spec import QwenImage
from musubi.core.errors import WeightsError
from musubi.core.refs import WeightsRef
from musubi.hub.download import plan_download, pull


def answer(ref: WeightsRef) -> list[DryRunFileInfo]:
    cached = "vae" in str(ref)
    one = DryRunFileInfo(
        commit_hash="0",
        file_size=2_000_000_000,
        filename="f",
        local_path="f",
        is_cached=cached,
        will_download=not cached,
    )
    return [one, one] if str(ref).endswith("tokenizer") else [one]


def test_every_component_is_asked_for_and_the_missing_ones_add_up() -> None:
    plan = plan_download(QwenImage(), ask=answer)

    assert {part.component: part.missing for part in plan} == {
        "dit": 2_000_000_000,
        "vae": 0,
        "text_encoder": 2_000_000_000,
        "tokenizer": 4_000_000_000,
    }
    assert plan.missing == 8_000_000_000
    assert "8.00 GB" in str(plan)
    assert "cached" in plan._repr_html_()


def test_local_files_cost_nothing(tmp_path: Path) -> None:
    (tmp_path / "dit.safetensors").write_bytes(b"x" * 10)
    model = QwenImage().with_weights(dit=tmp_path / "dit.safetensors")

    (dit, *_) = plan_download(model, ask=answer)

    assert (dit.size, dit.missing) == (10, 0)


def test_a_missing_local_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.safetensors"):
        plan_download(QwenImage().with_weights(dit=tmp_path / "gone.safetensors"), ask=answer)


def test_pulling_a_local_path_gives_it_back(tmp_path: Path) -> None:
    assert pull(tmp_path) == tmp_path


def test_pulling_from_the_local_cache_alone_fails_politely() -> None:
    with pytest.raises(WeightsError, match="nobody-here/nothing"):
        pull("nobody-here/nothing@main:x.safetensors", offline=True)
