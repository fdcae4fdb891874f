from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from musubi.architectures.flux_kontext.keys import DIT
from musubi.architectures.flux_kontext.transformer import load_transformer
from musubi.weights.checkpoint import open_checkpoint
from tests.architectures.comparing import distance, equal, gradient, scale_first
from tests.architectures.flux_kontext.golden import load, pack, positions, predict, unpack, write
from tests.parity.cases import golden, golden_stems, part

STEM = "models_flux_kontext"
each_case = pytest.mark.parametrize("stem", golden_stems(STEM))


@each_case
def test_the_outputs_and_gradients_are_the_reference_s(stem: str, tmp_path: Path) -> None:
    _, tensors = golden(stem)
    model, inputs = load(write(stem, tmp_path)).requires_grad_(requires_grad=True), part(tensors, "in.")

    predicted = predict(model, inputs)
    loss = (predicted - inputs["target"]).square().mean()
    loss.backward()

    assert (predicted - tensors["out.pred"]).abs().max() <= 2e-5
    assert_close(loss.detach(), tensors["out.loss"], rtol=1e-5, atol=0)
    for name, expected in part(tensors, "grad.").items():
        found = torch.cat([gradient(model, piece.name) for piece in DIT.to_library(name)])
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max(), name


@each_case
def test_in_bfloat16_the_time_is_not_rounded(stem: str, tmp_path: Path) -> None:
    _, tensors = golden(stem)
    model = load(write(stem, tmp_path), torch.bfloat16)
    wrong = tensors.get("out.pred_WRONG_if_timestep_rounded_bf16_twice")

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        predicted = predict(model, part(tensors, "in.")).float()

    assert distance(predicted, tensors["out.pred"]) < 0.03
    assert wrong is None or distance(predicted, wrong) > 0.03


@each_case
def test_positions_are_the_reference_s(stem: str) -> None:
    _, tensors = golden(stem)

    pictures = [tensors["in.noisy_latents"], tensors["in.control_latents"]]

    assert torch.equal(
        torch.cat([positions(p, index=i) for i, p in enumerate(pictures)]), tensors["out.img_ids"].float()
    )
    assert torch.equal(unpack(pack(pictures[0]), pictures[0].shape), pictures[0])


def test_a_folder_in_diffusers_layout_gives_the_same_model(tmp_path: Path) -> None:
    original = load(write(STEM, tmp_path))
    theirs = _diffusers_twin(original)
    theirs.save_pretrained(tmp_path / "transformer")

    assert equal(original, load(tmp_path / "transformer"))


def test_diffusers_own_class_agrees_on_what_its_layout_means(tmp_path: Path) -> None:
    ours, inputs = load(write(STEM, tmp_path)), part(golden(STEM)[1], "in.")
    theirs = _diffusers_twin(ours)

    expected = theirs(
        torch.cat([pack(inputs["noisy_latents"]), pack(inputs["control_latents"])], dim=1),
        encoder_hidden_states=inputs["t5_vec"],
        pooled_projections=inputs["clip_l_pooler"],
        timestep=inputs["timesteps"],
        img_ids=torch.cat([positions(inputs["noisy_latents"], index=0), positions(inputs["control_latents"], index=1)]),
        txt_ids=torch.zeros(inputs["t5_vec"].shape[1], 3),
        guidance=inputs["guidance"],
    ).sample

    assert_close(predict(ours, inputs), unpack(expected, inputs["noisy_latents"].shape), rtol=0, atol=2e-6)


def test_a_hook_sees_original_names_and_rows_of_diffusers_layout(tmp_path: Path) -> None:
    checkpoint_tensors = part(golden(STEM)[1], "ckpt.")
    _diffusers_twin(load(write(STEM, tmp_path))).save_pretrained(tmp_path / "transformer")
    seen: dict[str, Tensor] = {}

    def watch(name: str, tensor: Tensor) -> Tensor | Mapping[str, Tensor]:
        seen[name] = tensor.clone()
        return tensor

    with open_checkpoint(tmp_path / "transformer") as checkpoint:
        load_transformer(checkpoint, device="cpu", dtype=torch.float32, on_weight=watch)

    assert seen.keys() == checkpoint_tensors.keys()
    assert all(torch.equal(tensor, checkpoint_tensors[name]) for name, tensor in seen.items())


def test_a_model_without_guidance_loads_and_predicts(tmp_path: Path) -> None:
    tensors = {n: t for n, t in part(golden(STEM)[1], "ckpt.").items() if not n.startswith("guidance_in.")}
    save_file(tensors, tmp_path / "dit.safetensors", metadata={"flux.axes_dims_rope": "[4, 6, 6]"})
    inputs = part(golden(STEM)[1], "in.")

    model = load(tmp_path / "dit.safetensors")
    predicted = model(
        pack(inputs["noisy_latents"]),
        encoder_hidden_states=inputs["t5_vec"],
        pooled_projections=inputs["clip_l_pooler"],
        timestep=inputs["timesteps"],
        img_ids=positions(inputs["noisy_latents"], index=0),
        txt_ids=torch.zeros(inputs["t5_vec"].shape[1], 3),
    )

    assert predicted.isfinite().all()
    assert not any("guidance" in name for name, _ in model.named_parameters())


def test_time_guidance_and_pooled_text_stay_in_float32(tmp_path: Path) -> None:
    model = load(write(STEM, tmp_path), torch.bfloat16)

    kept = {DIT.to_original(n)[0].split(".")[0] for n, p in model.named_parameters() if p.dtype == torch.float32}
    embedded = model.time_text_embed(torch.tensor([0.7003]), torch.tensor([1.0]), torch.zeros(1, 24).bfloat16())

    assert kept == {"time_in", "vector_in", "guidance_in"}
    assert embedded.dtype == torch.float32


def _diffusers_twin(model: nn.Module) -> FluxTransformer2DModel:
    """Return diffusers' own class with the same weights, its last modulation in its own order: scale before shift."""
    twin: FluxTransformer2DModel = FluxTransformer2DModel(
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=3,
        joint_attention_dim=32,
        pooled_projection_dim=24,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    twin.load_state_dict(scale_first(model.state_dict()))
    return twin.eval()
