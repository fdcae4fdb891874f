"""What cannot go together is refused when a trainer or a pipeline is made, with the place and the way out.

What only the checkpoint tells is refused in the first lines of ``plan()`` and ``run()``, before any weight is loaded.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from musubi import (
    NF4,
    ActivationOffload,
    AdamW,
    Attention,
    BlockSwap,
    Cache,
    Compile,
    ConfigError,
    Dataset,
    FP8Cast,
    FP8Scaled,
    FullFineTune,
    GradientCheckpointing,
    Int8Scaled,
    Memory,
    Pipeline,
    TextEncoderMemory,
    Trainer,
    VAETiling,
    WanCache,
    WanPipeline,
    WanTrainer,
)
from musubi.memory.policy import MemoryPolicy
from musubi.testing.checkpoints import tiny_wan
from musubi.testing.toy import Toy

TOY = Toy(depth=4)
FULL = {"network": FullFineTune()}
FUSED = AdamW(fused_backward=True)
QUANTISING: tuple[MemoryPolicy, ...] = (FP8Scaled(), Int8Scaled(), FP8Cast(), NF4())
WEIGHTS: tuple[MemoryPolicy, ...] = (*QUANTISING, BlockSwap(blocks=1))


@attrs.frozen
class Refused:
    """Policies, what else the trainer has, where the problem is, and words of the message and of the way out."""

    memory: tuple[MemoryPolicy, ...]
    path: str
    words: str
    way_out: str
    trainer: Mapping[str, Any] = attrs.field(factory=dict)

    def __str__(self) -> str:
        return f"{'+'.join(policy.kind for policy in self.memory)}: {self.words}"


IN_TRAINING = (
    *(Refused((policy,), "memory[0]", "quantises the weights", "LoRA", FULL) for policy in QUANTISING),
    Refused((BlockSwap(blocks=1),), "memory[0]", "train", "write_back=True", FULL),
    Refused((BlockSwap(blocks=1, write_back=True),), "memory[0].write_back", "during backward", "fused_backward", FULL),
    Refused((BlockSwap(blocks=1, write_back=True),), "memory[0].write_back", "frozen", "leave"),
    Refused((BlockSwap(blocks=4),), "memory[0].blocks", "between 1 and 3", "one must stay"),
    Refused((FP8Scaled(), BlockSwap(blocks=9)), "memory[1].blocks", "between 1 and 3", "one must stay"),
    Refused((GradientCheckpointing(every=5),), "memory[0].every", "between 1 and 4", "no block"),
    Refused((GradientCheckpointing(), GradientCheckpointing()), "memory[1]", "there already as memory[0]", "keep one"),
    *(Refused((policy, policy), "memory[1]", "there already as memory[0]", "keep one") for policy in WEIGHTS),
    *(
        Refused((FP8Scaled(), policy), "memory[1]", "FP8Scaled quantises the same", "keep one")
        for policy in QUANTISING[1:]
    ),
    Refused((Attention(backend="sage"),), "memory[0].backend", "no backward", "sdpa"),
    Refused((ActivationOffload(keep_last=4),), "memory[0].keep_last", "between 0 and 3", "4 blocks exist"),
    Refused((TextEncoderMemory(on_cpu=True),), "memory[0]", "no text encoder", "leave TextEncoderMemory out"),
    Refused((VAETiling(),), "memory[0]", "cannot work in tiles", "leave VAETiling out"),
)
"""What a trainer of four blocks refuses."""

DIVIDED = tuple(Refused((policy,), "memory[0]", "FSDP", "leave it out") for policy in WEIGHTS)
"""What it refuses under ``accelerate launch --use_fsdp``."""

IN_GENERATING = (
    Refused((ActivationOffload(),), "memory[0]", "training", "leave"),
    Refused((BlockSwap(blocks=1, write_back=True),), "memory[0].write_back", "frozen", "leave"),
    Refused((BlockSwap(blocks=4),), "memory[0].blocks", "between 1 and 3", "one must stay"),
    Refused((FP8Scaled(), FP8Scaled()), "memory[1]", "there already", "keep one"),
    Refused((FP8Scaled(), Int8Scaled()), "memory[1]", "FP8Scaled quantises the same", "keep one"),
)
"""What a pipeline refuses."""

FINE: tuple[tuple[tuple[MemoryPolicy, ...], Mapping[str, Any]], ...] = (
    ((Int8Scaled(), GradientCheckpointing(), ActivationOffload(), Compile(), BlockSwap(blocks=3)), {}),
    ((BlockSwap(blocks=1), FP8Cast(), Attention(backend="sdpa")), {}),
    ((GradientCheckpointing(every=4), NF4()), {}),
    ((BlockSwap(blocks=2, write_back=True),), {**FULL, "optimizer": FUSED}),
    ((GradientCheckpointing(), ActivationOffload(), Compile()), FULL),
)


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer[Toy]:
    return Trainer(model=TOY, cache=Cache(tmp_path / "cache", model=TOY), output=tmp_path / "out", device="cpu")


def refusal(make: Callable[[], object]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        make()
    return caught.value


def matches(error: ConfigError, case: Refused) -> bool:
    """Tell whether an error has exactly one issue at the place, with these words and this way out."""
    found = [issue for issue in error.issues if issue.path == case.path]
    return len(found) == 1 and case.words in found[0].message and case.way_out in found[0].hint


@pytest.mark.parametrize("case", IN_TRAINING, ids=str)
def test_a_trainer_refuses_at_once(case: Refused, trainer: Trainer[Toy]) -> None:
    error = refusal(lambda: trainer.replace(memory=case.memory, **case.trainer))

    assert matches(error, case), str(error)
    assert len(error.issues) == 1


@pytest.mark.parametrize("case", IN_GENERATING, ids=str)
def test_a_pipeline_refuses_at_once(case: Refused) -> None:
    error = refusal(lambda: Pipeline(model=TOY, memory=case.memory))

    assert matches(error, case), str(error)
    assert len(error.issues) == 1


@pytest.mark.parametrize("case", DIVIDED, ids=str)
def test_a_trainer_under_fsdp_refuses_at_once(
    case: Refused, trainer: Trainer[Toy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("WORLD_SIZE", "2")

    error = refusal(lambda: trainer.replace(memory=case.memory, **case.trainer))

    assert matches(error, case), str(error)
    assert len(error.issues) == 1


@pytest.mark.parametrize("world", [None, "1"])
def test_one_process_is_not_divided(world: str | None, trainer: Trainer[Toy], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    if world is not None:
        monkeypatch.setenv("WORLD_SIZE", world)

    assert trainer.with_memory(BlockSwap(blocks=1)).memory == (BlockSwap(blocks=1),)


@pytest.mark.parametrize(("memory", "others"), FINE)
def test_what_goes_together_is_taken(
    memory: tuple[MemoryPolicy, ...], others: Mapping[str, Any], trainer: Trainer[Toy]
) -> None:
    assert trainer.replace(memory=memory, **others).memory == memory


def test_all_that_is_wrong_is_said_at_once(trainer: Trainer[Toy]) -> None:
    error = refusal(lambda: trainer.with_memory(BlockSwap(blocks=4), FP8Scaled(), Int8Scaled(), FP8Scaled()))

    assert [issue.path for issue in error.issues] == ["memory[0].blocks", "memory[2]", "memory[3]"]


@attrs.frozen(eq=False)
class Tiny:
    """A cache of two pictures for a tiny real model, and the folder of its files."""

    cache: WanCache
    folder: Path

    @property
    def eight_bit(self) -> Path:
        """Where a copy of the transformer lies whose matrices are float8."""
        return self.folder / "eight_bit.safetensors"

    def trainer(self, *memory: MemoryPolicy, dit: Path | None = None, **others: Any) -> WanTrainer:
        model = self.cache.model if dit is None else self.cache.model.with_weights(dit=dit)
        output = self.folder / "out"
        return WanTrainer(model=model, cache=self.cache, steps=1, memory=memory, output=output, device="cpu", **others)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    wan = tiny_wan(folder / "wan")
    (folder / "pictures").mkdir()
    for index in range(2):
        pixels = np.full((32, 32, 3), 90 * index, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{index}.png")
        (folder / "pictures" / f"{index}.txt").write_text("a picture", encoding="utf-8")
    data = Dataset.from_folder(folder / "pictures", resolution=32).with_geometry(wan.geometry)
    found = Tiny(WanCache(folder / "cache", model=wan).build(data, progress=False), folder)
    tensors = load_file(folder / "wan" / "dit.safetensors")
    header = {"wan.num_heads": "2"}
    save_file({n: _eight_bit(n, tensor) for n, tensor in tensors.items()}, found.eight_bit, header)
    return found


def _eight_bit(name: str, tensor: torch.Tensor) -> torch.Tensor:
    inside = name.startswith("blocks.") and name.endswith(".weight") and tensor.ndim == 2
    return tensor.to(torch.float8_e4m3fn) if inside else tensor


@pytest.fixture
def unloadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any attempt to load a model fail."""
    from musubi.architectures.wan.codec import WanCodec
    from musubi.architectures.wan.denoiser import WanDenoiser

    def load(*_: object, **__: object) -> None:
        raise AssertionError("weights are loaded")

    for kind in (WanCodec, WanDenoiser):
        monkeypatch.setattr(kind, "load", load)


