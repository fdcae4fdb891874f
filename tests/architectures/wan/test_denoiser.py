from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import pad

from musubi.architecture import Expert, StoredWeight
from musubi.architectures.wan.denoiser import WanConditions, pad_text
from musubi.architectures.wan.spec import Wan
from musubi.architectures.wan.transformer import sinusoid
from musubi.batch import collate
from musubi.testing.checkpoints import WanFiles, tiny_wan
from musubi.weights.checkpoint import open_checkpoint

CPU = torch.device("cpu")


def _load(wan: Wan, dtype: torch.dtype = torch.float32) -> WanTransformer3DModel:
    return wan.denoiser().load(Expert(), device=CPU, dtype=dtype)


def _inputs(*lengths: int) -> tuple[Tensor, Tensor, WanConditions]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(len(lengths), 16, 2, 4, 6, generator=generator)
    texts = [torch.randn(length, 32, generator=generator) for length in lengths]
    return x, torch.linspace(0.2, 0.9, len(lengths)), WanConditions(text=pad_text(texts))


def test_all_layouts_give_the_same_velocity(tmp_path: Path) -> None:
    layouts: tuple[WanFiles, ...] = ("original", "original_pth", "diffusers")
    x, sigma, conditions = _inputs(3, 7)
    outputs = []

    for layout in layouts:
        wan = tiny_wan(tmp_path / layout, layout=layout)
        outputs.append(wan.denoiser().velocity(_load(wan), x, sigma, conditions))

    assert all(torch.equal(output, outputs[0]) for output in outputs)
    assert 0.1 < outputs[0].std() < 10


def test_a_pipeline_folder_is_enough(tmp_path: Path) -> None:
    wan = tiny_wan(tmp_path, layout="diffusers")
    x, sigma, conditions = _inputs(3)

    whole = _load(Wan.t2v_1_3b().with_weights(dit=tmp_path))

    expected = wan.denoiser().velocity(_load(wan), x, sigma, conditions)
    assert torch.equal(wan.denoiser().velocity(whole, x, sigma, conditions), expected)


def test_the_weights_are_those_of_the_file_bit_for_bit(tiny: Wan) -> None:
    model = _load(tiny)

    with open_checkpoint(tiny.weight("dit").resolve()) as checkpoint:
        assert len(checkpoint.names()) == len(list(model.parameters()))
        for name in checkpoint.names():
            place = tiny.keys.to_library(name)[0].name
            assert torch.equal(model.get_parameter(place), checkpoint.read(name)), name


def test_loading_leaves_the_callers_random_numbers_alone(tiny: Wan) -> None:
    before = torch.get_rng_state()

    _load(tiny)

    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_model_is_frozen_and_in_evaluation_mode(tiny: Wan) -> None:
    model = _load(tiny)

    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_velocity_has_the_shape_of_x_in_float32_whatever_the_model_computes_in(tiny: Wan) -> None:
    x, sigma, conditions = _inputs(3, 500)

    exact = tiny.denoiser().velocity(_load(tiny), x, sigma, conditions)
    rounded = tiny.denoiser().velocity(_load(tiny, torch.bfloat16), x.bfloat16(), sigma, conditions)

    assert rounded.dtype == exact.dtype == torch.float32
    assert rounded.shape == x.shape
    assert (rounded - exact).square().mean().sqrt() < 0.03 * exact.std()


def test_the_time_path_and_the_rope_tables_stay_in_float32(tiny: Wan) -> None:
    model = _load(tiny, torch.bfloat16)

    kept = {name for name, value in model.named_parameters() if value.dtype == torch.float32}
    waves = model.condition_embedder(torch.tensor([700.3]), torch.zeros(1, 4, 32, dtype=torch.bfloat16))

    assert {name.split(".")[1] for name in kept if name.startswith("condition_embedder")} == {
        "time_embedder",
        "time_proj",
    }
    assert model.blocks[0].get_parameter("attn1.to_q.weight").dtype == torch.bfloat16
    assert {buffer.dtype for _, buffer in model.named_buffers()} == {torch.float32}
    assert [tensor.dtype for tensor in (*waves[:2], *waves[2][:2])] == [
        torch.float32,
        torch.float32,
        *2 * [torch.bfloat16],
    ]


def test_the_precise_time_path_is_untouched_by_autocast(tiny: Wan) -> None:
    model = _load(tiny, torch.bfloat16)
    text = torch.zeros(1, 4, 32, dtype=torch.bfloat16)

    plain = model.condition_embedder(torch.tensor([700.3]), text)
    with torch.autocast("cpu", torch.bfloat16):
        cast = model.condition_embedder(torch.tensor([700.3]), text)

    assert torch.equal(plain[1], cast[1])


def test_waves_are_exact_to_float32() -> None:
    waves = sinusoid(torch.tensor([999.25]), 64)

    exact = [math.cos(999.25 * 10000 ** (-i / 32)) for i in range(32)]
    assert torch.equal(waves[0, :32], torch.tensor(exact, dtype=torch.float64).float())


