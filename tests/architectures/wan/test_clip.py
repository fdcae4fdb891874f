from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from musubi.architectures.wan.clip import encode_images, load_clip, preprocess
from musubi.core.errors import WeightsError
from musubi.testing.checkpoints import WanFiles, tiny_wan, write_networks
from musubi.testing.tiny_networks import tiny_networks

CPU = torch.device("cpu")
LAYOUTS: tuple[WanFiles, ...] = ("original", "original_pth", "diffusers")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[WanFiles, Path]:
    """Return where the same encoder lies in every layout."""
    folder = tmp_path_factory.mktemp("clip")
    clip = tiny_networks("i2v_14b", dim=64, head_dim=32, num_layers=1, seed=0)["clip"]
    places: dict[WanFiles, Path] = {}
    for layout in LAYOUTS:
        (folder / layout).mkdir()
        places[layout] = write_networks(folder / layout, {"clip": clip}, layout=layout)["clip"]
    return places


def pictures() -> Tensor:
    return torch.rand(2, 3, 40, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def features(path: Path) -> Tensor:
    return encode_images(load_clip(path, device=CPU, dtype=torch.float32), pictures())


def test_all_layouts_give_the_same_features(places: dict[WanFiles, Path]) -> None:
    first, *others = (features(path) for path in places.values())

    assert first.shape == (2, 17, 80)
    assert all(torch.equal(first, other) for other in others)


def test_what_wan_sees_is_what_the_last_block_would_get(places: dict[WanFiles, Path]) -> None:
    from transformers import CLIPVisionModel

    whole = CLIPVisionModel.from_pretrained(places["diffusers"], attn_implementation="sdpa").eval()

    with torch.no_grad():
        hidden = whole(pixel_values=preprocess(pictures(), size=56), output_hidden_states=True).hidden_states

    torch.testing.assert_close(features(places["original"]), hidden[-2], rtol=0, atol=1e-5)
    assert not torch.allclose(hidden[-1], hidden[-2], atol=1e-2)


def test_a_file_of_comfyui_with_other_parts_is_read(places: dict[WanFiles, Path], tmp_path: Path) -> None:
    from transformers import CLIPVisionModel

    state = CLIPVisionModel.from_pretrained(places["diffusers"]).state_dict()
    tensors = {f"vision_model.{name.removeprefix('vision_model.')}": value for name, value in state.items()}
    tensors["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    tensors["visual_projection.weight"] = torch.zeros(4, 80)
    save_file(tensors, tmp_path / "clip_vision_h.safetensors")

    found = features(tmp_path / "clip_vision_h.safetensors")

    assert torch.equal(found, features(places["original"]))


def test_the_text_side_of_the_published_file_is_left_out(places: dict[WanFiles, Path], tmp_path: Path) -> None:
    others = {"textual.norm.weight": torch.zeros(4), "log_scale": torch.zeros(()), "visual.head": torch.zeros(80, 4)}
    save_file({**load_file(places["original"]), **others}, tmp_path / "clip.safetensors")

    assert torch.equal(features(tmp_path / "clip.safetensors"), features(places["original"]))


def test_pictures_are_stretched_whole_onto_clips_scale() -> None:
    left_black = torch.ones(1, 3, 8, 32)
    left_black[..., :16] = -1

    squares = preprocess(left_black, size=56)

    assert squares.shape == (1, 3, 56, 56)
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    torch.testing.assert_close(squares[0, :, 28, 5], (0 - mean) / std)
    torch.testing.assert_close(squares[0, :, 28, 50], (1 - mean) / std)


def test_another_file_is_refused_by_name(tmp_path: Path) -> None:
    vae = tiny_wan(tmp_path).weight("vae").resolve()

    with pytest.raises(WeightsError, match=r"is a Wan 2\.1 VAE, not the CLIP image encoder"):
        load_clip(vae, device=CPU, dtype=torch.float32)


def test_a_width_that_does_not_tell_the_heads_is_refused(places: dict[WanFiles, Path], tmp_path: Path) -> None:
    wider = {**load_file(places["original"]), "visual.patch_embedding.weight": torch.zeros(96, 3, 14, 14)}
    save_file(wider, tmp_path / "clip.safetensors")

    with pytest.raises(WeightsError, match=r"wan_clip\.num_heads"):
        load_clip(tmp_path / "clip.safetensors", device=CPU, dtype=torch.float32)
