from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from musubi.architectures.hunyuan_video.keys import DIT
from musubi.architectures.hunyuan_video.transformer import load_transformer
from musubi.weights.checkpoint import open_checkpoint
from tests.architectures.comparing import distance, equal, gradient, scale_first
from tests.architectures.hunyuan_video.golden import load, predict, stems, write
from tests.architectures.recorded import as_recorded
from tests.parity.cases import golden, part

STEM = "models_hunyuan"
each_case = pytest.mark.parametrize("stem", stems())


@each_case
def test_the_outputs_and_gradients_are_the_reference_s(stem: str, tmp_path: Path) -> None:
    _, tensors = golden(stem)
    inputs = part(tensors, "in.")
    model = as_recorded(load(write(stem, tmp_path))).requires_grad_(requires_grad=True)

    predicted = predict(model, inputs)
    loss = (predicted - inputs["loss_target"]).square().mean()
    loss.backward()

    assert (predicted - tensors["out.pred"]).abs().max() <= 1e-5
    assert_close(loss.detach(), tensors["out.loss"].squeeze(), rtol=1e-5, atol=0)
    for name, expected in part(tensors, "grad.").items():
        found = torch.cat([gradient(model, piece.name) for piece in DIT.to_library(name)])
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max(), name


@each_case
def test_frequencies_that_are_the_same_everywhere_are_near_the_recorded_ones(stem: str, tmp_path: Path) -> None:
    _, tensors = golden(stem)

    with torch.no_grad():
        predicted = predict(load(write(stem, tmp_path)), part(tensors, "in."))

    assert (predicted - tensors["out.pred"]).abs().max() <= 2e-5


@each_case
def test_in_bfloat16_the_time_is_not_rounded(stem: str, tmp_path: Path) -> None:
    _, tensors = golden(stem)
    inputs = part(tensors, "in.")
    model = load(write(stem, tmp_path), torch.bfloat16)
    states = {name: inputs[name].bfloat16() for name in ("x", "text_states", "text_states_2")}

    with torch.no_grad():
        plain = predict(model, {**inputs, **states}).float()
        with torch.autocast("cpu", torch.bfloat16):
            cast = predict(model, inputs).float()
        rounded = predict(model, {**inputs, **states, "t": inputs["t"].bfloat16().float()}).float()

    assert distance(plain, tensors["out.pred"]) < 0.03
    assert distance(cast, tensors["out.pred"]) < 0.03
    assert distance(rounded, tensors["out.pred"]) > 2 * distance(plain, tensors["out.pred"])


def test_a_caption_alone_needs_no_mask(tmp_path: Path) -> None:
    model, inputs = load(write(STEM, tmp_path)), part(golden(STEM)[1], "in.")
    one = {name: tensor[1:] for name, tensor in inputs.items()}
    length = int(one["text_mask"].sum())

    with torch.no_grad():
        expected = predict(model, inputs)[1:]
        found = model(
            one["x"],
            encoder_hidden_states=one["text_states"][:, :length],
            pooled_projections=one["text_states_2"],
            timestep=one["t"],
            guidance=one["guidance"],
        )

    assert length < one["text_mask"].shape[1]
    assert_close(found, expected, rtol=0, atol=5e-6)


def test_the_authors_own_container_is_read(tmp_path: Path) -> None:
    original = load(write(STEM, tmp_path))
    tensors = part(golden(STEM)[1], "ckpt.")
    torch.save({"module": tensors}, tmp_path / "mp_rank_00_model_states.pt")
    (tmp_path / "config.json").write_text(
        '{"_class_name": "HunyuanVideoTransformer3DModel", "rope_axes_dim": [4, 6, 6]}', encoding="utf-8"
    )

    assert equal(original, load(tmp_path / "mp_rank_00_model_states.pt"))


def test_a_folder_in_diffusers_layout_gives_the_same_model(tmp_path: Path) -> None:
    original = load(write(STEM, tmp_path))
    theirs = _diffusers_twin(original)
    theirs.save_pretrained(tmp_path / "transformer")

    assert equal(original, load(tmp_path / "transformer"))


def test_diffusers_own_class_agrees_on_what_its_layout_means(tmp_path: Path) -> None:
    ours, inputs = load(write(STEM, tmp_path)), part(golden(STEM)[1], "in.")
    theirs = _diffusers_twin(ours)

    with torch.no_grad():
        expected = theirs(
            inputs["x"],
            timestep=inputs["t"],
            encoder_hidden_states=inputs["text_states"],
            encoder_attention_mask=inputs["text_mask"],
            pooled_projections=inputs["text_states_2"],
            guidance=inputs["guidance"],
        ).sample
        assert_close(predict(ours, inputs), expected, rtol=0, atol=3e-5)


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
    save_file(tensors, tmp_path / "dit.safetensors", metadata={"hunyuan_video.rope_axes_dim": "[4, 6, 6]"})

    model = load(tmp_path / "dit.safetensors")

    assert predict(model, part(golden(STEM)[1], "in.")).isfinite().all()
    assert not any("guidance" in name for name, _ in model.named_parameters())


def test_time_guidance_and_pooled_text_stay_in_float32(tmp_path: Path) -> None:
    model = load(write(STEM, tmp_path), torch.bfloat16)

    kept = {DIT.to_original(n)[0].rpartition(".")[0] for n, p in model.named_parameters() if p.dtype == torch.float32}
    embedded = model.time_text_embed(torch.tensor([700.3]), torch.tensor([6000.0]), torch.zeros(1, 20).bfloat16())
    refined = model.context_embedder.time_text_embed(torch.tensor([700.3]), torch.zeros(1, 24).bfloat16())

    assert {name.split(".")[0] for name in kept} == {"time_in", "vector_in", "guidance_in", "txt_in"}
    assert {name.split(".")[1] for name in kept if name.startswith("txt_in")} == {"t_embedder", "c_embedder"}
    assert (embedded.dtype, refined.dtype) == (torch.float32, torch.bfloat16)


def _diffusers_twin(model: nn.Module) -> HunyuanVideoTransformer3DModel:
    """Return diffusers' own class with the same weights, its last modulation in its own order: scale before shift."""
    twin: HunyuanVideoTransformer3DModel = HunyuanVideoTransformer3DModel(
        num_attention_heads=3,
        attention_head_dim=16,
        num_layers=2,
        num_single_layers=2,
        mlp_ratio=2.0,
        text_embed_dim=24,
        pooled_projection_dim=20,
        rope_axes_dim=(4, 6, 6),
    )
    twin.load_state_dict(scale_first(model.state_dict()))
    return twin.eval()
