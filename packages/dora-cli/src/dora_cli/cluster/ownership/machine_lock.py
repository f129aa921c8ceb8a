"""The lock of one machine: a program there holds it, and a thread here keeps it alive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import Any

from dora_cli.remote_call import NO_PYTHON, command_words, program_input, too_old
from dora_cli.remote_program.protocol import Problem, decode_reply
from dora_cli.ssh import Connection, Finished
from dora_config.errors import DoraError

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
        self._answers: SimpleQueue[Answer | LockFailed] = SimpleQueue()
        """Answers of the program, and at its end why it ended."""
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
        timeout: float | None = ANSWER_TIMEOUT
        while True:
            try:
                answer = self._answers.get(timeout=timeout)
            except Empty:
                self.release()
                raise LockFailed(
                    f"{self._connection.name}: no answer to the request for the machine's lock "
                    f"within {ANSWER_TIMEOUT:g} s; run this command again"
                ) from None
            if isinstance(answer, LockFailed):
                raise answer
            if "held" in answer:
                if not answer["held"] or answer.get("shared"):
                    self.release()
                return answer
            on_wait(answer["waiting"])
            timeout = None

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
                command_words("lock.acquire"),
                self._input(given),
                timeout=FOREVER,
                on_output=self._take_output,
            )
            failure = self._failure_of(done)
        except (DoraError, OSError) as error:
            failure = str(error)
        self._answers.put(LockFailed(failure))
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
        for line in lines:
            try:
                answer = decode_reply(line)
            except Problem as problem:
                self._answers.put(LockFailed(f"{self._connection.name}: {problem}"))
            except ValueError:
                continue  # output of a login shell
            else:
                self._held |= bool(answer.get("held")) and not answer.get("shared")
                self._answers.put(answer)
