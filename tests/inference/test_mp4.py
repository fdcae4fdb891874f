from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from musubi.inference import mp4


def test_without_h264_the_builtin_encoder_writes_a_file_that_plays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mp4, "_ENCODERS", ("mpeg4",))

    mp4.write_mp4(tmp_path / "fox.mp4", np.full((5, 48, 64, 3), 200, np.uint8), fps=8, crf=18, metadata={})

    with av.open(str(tmp_path / "fox.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert len(frames) == 5
    assert np.abs(frames[2].astype(int) - 200).max() <= 8


def test_the_file_says_that_its_colours_are_bt709(tmp_path: Path) -> None:
    mp4.write_mp4(tmp_path / "fox.mp4", np.zeros((2, 48, 64, 3), np.uint8), fps=8, crf=18, metadata={})

    with av.open(str(tmp_path / "fox.mp4")) as container:
        assert container.streams.video[0].codec_context.colorspace == 1
