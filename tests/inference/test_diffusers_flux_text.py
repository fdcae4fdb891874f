"""Our text stage gives what diffusers' own pipeline gives: the same tokens, the same states, the same vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

from musubi.architectures.flux_kontext.clip import ClipL
from musubi.architectures.flux_kontext.codec import FluxKontextCodec
from musubi.architectures.flux_kontext.t5 import T5
from musubi.batch import Sample
from musubi.testing.flux_kontext import tiny_flux_kontext
from tests.inference.flux_pipelines import pipeline_of
from tests.inference.twenty_prompts import PROMPTS

CPU = torch.device("cpu")


@attrs.frozen
class Ours:
    """A codec and its encoders, and what tokens these were given."""

    codec: FluxKontextCodec
    models: dict[str, nn.Module]
    seen: dict[str, Tensor] = attrs.field(factory=dict)

    def __call__(self, *prompts: str) -> list[dict[str, Tensor]]:
        stage = next(stage for stage in self.codec.spec.stages if stage.name == "text")
        made = self.codec.encode(stage, self.models, [Sample(name=str(n), caption=p) for n, p in enumerate(prompts)])
        return [dict(entry.tensors) for entry in made]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flux")


@pytest.fixture(scope="module")
def ours(folder: Path) -> Ours:
    codec = tiny_flux_kontext(folder, layout="diffusers").codec()
    made = Ours(codec, {name: codec.load(name, device=CPU, dtype=torch.float32) for name in ("t5", "clip_l")})
    t5, clip = made.models["t5"], made.models["clip_l"]
    assert isinstance(t5, T5)
    assert isinstance(clip, ClipL)
    _listen(t5.encoder, "t5", made.seen)
    _listen(clip.encoder, "clip_l", made.seen)
    return made


@pytest.fixture(scope="module")
def theirs(ours: Ours, folder: Path) -> Any:
    return pipeline_of(folder)


def _listen(encoder: nn.Module, name: str, seen: dict[str, Tensor]) -> None:
    encoder.register_forward_pre_hook(lambda _, __, given: seen.update({name: given["input_ids"]}), with_kwargs=True)


@pytest.mark.parametrize("number", range(len(PROMPTS)))
def test_tokens_and_states_are_those_of_diffusers(number: int, ours: Ours, theirs: Any) -> None:
    seen: dict[str, Tensor] = {}
    hooks = [
        encoder.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
        for name, encoder in (("t5", theirs.text_encoder_2), ("clip_l", theirs.text_encoder))
    ]

    states, pooled, _ = theirs.encode_prompt(PROMPTS[number], device=CPU)

    for hook in hooks:
        hook.remove()
    (made,) = ours(PROMPTS[number])
    assert torch.equal(ours.seen["t5"], seen["t5"])
    assert torch.equal(ours.seen["clip_l"], seen["clip_l"])
    assert made["t5_vec"].shape == states[0].shape == (512, 32)
    assert (made["t5_vec"] - states[0]).abs().max() <= 1e-5
    assert (made["clip_l_pooler"] - pooled[0]).abs().max() <= 1e-5


def test_prompts_together_give_what_each_gives(ours: Ours) -> None:
    together = ours(*PROMPTS)

    for made, prompt in zip(together, PROMPTS, strict=True):
        (alone,) = ours(prompt)
        for name, tensor in alone.items():
            assert (made[name] - tensor).abs().max() <= 1e-5, prompt


def test_different_prompts_are_told_apart_by_both_encoders(ours: Ours) -> None:
    blue, red = ours("a blue fox", "a red fox")

    for name in ("t5_vec", "clip_l_pooler"):
        assert (blue[name] - red[name]).abs().max() > 1e-3, name
