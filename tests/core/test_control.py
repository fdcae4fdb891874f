from __future__ import annotations

import threading

from musubi.core.control import CancelToken


def test_a_token_starts_uncancelled_and_stays_cancelled() -> None:
    token = CancelToken()
    assert not token.cancelled

    token.cancel()
    token.cancel()

    assert token.cancelled


def test_any_thread_may_cancel() -> None:
    token = CancelToken()

    thread = threading.Thread(target=token.cancel)
    thread.start()
    thread.join()

    assert token.cancelled


def test_tokens_are_independent() -> None:
    first, second = CancelToken(), CancelToken()

    first.cancel()

    assert not second.cancelled
