from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.transformers.transformer_hunyuan_video_framepack import HunyuanVideoFramepackTransformer3DModel
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from tests.architectures.comparing import distance, equal
from tests.architectures.framepack.golden import calls, load, predict, stems, write
from tests.architectures.recorded import as_recorded
from tests.parity.cases import golden, part

STEM = "models_framepack"
each_case = pytest.mark.parametrize("stem", stems())


@each_case
def test_the_outputs_of_every_call_are_the_reference_s(stem: str, tmp_path: Path) -> None:
    _, tensors = golden(stem)
    model = as_recorded(load(write(stem, tmp_path)))

    assert calls(tensors)
    for tag, inputs in calls(tensors).items():
        with torch.no_grad():
            predicted = predict(model, inputs)
        assert (predicted - tensors[f"out.{tag}.pred"]).abs().max() <= 1e-5, tag


@each_case
def test_the_gradients_are_the_reference_s(stem: str, tmp_path: Path) -> None:
    _, tensors = golden(stem)
    model = as_recorded(load(write(stem, tmp_path))).requires_grad_(requires_grad=True)

    predicted = predict(model, calls(tensors)["vanilla"])
    loss = (predicted - tensors["in.loss_target"]).square().mean()
    loss.backward()

    assert_close(loss.detach(), tensors["out.loss"].squeeze(), rtol=1e-5, atol=0)
    for name, expected in part(tensors, "grad.").items():
        found = model.get_parameter(name).grad
        assert found is not None
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max(), name


@each_case
def test_frequencies_that_are_the_same_everywhere_are_near_the_recorded_ones(stem: str, tmp_path: Path) -> None:
    _, tensors = golden(stem)
    model = load(write(stem, tmp_path))

    for tag, inputs in calls(tensors).items():
        with torch.no_grad():
            predicted = predict(model, inputs)
        assert (predicted - tensors[f"out.{tag}.pred"]).abs().max() <= 2e-4, tag


def test_in_bfloat16_time_and_guidance_are_not_rounded(tmp_path: Path) -> None:
    _, tensors = golden(STEM)
    inputs, wanted = calls(tensors)["vanilla"], tensors["out.vanilla.pred"]
    model = load(write(STEM, tmp_path), torch.bfloat16)
    named = ("hidden_states", "encoder_hidden_states", "pooled_projections", "image_embeddings")
    states = {name: inputs[name].bfloat16() for name in named}

    with torch.no_grad():
        plain = predict(model, {**inputs, **states}).float()
        with torch.autocast("cpu", torch.bfloat16):
            cast = predict(model, inputs).float()
        rounded = predict(model, {**inputs, **states, "timestep": inputs["timestep"].bfloat16().float()}).float()

    assert distance(plain, wanted) < 0.03
    assert distance(cast, wanted) < 0.03
    assert distance(rounded, wanted) > 2 * distance(plain, wanted)


def test_samples_at_different_places_are_predicted_as_if_alone(tmp_path: Path) -> None:
    inputs = calls(golden(STEM)[1])["batch2"]
    model = load(write(STEM, tmp_path))

    with torch.no_grad():
        together = predict(model, inputs)
        alone = [predict(model, {name: t[i : i + 1] for name, t in inputs.items()}) for i in range(2)]

    assert not torch.equal(inputs["latent_indices"][0], inputs["latent_indices"][1])
    assert_close(together, torch.cat(alone), rtol=0, atol=5e-6)


def test_a_caption_alone_needs_no_mask(tmp_path: Path) -> None:
    inputs = calls(golden(STEM)[1])["vanilla"]
    model = load(write(STEM, tmp_path))
    length = int(inputs["encoder_attention_mask"].sum())
    cropped = {name: tensor for name, tensor in inputs.items() if name != "encoder_attention_mask"}
    cropped["encoder_hidden_states"] = inputs["encoder_hidden_states"][:, :length]

    with torch.no_grad():
        found, expected = predict(model, cropped), predict(model, inputs)

    assert length < inputs["encoder_hidden_states"].shape[1]
    assert_close(found, expected, rtol=0, atol=5e-6)


def test_every_size_of_history_counts(tmp_path: Path) -> None:
    inputs = calls(golden(STEM)[1])["vanilla"]
    model = load(write(STEM, tmp_path))

    with torch.no_grad():
        outputs = [
            predict(model, {name: tensor for name, tensor in inputs.items() if name != without})
            for without in ("", "clean_latents", "clean_latents_2x", "clean_latents_4x")
        ]

    assert all(not torch.allclose(one, other) for i, one in enumerate(outputs) for other in outputs[:i])


def test_a_folder_of_shards_gives_the_same_model_and_diffusers_own_class_agrees(tmp_path: Path) -> None:
    ours, inputs = load(write(STEM, tmp_path)), calls(golden(STEM)[1])["vanilla"]
    theirs = _diffusers_twin(ours)
    theirs.save_pretrained(tmp_path / "transformer", max_shard_size="500KB")

    with torch.no_grad():
        expected = theirs(
            inputs["hidden_states"],
            timestep=inputs["timestep"],
            encoder_hidden_states=inputs["encoder_hidden_states"],
            encoder_attention_mask=inputs["encoder_attention_mask"],
            pooled_projections=inputs["pooled_projections"],
            image_embeds=inputs["image_embeddings"],
            indices_latents=inputs["latent_indices"][0],
            guidance=inputs["guidance"],
            latents_clean=inputs["clean_latents"],
            indices_latents_clean=inputs["clean_latent_indices"][0],
            latents_history_2x=inputs["clean_latents_2x"],
            indices_latents_history_2x=inputs["clean_latent_2x_indices"][0],
            latents_history_4x=inputs["clean_latents_4x"],
            indices_latents_history_4x=inputs["clean_latent_4x_indices"][0],
        ).sample
        assert_close(predict(ours, inputs), expected, rtol=0, atol=3e-4)

    assert len(list((tmp_path / "transformer").glob("*.safetensors"))) > 1
    assert equal(ours, load(tmp_path / "transformer"))


def test_a_model_without_guidance_loads_and_predicts(tmp_path: Path) -> None:
    tensors = {n: t for n, t in part(golden(STEM)[1], "ckpt.").items() if ".guidance_embedder." not in n}
    save_file(tensors, tmp_path / "dit.safetensors", metadata={"framepack.rope_axes_dim": "[4, 6, 6]"})

    model = load(tmp_path / "dit.safetensors")

    assert predict(model, calls(golden(STEM)[1])["vanilla"]).isfinite().all()
    assert not any("guidance" in name for name, _ in model.named_parameters())


def test_time_guidance_and_pooled_text_stay_in_float32(tmp_path: Path) -> None:
    model = load(write(STEM, tmp_path), torch.bfloat16)

    kept = {name for name, p in model.named_parameters() if p.dtype == torch.float32}
    embedded = model.time_text_embed(torch.tensor([700.3]), torch.tensor([10000.0]), torch.zeros(1, 20).bfloat16())

    assert kept == {name for name, _ in model.named_parameters() if "time_text_embed." in name}
    assert embedded.dtype == torch.float32


def _diffusers_twin(model: nn.Module) -> HunyuanVideoFramepackTransformer3DModel:
    twin: HunyuanVideoFramepackTransformer3DModel = HunyuanVideoFramepackTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        num_single_layers=2,
        mlp_ratio=2.0,
        text_embed_dim=24,
        pooled_projection_dim=20,
        rope_axes_dim=(4, 6, 6),
        has_image_proj=True,
        image_proj_dim=28,
        has_clean_x_embedder=True,
    )
    twin.load_state_dict(model.state_dict())
    return twin.eval()
