"""The lock of one machine, as a command holds it: a program there, and a thread that feeds it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from dora_cli.bundle.machine import NO_PYTHON, too_old
from dora_cli.ssh import Connection, Finished
from dora_config import DoraError

NAME = "dora-cluster-lock"
"""On the machine, the same for all its users."""
LEASE = 30.0
"""Seconds without a sign of life after which the machine frees the lock."""
SIGN_INTERVAL = 5.0
ANSWER_TIMEOUT = 60.0
FOREVER = 10 * 365 * 24 * 3600.0

_START = """\
for python in python3 python3.14 python3.13 python3.12 python3.11 /usr/local/bin/python3; do
    command -v "$python" >/dev/null || continue
    "$python" -I -c 'import sys
if sys.version_info < (3, 11): sys.exit(97)
exec(compile(sys.stdin.buffer.read(int(sys.argv[1])), "dora-lock", "exec"))' "$@"
    code=$?
    [ $code = 97 ] || exit $code
done
echo "$(python3 --version 2>&1)"
exit 97
"""

Answer = Mapping[str, Any]


class LockFailed(DoraError):
    """The lock could not be asked for; ``str()`` says why."""


@cache
def _program() -> bytes:
    return (files("dora_cli.cluster") / "lock_program.py").read_bytes()


class MachineLock:
    """From ``ask`` on to ``release``; when it is lost, ``lost`` is called."""

    def __init__(
        self, link: Connection, info: Mapping[str, Any], lost: Callable[[], None] = lambda: None
    ) -> None:
        """``info``: who holds it, for others; its ``key`` is the same for all of one command."""
        self._link = link
        self._info = dict(info)
        self._lost = lost
        self._answers: list[Answer] = []
        self._ended: str | None = None
        self._changed = threading.Condition()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._rest = b""
        self._held = False

    def ask(self, *, wait: bool, waiting: Callable[[Answer | None], None]) -> Answer:
        """The answer that ``held`` is in; ``waiting`` is called with each holder waited for.

        Raises LockFailed, and what the connection raises.
        """
        given = json.dumps({"name": NAME, "info": self._info, "wait": wait, "lease": LEASE})
        self._thread = threading.Thread(target=self._run, args=(given,), daemon=True)
        self._thread.start()
        seen = 0
        deadline = time.monotonic() + ANSWER_TIMEOUT
        while True:
            answers, ended = self._news(seen)
            seen += len(answers)
            for answer in answers:
                if "held" in answer:
                    if not answer["held"] or answer.get("shared"):
                        self.release()
                    return answer
                waiting(answer["waiting"])
                deadline = float("inf")
            if not answers and ended is not None:
                raise LockFailed(ended)
            if time.monotonic() > deadline:
                self.release()
                raise LockFailed(f"{self._link.name}: the machine's lock was not answered for")

    def _news(self, seen: int) -> tuple[list[Answer], str | None]:
        """Answers after the first ``seen``, and the reason if there will be no more."""
        with self._changed:
            if len(self._answers) == seen and self._ended is None:
                self._changed.wait(0.5)
            return self._answers[seen:], self._ended

    def signal_end(self) -> None:
        """Begin to free it, if it is held."""
        self._over.set()

    def release(self) -> None:
        """Free it and wait until that is done."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(SIGN_INTERVAL)

    def _run(self, given: str) -> None:
        size = str(len(_program()))
        ended = f"{self._link.name}: the machine's lock was lost"
        try:
            done = self._link.converse(
                ["sh", "-c", _START, "dora", size, given],
                self._input(),
                timeout=FOREVER,
                on_output=self._take,
            )
            ended = self._reason(done, ended)
        except (DoraError, OSError) as error:
            ended = str(error)
        with self._changed:
            self._ended = ended
            self._changed.notify_all()
        if self._held and not self._over.is_set():
            self._lost()

    def _reason(self, done: Finished, otherwise: str) -> str:
        if done.code == NO_PYTHON:
            return f"{self._link.name}: {too_old(done.stdout)}"
        said = done.stderr.strip().splitlines()
        return f"{self._link.name}: the machine cannot be locked: {said[-1]}" if said else otherwise

    def _input(self) -> Iterator[bytes]:
        yield _program()
        while not self._over.wait(SIGN_INTERVAL):
            yield b"."

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        with self._changed:
            for line in lines:
                try:
                    answer = json.loads(line)
                except ValueError:
                    continue  # what a login shell prints
                self._held |= bool(answer.get("held")) and not answer.get("shared")
                self._answers.append(answer)
            self._changed.notify_all()
