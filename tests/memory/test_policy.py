from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from musubi import BlockSwap, FP8Scaled, GradientCheckpointing, Wan
from musubi.architecture import Layout, WeightHook
from musubi.core.errors import ConfigError
from musubi.core.spec import Spec
from musubi.keymap import KeyMap
from musubi.memory.policy import (
    FitContext,
    MemoryPolicy,
    Phase,
    Placement,
    arrange,
    blocks_of,
    placed,
    preparation,
    weight_hook,
)
from tests.memory import tiny

CONTEXT = FitContext(title="a toy", layout=tiny.LAYOUT, blocks=6)

policies = st.one_of(
    st.builds(FP8Scaled, mode=st.sampled_from(["block", "channel", "tensor"])),
    st.builds(BlockSwap, blocks=st.integers(1, 60)),
    st.builds(GradientCheckpointing, every=st.integers(1, 9)),
)


@attrs.frozen(kw_only=True)
class Several(Spec):
    memory: tuple[MemoryPolicy, ...] = ()


@attrs.frozen(kw_only=True)
class Noting(MemoryPolicy):
    """A third party's policy that writes down what happens."""

    kind: ClassVar[str] = "noting"
    phase: ClassVar[Phase] = Phase.COMPILE
    notes: list[str] = attrs.field(factory=list)
    fails: bool = False

    def prepare(self, model: nn.Module, keys: KeyMap, layout: Layout) -> None:
        self.notes.append("prepared")

    def weight_hook(self, keys: KeyMap, layout: Layout) -> WeightHook:
        return lambda _, tensor: tensor + 1

    def place(self, model: nn.Module, placement: Placement) -> AbstractContextManager[None]:
        return self._noted()

    @contextmanager
    def _noted(self) -> Generator[None]:
        if self.fails:
            raise RuntimeError("on purpose")
        self.notes.append("placed")
        try:
            yield
        finally:
            self.notes.append("undone")


@given(memory=st.lists(policies, max_size=4).map(tuple))
def test_policies_survive_toml_and_json(memory: tuple[MemoryPolicy, ...]) -> None:
    spec = Several(memory=memory)

    assert Several.from_toml(spec.to_toml()) == spec
    assert Several.from_json(spec.to_json()) == spec


def test_a_misspelt_option_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"memory\[0\]\.block: unknown key; did you mean 'blocks'\?"):
        Several.from_toml('[[memory]]\nkind = "block_swap"\nblock = 3\n')


def test_policies_apply_in_one_order_however_they_are_written() -> None:
    written = [BlockSwap(blocks=2), GradientCheckpointing(), FP8Scaled()]

    assert arrange(written, CONTEXT) == (FP8Scaled(), GradientCheckpointing(), BlockSwap(blocks=2))


def test_all_problems_are_listed_at_once_under_the_place_where_they_were_written() -> None:
    with pytest.raises(ConfigError) as caught:
        arrange([BlockSwap(blocks=6), FP8Scaled(), GradientCheckpointing(every=7), FP8Scaled()], CONTEXT)

    assert [issue.path for issue in caught.value.issues] == ["memory[0].blocks", "memory[2].every", "memory[3]"]
    assert "a FP8Scaled is there already as memory[1]" in str(caught.value)


def test_a_policy_sees_the_others() -> None:
    seen: list[int] = []

    @attrs.frozen(kw_only=True)
    class Looking(MemoryPolicy):
        kind: ClassVar[str] = "looking"
        phase: ClassVar[Phase] = Phase.SWAP

        def check(self, context: FitContext) -> tuple[()]:
            seen.append(len(context.policies))
            return ()

    arrange([FP8Scaled(), Looking()], CONTEXT)

    assert seen == [2]


def test_a_policy_of_ones_own_takes_part_in_everything() -> None:
    own = Noting()
    ordered = arrange([BlockSwap(blocks=1), own, FP8Scaled()], CONTEXT)
    model = tiny.transformer()

    preparation([own], keys=tiny.KEYS, layout=tiny.LAYOUT)(model)
    with placed(model, [policy for policy in ordered if policy is own], tiny.PLACEMENT):
        pass

    assert ordered[1] is own
    assert own.notes == ["prepared", "placed", "undone"]


def test_what_was_placed_is_undone_when_a_later_policy_fails() -> None:
    first = Noting()

    with (
        pytest.raises(RuntimeError, match="on purpose"),
        placed(nn.Module(), [first, Noting(fails=True)], tiny.PLACEMENT),
    ):
        pass

    assert first.notes == ["placed", "undone"]


def test_a_tensor_passes_all_hooks_until_one_splits_it() -> None:
    def merge(name: str, tensor: Tensor) -> Tensor:
        return tensor * 2

    def split(name: str, tensor: Tensor) -> Mapping[str, Tensor]:
        return {"weight": tensor, "scale": tensor}

    hook = weight_hook([Noting()], keys=tiny.KEYS, layout=tiny.LAYOUT, before=[merge])
    halted = weight_hook([Noting()], keys=tiny.KEYS, layout=tiny.LAYOUT, before=[split])

    assert hook is not None
    assert halted is not None
    assert hook("blocks.0.ffn.0.weight", torch.tensor(3.0)) == torch.tensor(7.0)
    assert halted("blocks.0.ffn.0.weight", torch.tensor(3.0)) == {
        "weight": torch.tensor(3.0),
        "scale": torch.tensor(3.0),
    }
    assert weight_hook([], keys=tiny.KEYS, layout=tiny.LAYOUT) is None


def test_blocks_come_in_the_order_of_their_lists() -> None:
    model = nn.Module()
    model.wide, model.narrow = nn.ModuleList([nn.Identity(), nn.Identity()]), nn.ModuleList([nn.Linear(1, 1)])

    blocks = blocks_of(model, Layout(blocks=("wide", "narrow"), adapters=()))

    assert [type(block) for block in blocks] == [nn.Identity, nn.Identity, nn.Linear]


def test_policies_learn_how_many_blocks_a_published_model_has() -> None:
    context = FitContext.of(Wan.t2v_14b(), training=False)

    assert (context.title, context.blocks, context.training) == ("Wan 2.1 T2V 14B", 40, False)
