from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from musubi import LoRAFile
from musubi.quickstart.__main__ import main


def test_the_quickstart_writes_all_it_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--out", str(tmp_path), "--steps", "4"])

    assert status == 0
    assert "sees a zuzu in" in capsys.readouterr().out
    with Image.open(tmp_path / "before_after.png") as picture:
        assert picture.width > 800
    assert (tmp_path / "loss.png").stat().st_size > 10_000
    assert not LoRAFile.load(tmp_path / "lora.safetensors").zero_effect
    drawn = {path.name for path in (tmp_path / "samples").iterdir()}
    assert {name.replace("before", "after") for name in drawn if "before" in name} <= drawn
    assert {Path(name).suffix for name in drawn} == {".png", ".mp4"}
    captions = [path.read_text(encoding="utf-8") for path in (tmp_path / "dataset").glob("*.txt")]
    assert len(captions) == len(list((tmp_path / "dataset").glob("*.[pm][np][g4]")))
    assert sum("zuzu" in caption for caption in captions) == 20


def test_a_learning_rate_of_zero_makes_no_difference_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["--out", str(tmp_path), "--steps", "2", "--lr", "0"])

    assert status == 0
    assert "no difference" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--steps", "0"], ["--lr", "-1"], ["--lr", "nan"], ["--speed", "9"]])
def test_wrong_options_are_refused_with_the_usage(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(options)

    assert caught.value.code == 2
    assert "usage: python -m musubi.quickstart" in capsys.readouterr().err
