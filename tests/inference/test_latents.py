from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from musubi.core.errors import ConfigError, DataError
from musubi.inference.latents import Latents, check_latents
from musubi.testing.toy import Toy

TENSOR = torch.randn(12, 3, 6, 8, generator=torch.Generator().manual_seed(0))


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    latents = Latents(tensor=TENSOR, fps=12.5, trim_tail=3, metadata={"prompt": "ein größerer Fuchs"})

    loaded = Latents.load(latents.save(tmp_path / "new" / "fox.safetensors"))

    assert torch.equal(loaded.tensor, TENSOR)
    assert (loaded.fps, loaded.trim_tail, loaded.metadata) == (12.5, 3, {"prompt": "ein größerer Fuchs"})
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["fox.safetensors"]


def test_files_of_the_reference_are_read_with_or_without_their_batch(tmp_path: Path) -> None:
    for name, tensor in {"flat": TENSOR, "batch": TENSOR[None]}.items():
        path = tmp_path / f"{name}.safetensors"
        save_file({"latent": tensor.bfloat16()}, path, metadata={"seeds": "7"})

        loaded = Latents.load(path)

        assert torch.equal(loaded.tensor, TENSOR.bfloat16().float())
        assert (loaded.fps, loaded.metadata) == (None, {"seeds": "7"})


def test_what_holds_no_latents_is_told_with_the_file(tmp_path: Path) -> None:
    save_file({"other": TENSOR}, tmp_path / "other.safetensors")
    save_file({"latent": TENSOR}, tmp_path / "odd.safetensors", metadata={"fps": "quick"})
    (tmp_path / "broken.safetensors").write_bytes(b"no")

    for name in ("other", "odd", "broken", "absent"):
        with pytest.raises(DataError, match=f"{name}.safetensors"):
            Latents.load(tmp_path / f"{name}.safetensors")


def test_only_latents_are_latents() -> None:
    with pytest.raises(ConfigError, match="must have the shape"):
        Latents(tensor=TENSOR[0])
    with pytest.raises(ConfigError, match="must end in"):
        Latents(tensor=TENSOR).save("fox.mp4")


def test_another_models_latents_are_refused() -> None:
    check_latents(Latents(tensor=TENSOR, trim_tail=8), Toy())

    with pytest.raises(ConfigError, match="have 11 channels"):
        check_latents(Latents(tensor=TENSOR[:11]), Toy())
    with pytest.raises(ConfigError, match="drops 9 of 9 frames"):
        check_latents(Latents(tensor=TENSOR, trim_tail=9), Toy())
