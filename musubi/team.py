"""The processes that share a build or a run: one, unless ``accelerate launch`` or ``torchrun`` started several.

Only accelerate's process state is used. Its ``Accelerator`` keeps precision and accumulation once for the whole
interpreter, where the environment or another run in it would change this run's numbers.
"""

from __future__ import annotations

import atexit
import pickle
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import attrs

from musubi.core.errors import MusubiError

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")
_PATIENCE = timedelta(days=1)
"""How long processes wait for each other: one may encode for hours while others have nothing to do."""
_LAST_WORDS = 0.5
"""Seconds that the group's threads have to let go of the tensors of their last reduction."""


@attrs.frozen
class _Outcome(Generic[T]):
    """What a process made, or the error that kept it from that."""

    value: T | None = None
    error: Exception | None = None


class Team:
    """This process and the others: each step is done by the first of them, or by all, and fails for all if for one."""

    def __init__(self) -> None:
        from accelerate import PartialState

        connected = _is_connected()
        # Unless told, accelerate does not look for other processes where there is no accelerator.
        self._state = PartialState(cpu=not _has_accelerator(), timeout=_PATIENCE)
        if _is_connected() and not connected:
            atexit.register(_leave, self._state)
        self.rank: int = self._state.process_index
        self.count: int = self._state.num_processes

    @property
    def leads(self) -> bool:
        """Whether this process does what only one must do."""
        return self.rank == 0

    @property
    def leads_machine(self) -> bool:
        """Whether this process does what only one of each machine must do."""
        return bool(self._state.is_local_main_process)

    @property
    def device(self) -> str:
        """The device that the launcher has given to this process."""
        return str(self._state.device)

    def wait(self) -> None:
        """Go on when all processes have come here."""
        with reaching_others():
            self._state.wait_for_everyone()

    def lead(self, work: Callable[[], T]) -> T:
        """Let the first process do something, and return on all what it returned, or raise what it raised."""
        if self.count == 1:
            return work()
        outcome = _attempt(work) if self.leads else _Outcome[T]()
        return _result(outcome, self._from_first(outcome))

    def share(self, work: Callable[[], T]) -> list[T]:
        """Do something on every process, and return on all what each returned, or raise the first error of any."""
        if self.count == 1:
            return [work()]
        own = _attempt(work)
        everyone = self._from_all(own)
        failed = next((outcome for outcome in everyone if outcome.error is not None), None)
        if failed is not None:
            return [_result(own if own.error is not None else failed, failed)]
        return [cast(T, outcome.value) for outcome in everyone]

    def every(self, work: Callable[[], T]) -> T:
        """Do something on every process and return what this one made, or raise the first error of any."""
        made: list[T] = []
        self.share(lambda: made.append(work()))  # what was made need not travel
        return made[0]

    def _from_first(self, outcome: _Outcome[T]) -> _Outcome[T]:
        from accelerate.utils import broadcast_object_list

        shared = [_portable(outcome)]
        with reaching_others():
            broadcast_object_list(shared, from_process=0)
        return shared[0]

    def _from_all(self, outcome: _Outcome[T]) -> list[_Outcome[T]]:
        from accelerate.utils import gather_object

        with reaching_others():
            return cast(list[_Outcome[T]], gather_object([_portable(outcome)]))


@contextmanager
def reaching_others() -> Generator[None]:
    """Say in words what it means when something that all processes do together breaks off.

    Raises:
        MusubiError: Another process has ended, or cannot be reached.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # torch has a kind of its own for some of its backends only
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MusubiError(
            f"another process has ended or cannot be reached ({reason}); its own output says why"
        ) from error


def _is_connected() -> bool:
    import torch.distributed as processes

    return processes.is_available() and processes.is_initialized()


def _has_accelerator() -> bool:
    """Return whether there is one that several processes can share work on."""
    import torch

    return torch.accelerator.is_available() and not torch.backends.mps.is_available()


def _attempt(work: Callable[[], T]) -> _Outcome[T]:
    """Do something, keeping an error for the others to hear of first."""
    try:
        return _Outcome(value=work())
    except Exception as error:  # noqa: BLE001  # raised again, in every process
        return _Outcome(error=error)


def _result(own: _Outcome[T], shared: _Outcome[T]) -> T:
    """Return the shared value, or raise the error: this process's own as it is, with its traceback."""
    error = own.error or shared.error
    if error is not None:
        raise error
    return cast(T, shared.value)


def _portable(outcome: _Outcome[T]) -> _Outcome[T]:
    """Return an outcome that can travel: of an error that cannot, its words."""
    if outcome.error is None:
        return outcome
    try:
        pickle.loads(pickle.dumps(outcome.error))  # what travels is read there
    except Exception:  # noqa: BLE001  # whatever a foreign error's own pickling raises
        return _Outcome(error=MusubiError(f"{type(outcome.error).__name__}: {outcome.error}"))
    return outcome


def _leave(state: PartialState) -> None:
    """Leave the group, after which the interpreter can end.

    A thread of the group that asks for the interpreter's lock too late, to drop a tensor, would abort the process; and
    the group may outlive its destruction, since torch keeps it in caches of divided tensors.
    """
    time.sleep(_LAST_WORDS)
    state.destroy_process_group()
