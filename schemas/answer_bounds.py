"""Bounds what a registry's answer may take in memory and time, and keeps its login from other hosts.

The client itself bounds each read of a socket, not an answer: one without end would fill the memory, and one that
sends a byte now and then would never be there.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

import httpx2

ANSWER_BYTES = 16 * 2**20  # a hundred thousand subjects with long names
ANSWER_SECONDS = 30.0
MOST_VERSIONS = 10_000  # of one subject; each is asked for by itself
PLAIN = "identity"

Answer = TypeVar("Answer")


class UnfitAnswerError(Exception):
    """An answer that no registry gives; in a few words, why."""


def bound(session: httpx2.Client) -> None:
    """Let `session` take no answer of more than ANSWER_BYTES, none that is compressed, and follow no redirect.

    What is refused raises UnfitAnswerError in the request.
    """
    session.follow_redirects = False
    session.event_hooks = {"request": [_ask_for_plain_text], "response": [_require_fit]}


def within_time(ask: Callable[[], Answer]) -> Answer:
    """Return what `ask` returns, or raise what it raises, within ANSWER_SECONDS; TimeoutError past them.

    It runs in a thread of its own, which is left to itself when the time is over.
    """
    answer: Future[Answer] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as exc:
            answer.set_exception(exc)

    Thread(target=run, name="registry", daemon=True).start()
    return answer.result(ANSWER_SECONDS)


def _ask_for_plain_text(request: httpx2.Request) -> None:
    request.headers["Accept-Encoding"] = PLAIN


def _require_fit(response: httpx2.Response) -> None:
    encoding = response.headers.get("Content-Encoding", PLAIN)
    if encoding != PLAIN:
        # Compressed, a few kilobytes may hold gigabytes.
        raise UnfitAnswerError(f"it is compressed ({encoding}), which was not asked for")
    if response.is_redirect:
        # The host there would get the login, or be taken for the registry.
        raise UnfitAnswerError(f"HTTP {response.status_code}, a redirect, which is not followed")
    if isinstance(response.stream, httpx2.SyncByteStream):
        response.stream = _BoundedStream(response.stream)


class _BoundedStream(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for part in self._stream:
            size += len(part)
            if size > ANSWER_BYTES:
                raise UnfitAnswerError(f"it is longer than {ANSWER_BYTES:,} bytes")
            yield part

    def close(self) -> None:
        """Give the connection up."""
        self._stream.close()