@pytest.mark.parametrize("policy", QUANTISING, ids=lambda policy: policy.kind)
def test_a_local_file_that_is_quantised_is_known_at_once(policy: MemoryPolicy, tiny: Tiny) -> None:
    error = refusal(lambda: tiny.trainer(policy, dit=tiny.eight_bit))
    other = refusal(lambda: WanPipeline(model=tiny.cache.model.with_weights(dit=tiny.eight_bit), memory=(policy,)))

    for issues in (error.issues, other.issues):
        assert [issue.path for issue in issues] == ["memory[0]"]
        assert "quantised already (float8_e4m3fn)" in issues[0].message
        assert "leave this policy out" in issues[0].hint


def test_what_a_file_keeps_in_8_bits_cannot_be_trained_itself(tiny: Tiny) -> None:
    error = refusal(lambda: tiny.trainer(dit=tiny.eight_bit, network=FullFineTune()))

    assert [issue.path for issue in error.issues] == ["model.weights.dit"]
    assert "bfloat16" in error.issues[0].hint


def test_without_a_policy_that_quantises_such_a_file_is_welcome(tiny: Tiny) -> None:
    trainer = tiny.trainer(GradientCheckpointing(), BlockSwap(blocks=1), dit=tiny.eight_bit)

    assert trainer.run(progress=False).steps == 1


