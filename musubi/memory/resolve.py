"""Deciding what memory policies leave open, by what a forecast says and a budget allows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.memory.budget import budget_bytes, size
from musubi.memory.policy import FitContext, MemoryPolicy, arrange

logger = logging.getLogger(__name__)

Peak = Callable[[Sequence[MemoryPolicy]], int]
"""Tells the bytes of device memory that a model needs with decided policies; raises ``ConfigError`` if they clash."""

_HINT = 'give one: Memory.fit("16GiB"), or BlockSwap(blocks="auto", budget="16GiB")'


def is_open(policy: MemoryPolicy, context: FitContext) -> bool:
    """Tell whether a policy leaves something open that only sizes decide."""
    return next(iter(policy.choices(context)), (policy,)) != (policy,)


def resolved(
    policies: Sequence[MemoryPolicy],
    context: FitContext,
    peak: Peak,
    *,
    memory: int | None = None,
    allowed: Callable[[Sequence[MemoryPolicy]], bool] = lambda _: True,
) -> tuple[MemoryPolicy, ...]:
    """Return the policies with what they leave open decided; as they are if nothing is open.

    Args:
        policies: As the user wrote them.
        context: What is known of the model; with the number of its blocks.
        peak: What the model needs with decided policies.
        memory: Bytes that may be used where a policy has no budget of its own: what is free on the device.
        allowed: Which decided policies come into question: those with which a resumed run has the same weights.

    Raises:
        ConfigError: There is no budget, or nothing that comes into question fits it.
    """
    context = attrs.evolve(context, policies=tuple(policies))
    undecided = [index for index, policy in enumerate(policies) if is_open(policy, context)]
    if not undecided:
        return tuple(policies)
    limit = _limit(policies, undecided, memory)
    least: tuple[int, tuple[MemoryPolicy, ...]] | None = None
    unlike = False
    for chosen in _combinations(policies, context):
        try:
            arrange(chosen, context)
        except ConfigError:  # does not go together with what else is named
            continue
        if not allowed(chosen):
            unlike = True
            continue
        need = peak(chosen)
        if need <= limit:
            logger.info("memory policies for %s: %s", size(limit), written(chosen))
            return chosen
        if least is None or need < least[0]:
            least = (need, chosen)
    if least is None and unlike:
        raise _other_weights(undecided[0])
    raise _too_small(undecided[0], limit, least)


def budget_of(policies: Sequence[MemoryPolicy], context: FitContext) -> int | None:
    """Return the smallest budget of the policies that leave something open; None if none has one."""
    found = [_budget(policy, None) for policy in policies if is_open(policy, context)]
    return min((budget for budget in found if budget is not None), default=None)


def written(policies: Sequence[MemoryPolicy]) -> str:
    """Return policies as a line to paste: ``.with_memory(Int8Scaled(), BlockSwap(blocks=20))``."""
    return f".with_memory({', '.join(map(call, policies))})"


def call(policy: MemoryPolicy) -> str:
    """Return a policy as one would write it."""
    fields = [field for field in attrs.fields(type(policy)) if getattr(policy, field.name) != field.default]
    return f"{type(policy).__name__}({', '.join(f'{f.name}={getattr(policy, f.name)!r}' for f in fields)})"


def _combinations(policies: Sequence[MemoryPolicy], context: FitContext) -> Iterator[tuple[MemoryPolicy, ...]]:
    open_ones = [tuple(policy.choices(context)) for policy in policies]
    for picked in product(*open_ones):
        yield tuple(policy for group in picked for policy in group)


def _limit(policies: Sequence[MemoryPolicy], undecided: Sequence[int], memory: int | None) -> int:
    """Return the smallest of the budgets, the device's memory standing for one that is not given."""
    found = {index: _budget(policies[index], memory) for index in undecided}
    missing = [index for index, limit in found.items() if limit is None]
    if missing:
        message = "is not given, and there is no accelerator here whose free memory could be taken"
        raise ConfigError("no budget", [Issue(f"memory[{index}].budget", message, _HINT) for index in missing])
    return min(limit for limit in found.values() if limit is not None)


def _budget(policy: MemoryPolicy, memory: int | None) -> int | None:
    given: object = getattr(policy, "budget", None)
    return budget_bytes(given) if isinstance(given, str) else memory


def _other_weights(index: int) -> ConfigError:
    message = "no choice leaves the base weights as they were in the run that is resumed"
    hint = "name the policies that change weights as that run did: none, Int8Scaled(), ..., or begin anew"
    return ConfigError("memory policies do not fit the state", [Issue(f"memory[{index}]", message, hint)])


def _too_small(index: int, limit: int, least: tuple[int, tuple[MemoryPolicy, ...]] | None) -> ConfigError:
    path = f"memory[{index}].budget"
    if least is None:
        return ConfigError("nothing fits", [Issue(path, "no choice goes together with the other policies")])
    need, chosen = least
    message = f"is {size(limit)}, but the least that this needs is {size(need)}, with {written(chosen)}"
    hint = "a smaller resolution, fewer frames or a smaller batch; or a larger budget"
    return ConfigError("nothing fits", [Issue(path, message, hint)])
