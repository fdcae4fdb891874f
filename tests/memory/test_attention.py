from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from diffusers.models import attention_dispatch
from diffusers.models.attention_dispatch import AttentionBackendName
from torch import Tensor, nn

from musubi import Attention
from musubi.core.errors import ConfigError
from musubi.memory.attention import BACKENDS
from musubi.memory.policy import FitContext, arrange, check_machine, weight_hook
from tests.attention.plain import plain
from tests.memory import tiny

PACKAGES = {"flash": "flash-attn", "flash3": "FA3", "sage": "sageattention", "xformers": "xformers"}
each_package = pytest.mark.parametrize("backend", PACKAGES)


def _processors(model: nn.Module) -> list[Any]:
    return [module.processor for module in model.modules() if hasattr(module, "processor")]


def test_every_backend_is_one_that_diffusers_has() -> None:
    registered = attention_dispatch._AttentionBackendRegistry._backends

    assert all(AttentionBackendName(name) in registered for name in BACKENDS.values())


def test_an_unknown_backend_is_refused_with_the_nearest_known() -> None:
    with pytest.raises(
        ConfigError, match=r"backend: must be one of sdpa, .*xformers, got 'flash2'; did you mean 'flash'"
    ):
        Attention(backend="flash2")


def test_every_processor_is_told_and_told_back_in_the_end() -> None:
    model, other = tiny.transformer(), tiny.transformer()
    before = [dict(vars(processor)) for processor in _processors(model)]

    with Attention(backend="sdpa_math").place(model, tiny.PLACEMENT):
        told = [processor._attention_backend for processor in _processors(model)]
        elsewhere = [processor._attention_backend for processor in _processors(other)]
        with Attention(backend="sdpa").place(model, tiny.PLACEMENT):
            inner = [processor._attention_backend for processor in _processors(model)]
        again = [processor._attention_backend for processor in _processors(model)]

    assert told == again == [AttentionBackendName("_native_math")] * 2 * tiny.LAYERS
    assert inner == [AttentionBackendName.NATIVE] * 2 * tiny.LAYERS
    assert elsewhere == [None] * 2 * tiny.LAYERS
    assert [dict(vars(processor)) for processor in _processors(model)] == before


def test_the_process_keeps_its_own_backend() -> None:
    before = attention_dispatch._AttentionBackendRegistry._active_backend

    with Attention(backend="sdpa_math").place(tiny.transformer(), tiny.PLACEMENT):
        assert attention_dispatch._AttentionBackendRegistry._active_backend is before


def test_a_model_is_told_back_after_an_error_too() -> None:
    model = tiny.transformer()

    with pytest.raises(ZeroDivisionError), Attention().place(model, tiny.PLACEMENT):
        raise ZeroDivisionError

    assert {processor._attention_backend for processor in _processors(model)} == {None}


@pytest.mark.parametrize("backend", ["sdpa", "sdpa_math", "sdpa_flash"])
def test_torch_s_kernels_agree_in_training(backend: str) -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)

    with trained.attached(model):
        expected = tiny.step(model, trained)
        with Attention(backend=backend).place(model, tiny.PLACEMENT):
            found = tiny.step(model, trained)

    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_chosen_kernel_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Tensor] = []

    def registered(**given: Any) -> Tensor:
        calls.append(given["query"])
        return plain(given["query"], given["key"], given["value"], given["attn_mask"])

    registry = attention_dispatch._AttentionBackendRegistry
    monkeypatch.setitem(registry._backends, AttentionBackendName("_native_math"), registered)
    model = tiny.transformer()
    expected = tiny.generation(model)

    with Attention(backend="sdpa_math").place(model, tiny.PLACEMENT):
        found = tiny.generation(model)

    assert len(calls) == 2 * tiny.LAYERS
    assert torch.equal(found, expected)


def test_sage_is_refused_in_training_with_the_way_out() -> None:
    training = FitContext(title="a toy", layout=tiny.LAYOUT)

    with pytest.raises(ConfigError, match=r"memory\[0\]\.backend: sage has no backward.*train with sdpa, flash"):
        arrange([Attention(backend="sage")], training)

    assert arrange([Attention(backend="sage")], attrs.evolve(training, training=False))


@each_package
def test_what_is_not_installed_is_refused(backend: str) -> None:
    with pytest.raises(ConfigError, match=rf"memory\[0\]\.backend: .*not usable.*{PACKAGES[backend]}.*or take sdpa"):
        check_machine([Attention(backend=backend)], tiny.PLACEMENT)


def test_a_plan_needs_nothing_installed() -> None:
    policy = Attention(backend="flash")

    policy.prepare(tiny.transformer(), tiny.KEYS, tiny.LAYOUT)

    assert weight_hook([policy], keys=tiny.KEYS, layout=tiny.LAYOUT) is None


@pytest.mark.parametrize("backend", ["sdpa_cudnn", "sdpa_efficient"])
def test_kernels_for_cuda_are_refused_elsewhere(backend: str) -> None:
    with pytest.raises(ConfigError, match=f"{backend} needs a CUDA device, and a toy is on cpu"):
        Attention(backend=backend).place(tiny.transformer(), tiny.PLACEMENT)


def test_kernels_for_half_precision_are_refused_in_float32() -> None:
    with pytest.raises(ConfigError, match="sdpa_cudnn computes in bfloat16 and float16, and a toy in float32"):
        Attention(backend="sdpa_cudnn").place(tiny.transformer(), tiny.PLACEMENT)


def test_a_model_with_attention_of_its_own_is_left_alone_or_refused() -> None:
    own = nn.MultiheadAttention(8, 2)

    with Attention().place(own, tiny.PLACEMENT):
        pass

    with (
        pytest.raises(ConfigError, match="cannot be computed by sdpa_math"),
        Attention(backend="sdpa_math").place(own, tiny.PLACEMENT),
    ):
        pass


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_policy_survives_toml(backend: str) -> None:
    policy = Attention(backend=backend)

    assert Attention.from_toml(policy.to_toml()) == policy
