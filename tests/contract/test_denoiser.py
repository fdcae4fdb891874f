"""One question, many properties: which velocity at this noise level?"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.testing import assert_close

from musubi.batch import Batch, collate
from musubi.networks.adapters import AdapterSet
from musubi.networks.file import LoRAFile
from musubi.networks.lora import LoRA
from tests.contract.conftest import CAPTIONS, CPU, Running
from tests.contract.kinds import idle

Noisy = tuple[Tensor, Tensor, Batch]


def test_the_velocity_is_float32_finite_and_shaped_like_the_latents(running: Running, noisy: Noisy) -> None:
    x, sigma, batch = noisy

    velocity = running.velocity(running.model, x, sigma, batch)

    assert velocity.shape == x.shape
    assert velocity.dtype == torch.float32
    assert velocity.isfinite().all()
    assert velocity.std() > 0


def test_the_same_question_has_the_same_answer(running: Running, noisy: Noisy) -> None:
    x, sigma, batch = noisy
    kept = x.clone()

    with torch.no_grad():
        conditions = running.denoiser.conditions(batch)
        first, second = (running.denoiser.velocity(running.model, x, sigma, conditions) for _ in range(2))

    assert torch.equal(first, second)
    assert torch.equal(x, kept)


def test_items_of_a_batch_do_not_see_one_another(running: Running, noisy: Noisy) -> None:
    x, sigma, batch = noisy
    samples = running.samples()

    together = running.velocity(running.model, x, sigma, batch)
    alone = [
        running.velocity(running.model, x[i : i + 1], sigma[i : i + 1], running.batch([sample]))
        for i, sample in enumerate(samples)
    ]

    assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_the_noise_level_the_caption_and_the_latents_matter(running: Running, noisy: Noisy) -> None:
    x, sigma, batch = noisy
    reworded = running.batch(running.samples(CAPTIONS[::-1]))

    usual = running.velocity(running.model, x, sigma, batch)

    assert not torch.equal(usual, running.velocity(running.model, x, 0.9 * sigma, batch))
    assert not torch.equal(usual, running.velocity(running.model, x, sigma, reworded))
    assert not torch.equal(usual, running.velocity(running.model, x + 0.1, sigma, batch))


def test_conditions_need_no_target_pixels(running: Running, noisy: Noisy) -> None:
    x, sigma, batch = noisy
    stages = [s for s in running.spec.stages if "pixels" not in s.reads or "controls" in s.reads]
    encoded = [running.entries(stage.name, running.samples()) for stage in stages]
    merged = [{k: t for entry in entries for k, t in entry.tensors.items()} for entries in zip(*encoded, strict=True)]

    prompt = collate(merged, items=batch.items, bucket="prompt")

    assert torch.equal(
        running.velocity(running.model, x, sigma, prompt), running.velocity(running.model, x, sigma, batch)
    )


def test_loading_twice_gives_the_same_bits_frozen_and_whole(running: Running) -> None:
    again = running.denoiser.load(running.spec.experts[0], device=CPU, dtype=torch.float32)
    first, second = running.model.state_dict(), again.state_dict()

    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not again.training
    assert not any(p.requires_grad or p.is_meta for p in again.parameters())


def test_an_empty_model_has_the_loaded_one_s_shape_and_no_memory(running: Running) -> None:
    empty = running.denoiser.empty(running.spec.experts[0])

    shapes = [{n: p.shape for n, p in model.named_parameters()} for model in (empty, running.model)]

    assert shapes[0] == shapes[1]
    assert all(parameter.is_meta for parameter in empty.parameters())


def test_half_precision_gives_a_similar_velocity_in_float32(running: Running, noisy: Noisy) -> None:
    x, sigma, batch = noisy
    model = running.denoiser.load(running.spec.experts[0], device=CPU, dtype=torch.bfloat16)

    rough = running.velocity(model, x, sigma, batch)
    exact = running.velocity(running.model, x, sigma, batch)

    assert rough.dtype == torch.float32
    assert (rough - exact).norm() < 0.1 * exact.norm()


def adapters(running: Running) -> AdapterSet:
    return AdapterSet.create(
        LoRA(rank=2),
        running.model,
        keys=running.spec.keys,
        layout=running.spec.layout,
        generator=torch.Generator().manual_seed(0),
    )


def trained(running: Running) -> AdapterSet:
    made = adapters(running)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1)
    return made


def test_gradients_reach_every_adapter_and_nothing_else(running: Running, noisy: Noisy) -> None:
    x, sigma, batch = noisy
    made = trained(running)

    with made.attached(running.model):
        velocity = running.denoiser.velocity(running.model, x, sigma, running.denoiser.conditions(batch))
        velocity.square().mean().backward()

    for name, layer in made.layers.items():
        reached = all(p.grad is not None and bool(p.grad.any()) for p in layer.parameters())
        assert reached != idle(running.spec.kind, name), name
    assert all(p.grad is None for p in running.model.parameters())


def test_fresh_adapters_and_detached_ones_change_nothing(running: Running, noisy: Noisy) -> None:
    x, sigma, batch = noisy
    before = running.velocity(running.model, x, sigma, batch)

    with adapters(running).attached(running.model):
        fresh = running.velocity(running.model, x, sigma, batch)
    with trained(running).attached(running.model):
        changed = running.velocity(running.model, x, sigma, batch)
    after = running.velocity(running.model, x, sigma, batch)

    assert torch.equal(before, fresh)
    assert not torch.equal(before, changed)
    assert torch.equal(before, after)


def test_a_lora_in_a_file_does_the_same_attached_and_merged(running: Running, noisy: Noisy) -> None:
    x, sigma, batch = noisy
    made = trained(running)
    file = made.to_file({})

    with made.attached(running.model):
        trained_one = running.velocity(running.model, x, sigma, batch)
    with AdapterSet.from_file(file, running.model, keys=running.spec.keys).attached(running.model):
        attached = running.velocity(running.model, x, sigma, batch)
    merged_model = running.denoiser.load(
        running.spec.experts[0], device=CPU, dtype=torch.float32, on_weight=file.merge_hook()
    )
    merged = running.velocity(merged_model, x, sigma, batch)

    assert_close(attached, trained_one, rtol=1e-5, atol=1e-6)
    assert_close(merged, trained_one, rtol=1e-3, atol=1e-4)


def test_a_lora_survives_every_layout_on_disk(running: Running, tmp_path: Path) -> None:
    file = trained(running).to_file({})

    for layout in ("comfy", "peft", "reference"):
        path = file.save(tmp_path / f"{layout}.safetensors", layout=layout)
        again = LoRAFile.load(path, file.names)

        assert again.names == file.names
        for name in file.names:
            assert_close(again.modules[name].delta(), file.modules[name].delta(), rtol=1e-5, atol=1e-6)
