from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from musubi.architectures.qwen_image.transformer import PreciseQwenImage, load_transformer
from musubi.weights.checkpoint import open_checkpoint
from tests.architectures.comparing import equal
from tests.architectures.qwen_image.golden import load, pack, predict, unpack, write
from tests.parity.cases import golden, golden_stems, part

STEM = "models_qwen_image"
each_case = pytest.mark.parametrize("stem", [*golden_stems("models_qwen_image"), *golden_stems("models_qwen_edit")])


@each_case
def test_the_outputs_and_gradients_are_the_reference_s(stem: str, tmp_path: Path) -> None:
    model, tensors = _loaded(stem, tmp_path)
    model, inputs = model.requires_grad_(requires_grad=True), part(tensors, "in.")

    predicted = predict(model, inputs)
    loss = (predicted - inputs["target"]).square().mean()
    loss.backward()

    assert (predicted - tensors["out.pred"]).abs().max() <= 2e-5
    assert_close(loss.detach(), tensors["out.loss"], rtol=1e-5, atol=0)
    for name, expected in part(tensors, "grad.").items():
        found = model.get_parameter(name).grad
        assert found is not None
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max(), name


@each_case
def test_padding_is_not_attended_to(stem: str, tmp_path: Path) -> None:
    model, tensors = _loaded(stem, tmp_path)
    inputs = part(tensors, "in.")
    alone = {k: v[1:] if v.ndim != 2 else v for k, v in inputs.items() if k != "vl_embed_0"}
    alone["vl_embed_0"] = alone.pop("vl_embed_1")

    with torch.no_grad():
        assert_close(predict(model, inputs)[1:], predict(model, alone), rtol=0, atol=2e-5)


def test_in_bfloat16_the_time_is_not_rounded(tmp_path: Path) -> None:
    model = load(write(STEM, tmp_path), torch.bfloat16)

    near, nearer = (model.time_text_embed(torch.tensor([t])) for t in (0.8750, 0.8764))

    assert near.dtype == torch.float32
    assert not torch.equal(near, nearer)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(near, model.time_text_embed(torch.tensor([0.8750])))


def test_bfloat16_stays_near_float32(tmp_path: Path) -> None:
    path, inputs = write(STEM, tmp_path), part(golden(STEM)[1], "in.")
    rounded = {name: value if name == "timesteps" else value.bfloat16() for name, value in inputs.items()}

    with torch.no_grad():
        exact, near = predict(load(path), inputs), predict(load(path, torch.bfloat16), rounded).float()

    assert 0 < (near - exact).norm() < 0.03 * exact.norm()


def test_diffusers_own_class_and_folder_agree(tmp_path: Path) -> None:
    ours, inputs = load(write(STEM, tmp_path)), part(golden(STEM)[1], "in.")
    theirs: QwenImageTransformer2DModel = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=3,
        joint_attention_dim=40,
        axes_dims_rope=(4, 6, 6),
    )
    theirs.load_state_dict(ours.state_dict())
    theirs.save_pretrained(tmp_path / "transformer")
    noisy, text = inputs["noisy_latents"], inputs["vl_embed_0"].expand(2, -1, -1)

    expected = theirs(
        pack(noisy), encoder_hidden_states=text, timestep=inputs["timesteps"], img_shapes=[[(1, 4, 6)]] * 2
    ).sample

    loaded = load(tmp_path / "transformer")
    assert equal(ours, loaded)
    found = predict(loaded, {**inputs, "vl_embed_1": inputs["vl_embed_0"]})
    assert_close(found, unpack(expected, noisy.shape), rtol=0, atol=2e-6)


def test_blocks_of_a_pruned_file_are_counted_anew_for_hooks_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = part(golden(STEM)[1], "ckpt.")
    pruned = {name.replace("transformer_blocks.1.", "transformer_blocks.7."): value for name, value in whole.items()}
    save_file(pruned, tmp_path / "pruned.safetensors", metadata={"qwen_image.axes_dims_rope": "[4, 6, 6]"})
    seen: set[str] = set()

    def watch(name: str, tensor: Tensor) -> Tensor:
        seen.add(name)
        return tensor

    with open_checkpoint(tmp_path / "pruned.safetensors") as checkpoint:
        model = load_transformer(checkpoint, device="cpu", dtype=torch.float32, on_weight=watch)

    assert equal(model, load(write(STEM, tmp_path)))
    assert seen == whole.keys()
    (warning,) = caplog.messages
    assert warning.endswith("pruned.safetensors has 2 blocks with gaps between: numbered anew")


def _loaded(stem: str, folder: Path) -> tuple[PreciseQwenImage, dict[str, Tensor]]:
    meta, tensors = golden(stem)
    return load(write(stem, folder), zero_time=bool(meta["config"].get("zero_cond_t"))), tensors


@pytest.mark.parametrize("stem", golden_stems("models_qwen_layered"))
def test_layers_have_places_of_their_own_and_the_picture_they_are_of_another(stem: str, tmp_path: Path) -> None:
    tensors = golden(stem)[1]
    model, inputs = load(write(stem, tmp_path)), part(tensors, "in.")
    layers, picture = inputs["noisy_layer_latents"].transpose(1, 2), inputs["condition_latents"]
    grid = (1, layers.shape[-2] // 2, layers.shape[-1] // 2)

    with torch.no_grad():
        packed = model(
            torch.cat([pack(layers), pack(picture)], dim=1),
            encoder_hidden_states=inputs["vl_embed_0"][None],
            timestep=inputs["timesteps"],
            img_shapes=[*[grid] * layers.shape[2], (1, picture.shape[-2] // 2, picture.shape[-1] // 2)],
        )

    assert (packed - tensors["out.packed"]).abs().max() <= 2e-5
    assert (unpack(packed, layers.shape).transpose(1, 2) - tensors["out.pred"]).abs().max() <= 2e-5


@pytest.mark.parametrize("stem", golden_stems("models_qwen_edit_2511"))
def test_pictures_to_change_are_told_no_noise(stem: str, tmp_path: Path) -> None:
    model, tensors = _loaded(stem, tmp_path)
    plain, inputs = load(write(stem, tmp_path)), part(tensors, "in.")

    with torch.no_grad():
        told, not_told = predict(model, inputs), predict(plain, inputs)

    assert (told - not_told).abs().max() > 1e-2