@pytest.mark.usefixtures("unloadable")
def test_a_file_that_comes_later_is_looked_into_before_its_weights_are_loaded(tiny: Tiny, tmp_path: Path) -> None:
    later = tmp_path / "later.safetensors"
    trainer = tiny.trainer(FP8Scaled(), dit=later)
    full = tiny.trainer(dit=later, network=FullFineTune())
    later.write_bytes(tiny.eight_bit.read_bytes())

    for verb in (trainer.plan, lambda: trainer.run(progress=False)):
        error = refusal(verb)
        assert [issue.path for issue in error.issues] == ["memory[0]"]
        assert "quantised already (float8_e4m3fn)" in error.issues[0].message
    assert [issue.path for issue in refusal(lambda: full.run(progress=False)).issues] == ["model.weights.dit"]


@pytest.mark.usefixtures("unloadable")
def test_how_many_blocks_a_file_has_is_known_before_its_weights_are_loaded(tiny: Tiny) -> None:
    trainer = tiny.trainer(GradientCheckpointing(), BlockSwap(blocks=2))
    pipeline = WanPipeline(model=tiny.cache.model, memory=(BlockSwap(blocks=2),), device="cpu")

    for verb in (trainer.plan, lambda: trainer.run(progress=False)):
        error = refusal(verb)
        assert [issue.path for issue in error.issues] == ["memory[1].blocks"]
        assert "must be between 1 and 1" in error.issues[0].message
    for generate in (pipeline.plan, lambda: pipeline.generate("a fox", size=(32, 32), frames=1, steps=1)):
        assert [issue.path for issue in refusal(generate).issues] == ["memory[0].blocks"]


@pytest.mark.usefixtures("unloadable")
@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Compile(backend="inductr"), "torch has none called 'inductr'"),
        (NF4(), "bitsandbytes, which is not installed"),
        (TextEncoderMemory(policies=(NF4(),)), "bitsandbytes, which is not installed"),
        (Attention(backend="sdpa_cudnn"), "needs a CUDA device"),
    ],
    ids=["compile", "nf4", "encoder", "device"],
)
def test_what_is_missing_here_is_told_before_anything_is_loaded_but_may_be_planned(
    policy: MemoryPolicy, words: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    trainer = tiny.trainer(policy).with_samples("a fox")
    pipeline = WanPipeline(model=tiny.cache.model, memory=(policy,), device="cpu")

    for verb in (
        lambda: trainer.run(progress=False),
        lambda: pipeline.generate("a fox", size=(32, 32), frames=1, steps=1),
    ):
        issues = refusal(verb).issues
        assert all(issue.path.startswith("memory[0]") for issue in issues)
        assert any(words in issue.message for issue in issues)
    assert trainer.plan().rows
    assert pipeline.plan(size=(32, 32), frames=1).rows


@pytest.mark.usefixtures("unloadable")
def test_a_build_is_told_what_is_missing_before_anything_is_encoded(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    data = Dataset.from_folder(tiny.folder / "pictures", resolution=32)
    memory = (TextEncoderMemory(policies=(NF4(),)),)

    error = refusal(lambda: WanCache(tmp_path, model=tiny.cache.model).build(data, memory=memory, progress=False))

    assert [issue.path for issue in error.issues] == ["memory[0].policies[0]"]


@pytest.mark.usefixtures("unloadable")
def test_a_pipelines_budget_is_looked_at_before_anything_is_loaded(tiny: Tiny) -> None:
    pipeline = WanPipeline(model=tiny.cache.model, memory=(Memory.fit("100KiB"),), device="cpu")

    (issue,) = refusal(lambda: pipeline.generate("a fox", size=(32, 32), frames=1, steps=1)).issues

    assert issue.path == "memory[0].budget"
    assert re.search(r"is 100 KiB, but the least that this needs is [\d.]+ MiB", issue.message)


def test_a_damaged_file_is_left_to_those_who_load_it(tiny: Tiny, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\xff" * 64)

    assert tiny.trainer(FP8Scaled(), dit=damaged).memory == (FP8Scaled(),)
