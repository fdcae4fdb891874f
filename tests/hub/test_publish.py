from __future__ import annotations

import tomllib
from pathlib import Path

import attrs
import numpy as np
import pytest
from safetensors.torch import load
from torch.testing import assert_close

from musubi.core.errors import ConfigError, DataError, WeightsError
from musubi.hub.publish import push, stage
from musubi.inference.media import Video
from musubi.networks.file import LoRAFile
from musubi.training.result import TrainResult

WEIGHTS = "clay_style.safetensors"
SECRET = "hf_" + "x" * 34


@attrs.define
class Recorder:
    """Stands where ``HfApi`` stands and keeps what it is given."""

    made: list[tuple[str, bool]] = attrs.field(factory=list)
    uploaded: dict[str, bytes] = attrs.field(factory=dict)
    failure: Exception | None = None

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> object:
        assert exist_ok
        self.made.append((repo_id, private))
        return None

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> object:
        if self.failure is not None:
            raise self.failure
        self.uploaded = {p.relative_to(folder_path).as_posix(): p.read_bytes() for p in files(folder_path)}
        return None


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_is_staged_is_exactly_what_is_pushed(result: TrainResult, tmp_path: Path) -> None:
    api = Recorder()

    folder = stage(result, tmp_path / "staged", repo="me/clay")
    address = push(result, "me/clay", api=api)

    staged = {p.relative_to(folder).as_posix(): p.read_bytes() for p in files(folder)}
    assert {n: d for n, d in api.uploaded.items() if n != WEIGHTS} == {n: d for n, d in staged.items() if n != WEIGHTS}
    assert_close(load(api.uploaded[WEIGHTS]), load(staged[WEIGHTS]), rtol=0, atol=0)
    assert address == "https://huggingface.co/me/clay"
    assert api.made == [("me/clay", True)]


def test_a_result_becomes_weights_page_settings_and_samples(result: TrainResult, tmp_path: Path) -> None:
    folder = stage(result, tmp_path / "staged", repo="me/clay")

    assert [p.relative_to(folder).as_posix() for p in files(folder)] == [
        "README.md",
        "clay_style.safetensors",
        "samples/00_sample_one.png",
        "training.toml",
    ]
    assert LoRAFile.load(folder / "clay_style.safetensors").names == ("blocks.0.attn.q",)
    assert tomllib.loads((folder / "training.toml").read_text(encoding="utf-8"))["network"]["rank"] == 4
    assert "through snow: ünï" in (folder / "README.md").read_text(encoding="utf-8")


def test_a_clip_s_prompt_reaches_the_page(lora: LoRAFile, tmp_path: Path) -> None:
    clip = Video(np.zeros((5, 16, 16, 3), np.uint8), fps=8, metadata={"prompt": "a clay fox"}).save(
        tmp_path / "fox.mp4"
    )

    folder = stage(lora, tmp_path / "staged", repo="me/clay", samples=[clip])

    assert "*a clay fox*" in (folder / "README.md").read_text(encoding="utf-8")
    assert (folder / "samples/00_fox.mp4").read_bytes() == clip.read_bytes()


def test_a_file_can_be_pushed(lora: LoRAFile, tmp_path: Path) -> None:
    api = Recorder()

    push(lora.save(tmp_path / "x.safetensors"), "me/clay", private=False, api=api)

    assert {"README.md", "clay_style.safetensors", "training.toml"} == set(api.uploaded)
    assert api.made == [("me/clay", False)]


@pytest.mark.parametrize(
    "repo", ["clay", "me/clay/style", "/clay", "me/", "me/cl ay", "https://huggingface.co/me/clay"]
)
def test_a_bad_repository_name_is_refused_before_anything_is_sent(lora: LoRAFile, repo: str) -> None:
    api = Recorder()

    with pytest.raises(ConfigError, match="must be owner/name"):
        push(lora, repo, api=api)

    assert not api.made


def test_a_missing_sample_is_named(lora: LoRAFile, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: is no picture or clip"):
        stage(lora, tmp_path / "staged", samples=[tmp_path / "gone.png"])


def test_a_failed_upload_says_what_to_do_and_never_shows_a_token(
    lora: LoRAFile, caplog: pytest.LogCaptureFixture
) -> None:
    api = Recorder(failure=OSError(f"401 for Authorization: Bearer {SECRET}"))

    with caplog.at_level("DEBUG"), pytest.raises(WeightsError, match="hf auth login") as caught:
        push(lora, "me/clay", api=api)

    assert SECRET not in str(caught.value) + caplog.text
    assert caught.value.__cause__ is None


def test_settings_from_elsewhere_are_left_out(lora: LoRAFile, tmp_path: Path) -> None:
    strange = attrs.evolve(lora, metadata={"musubi.config": "{broken"})

    folder = stage(strange, tmp_path / "staged", repo="me/clay")

    assert (folder / "training.toml").read_text(encoding="utf-8") == ""


def test_the_files_of_both_experts_are_published_on_one_page(
    result: TrainResult, lora: LoRAFile, tmp_path: Path
) -> None:
    low = attrs.evolve(lora, metadata={**lora.metadata, "ss_output_name": "clay_low", "ss_network_dim": "77"})
    both = attrs.evolve(result, experts={"high": result.path, "low": low.save(tmp_path / "clay_low.safetensors")})

    folder = stage(both, tmp_path / "staged", repo="me/clay")

    page = (folder / "README.md").read_text(encoding="utf-8")
    assert sorted(path.name for path in folder.glob("*.safetensors")) == ["clay_low.safetensors", WEIGHTS]
    assert all(f'with_lora(hub.pull("me/clay@main:{name}")' in page for name in (WEIGHTS, "clay_low.safetensors"))
    assert "### clay\\_low.safetensors" in page
    assert "| rank | 77 |" in page
