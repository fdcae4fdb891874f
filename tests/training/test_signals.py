from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from musubi.core.control import CancelToken
from musubi.training.signals import finishing_on_signals

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send these signals to a process")


@pytest.fixture(autouse=True)
def _handlers() -> Generator[None]:
    """Give each test Python's own handlers, whatever runs the tests."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_for_a_clean_stop_and_says_so(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    cancel = CancelToken()

    with caplog.at_level(logging.WARNING), finishing_on_signals(cancel):
        signal.raise_signal(number)

    assert cancel.cancelled
    assert f"{number.name}: finishing this step and saving" in caplog.text


def test_a_second_ctrl_c_stops_at_once() -> None:
    with finishing_on_signals(CancelToken()):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_first_ctrl_c_after_another_reason_to_stop_does_not_stop_at_once() -> None:
    cancel = CancelToken()
    cancel.cancel()

    with finishing_on_signals(cancel):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)

    assert cancel.cancelled


def test_a_ctrl_c_that_a_launcher_passes_on_is_not_a_second_one() -> None:
    with finishing_on_signals(CancelToken(), echo_s=0.05):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.06)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_handlers_are_the_callers_again_even_after_an_error() -> None:
    def own(number: int, frame: object) -> None: ...

    signal.signal(signal.SIGTERM, own)

    with pytest.raises(ZeroDivisionError), finishing_on_signals(CancelToken()):
        raise ZeroDivisionError

    assert signal.getsignal(signal.SIGTERM) is own
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_the_process_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cancel = CancelToken()

    with finishing_on_signals(cancel):
        signal.raise_signal(signal.SIGINT)

    assert not cancel.cancelled


def test_in_another_thread_nothing_changes() -> None:
    seen: list[object] = []

    def work() -> None:
        with finishing_on_signals(CancelToken()):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == [signal.default_int_handler]


_LONG = """
import sys, time
from pathlib import Path
from musubi.core.control import CancelToken
from musubi.training.signals import finishing_on_signals

cancel = CancelToken()
with finishing_on_signals(cancel):
    print("ready", flush=True)
    while not cancel.cancelled:
        time.sleep(0.01)
    print("saving", flush=True)
    time.sleep(float(sys.argv[1]))
    Path(sys.argv[2]).write_text("whole", encoding="utf-8")
"""


def started(saving_s: float, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _LONG, str(saving_s), str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@needs_posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_asked_to_end_saves_first_and_exits_well(number: signal.Signals, tmp_path: Path) -> None:
    process = started(0.0, tmp_path / "state")

    process.send_signal(number)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 0
    assert (tmp_path / "state").read_text(encoding="utf-8") == "whole"
    assert f"{number.name}: finishing this step" in errors


@needs_posix
def test_a_process_that_is_interrupted_twice_ends_in_the_middle_of_saving(tmp_path: Path) -> None:
    process = started(60.0, tmp_path / "state")
    assert process.stdout is not None

    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "saving\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert not (tmp_path / "state").exists()