@pytest.mark.parametrize("lengths", [(3, 7), (0, 1), (511, 2), (512, 5)])
def test_short_text_gives_what_all_the_padding_gives(lengths: tuple[int, ...], tiny: Wan) -> None:
    model = _load(tiny)
    x, sigma, conditions = _inputs(*lengths)
    whole = WanConditions(text=pad(conditions.text, (0, 0, 0, 512 - conditions.text.shape[1])))

    short = tiny.denoiser().velocity(model, x, sigma, conditions)

    assert conditions.text.shape[1] == min(512, max(lengths) + 1)
    assert (short - tiny.denoiser().velocity(model, x, sigma, whole)).abs().max() <= 2e-6


@pytest.mark.parametrize("length", [3, 200, 510])
@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_is_as_near_with_short_text_as_with_all_the_padding(
    length: int, tiny: Wan, *, autocast: bool
) -> None:
    exact, half = _load(tiny), _load(tiny, torch.bfloat16)
    x, sigma, short = _inputs(length)
    whole = WanConditions(text=pad(short.text, (0, 0, 0, 512 - short.text.shape[1])))
    wanted = tiny.denoiser().velocity(exact, x, sigma, whole)

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        near, usual = (tiny.denoiser().velocity(half, x, sigma, c) for c in (short, whole))

    assert 0 < (near - wanted).norm() <= 1.1 * (usual - wanted).norm()


def test_an_item_does_not_depend_on_its_neighbours(tiny: Wan) -> None:
    model = _load(tiny)
    x, sigma, _ = _inputs(3, 40)
    texts = [torch.randn(length, 32, generator=torch.Generator().manual_seed(length)) for length in (3, 40)]

    together = tiny.denoiser().velocity(model, x, sigma, WanConditions(text=pad_text(texts)))
    alone = tiny.denoiser().velocity(model, x[:1], sigma[:1], WanConditions(text=pad_text(texts[:1])))

    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-5)


def test_a_batch_gives_clean_latents_and_conditions(tiny: Wan) -> None:
    entries = [
        {"latents": torch.ones(16, 1, 4, 4).bfloat16(), "varlen_t5": torch.ones(n, 32).bfloat16()} for n in (2, 5)
    ]
    batch = collate(entries, items=["a", "b"], bucket="x")

    clean = tiny.denoiser().clean(batch)
    conditions = tiny.denoiser().conditions(batch)

    assert clean.dtype == torch.float32
    assert clean.shape == (2, 16, 1, 4, 4)
    assert len(conditions) == 2
    assert conditions.text.shape == (2, 6, 32)
    assert conditions.text[0, 2:].abs().max() == 0


def test_the_empty_model_has_the_sizes_of_the_file_and_real_rope_tables(tiny: Wan) -> None:
    empty = tiny.denoiser().empty(Expert())

    loaded = _load(tiny)
    assert {n: p.shape for n, p in empty.named_parameters()} == {n: p.shape for n, p in loaded.named_parameters()}
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert not any(buffer.is_meta for buffer in empty.buffers())


def test_hooks_and_preparation_take_part_in_loading(tiny: Wan) -> None:
    seen: list[str] = []
    prepared: list[bool] = []

    def zero_queries(name: str, tensor: Tensor) -> Tensor:
        seen.append(name)
        return tensor * 0 if name == "blocks.0.self_attn.q.weight" else tensor

    model = tiny.denoiser().load(
        Expert(),
        device=CPU,
        dtype=torch.float32,
        prepare=lambda empty: prepared.append(all(p.is_meta for p in empty.parameters())),
        on_weight=zero_queries,
    )

    assert prepared == [True]
    assert "head.modulation" in seen
    assert model.get_parameter("blocks.0.attn1.to_q.weight").abs().max() == 0


@pytest.mark.parametrize("layout", ["original", "original_pth", "diffusers"])
def test_matrices_of_8_bits_are_told_by_original_names(layout: WanFiles, tmp_path: Path) -> None:
    wan = tiny_wan(tmp_path, layout=layout)
    before = wan.denoiser().stored(Expert())

    with open_checkpoint(wan.weight("dit").resolve()) as checkpoint:
        tensors = {name: checkpoint.read(name) for name in checkpoint.names()}
    for name in [n for n in tensors if n.startswith("blocks.") and tensors[n].ndim == 2 and n.endswith(".weight")]:
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
        tensors[name.replace(".weight", ".scale_weight")] = torch.ones(())
    save_file(tensors, tmp_path / "fp8.safetensors", metadata={"wan.num_heads": "2"})
    found = wan.with_weights(dit=tmp_path / "fp8.safetensors").denoiser().stored(Expert())

    assert before == {}
    assert found.keys() == {n for n in wan.linears() if re.fullmatch(r"blocks\.[01]\..*", n)}
    assert set(found.values()) == {StoredWeight(dtype="float8_e4m3fn", scale=())}
