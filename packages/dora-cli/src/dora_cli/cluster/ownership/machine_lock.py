"""The lock of one machine: a program there holds it, and a thread here keeps it alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dora_cli.remote_program.protocol import decode_reply
from dora_cli.ssh import Connection, Finished
from dora_cli.ssh.remote_call import NO_PYTHON, program_input, too_old, words
from dora_config import DoraError

NAME = "dora-cluster-lock"
"""The same for all users of a machine."""
LEASE = 30.0
"""Seconds without a sign of life after which the machine frees the lock."""
SIGN_INTERVAL = 5.0
ANSWER_TIMEOUT = 60.0
FOREVER = 10 * 365 * 24 * 3600.0

Answer = Mapping[str, Any]


class LockFailed(DoraError):
    """The machine cannot be locked."""


class MachineLock:
    """The lock between ``acquire`` and ``release``; calls ``lost`` if the lock is lost."""

    def __init__(
        self,
        connection: Connection,
        info: Mapping[str, Any],
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        """``info``: shown to other commands; all locks of one command have the same ``key``."""
        self._connection = connection
        self._info = dict(info)
        self._lost = lost
        self._answers: list[Answer] = []
        self._failure: str | None = None
        """Set when the program has ended."""
        self._changed = threading.Condition()
        self._released = threading.Event()
        self._thread: threading.Thread | None = None
        self._rest = b""
        self._held = False

    def acquire(self, *, wait: bool, on_wait: Callable[[Answer | None], None]) -> Answer:
        """Return the answer with ``held``; ``on_wait`` gets each holder that is waited for.

        Raises LockFailed and the errors of the connection.
        """
        given = {"name": NAME, "info": self._info, "wait": wait, "lease": LEASE}
        self._thread = threading.Thread(target=self._run, args=(given,), daemon=True)
        self._thread.start()
        seen = 0
        deadline = time.monotonic() + ANSWER_TIMEOUT
        while True:
            answers, failure = self._next_answers(seen)
            seen += len(answers)
            for answer in answers:
                if "held" in answer:
                    if not answer["held"] or answer.get("shared"):
                        self.release()
                    return answer
                on_wait(answer["waiting"])
                deadline = float("inf")
            if not answers and failure is not None:
                raise LockFailed(failure)
            if time.monotonic() > deadline:
                self.release()
                raise LockFailed(
                    f"{self._connection.name}: no answer to the request for the machine's lock "
                    f"within {ANSWER_TIMEOUT:g} s; run this command again"
                )

    def _next_answers(self, seen: int) -> tuple[list[Answer], str | None]:
        """Return the answers after the first ``seen``, and why the program ended, if it has."""
        with self._changed:
            if len(self._answers) == seen and self._failure is None:
                self._changed.wait(0.5)
            return self._answers[seen:], self._failure

    def begin_release(self) -> None:
        """Let the program end, without waiting."""
        self._released.set()

    def release(self) -> None:
        """Free the lock and wait until the program has ended."""
        self._released.set()
        if self._thread is not None:
            self._thread.join(SIGN_INTERVAL)

    def _run(self, given: dict[str, Any]) -> None:
        try:
            done = self._connection.converse(
                words("lock.acquire"),
                self._input(given),
                timeout=FOREVER,
                on_output=self._take_output,
            )
            failure = self._failure_of(done)
        except (DoraError, OSError) as error:
            failure = str(error)
        with self._changed:
            self._failure = failure
            self._changed.notify_all()
        if self._held and not self._released.is_set():
            self._lost()

    def _failure_of(self, done: Finished) -> str:
        name = self._connection.name
        if done.code == NO_PYTHON:
            return f"{name}: {too_old(done)}"
        errors = done.stderr.strip().splitlines()
        if errors:
            return f"{name}: the machine cannot be locked: {errors[-1]}"
        return f"{name}: the machine's lock was lost; run this command again"

    def _input(self, given: dict[str, Any]) -> Iterator[bytes]:
        yield program_input("lock.acquire", given)
        while not self._released.wait(SIGN_INTERVAL):
            yield b"."

    def _take_output(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        with self._changed:
            for line in lines:
                try:
                    answer = decode_reply(line)
                except ValueError:
                    continue  # output of a login shell
                self._held |= bool(answer.get("held")) and not answer.get("shared")
                self._answers.append(answer)
            self._changed.notify_all()
