"""Parses console blocks of the documentation and runs them like a shell with jobs.

A line that starts with ``$ `` is a command; the lines below it are its expected output, in which
``...`` matches anything. A last line ``(exit code N)`` is its exit code, 0 by default. ``&`` at the
end starts a job; the next command runs once the job has printed its expected output. ``^C`` on a
line of its own interrupts a command once it has printed the lines above.
``kill %N`` and ``kill -9 %N`` end jobs. ``pkill -9 -f dora_daemon.runner`` ends the runners of this
home, and only those. Commands of other programs are shown and not run.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from support.dora import Completed, RunningDora, run_dora, running_dora
from support.fleets.daemons import end_runners, is_running
from support.runner.found_runners import list_runners
from support.waiting import wait_until

from dora_daemon.process_tree.runtime_dir import runtime_root

LOOKS = (
    ("list",), ("status",), ("logs",), ("top",), ("why",), ("node", "list"), ("cluster", "status"),
)  # fmt: skip
"""Read-only commands; they are repeated until their output matches."""


@dataclass(frozen=True)
class Command:
    """One command and its expected output."""

    words: list[str]
    expected: str
    code: int
    background: bool = False

    @property
    def is_run(self) -> bool:
        return self.words[0] in ("dora", "kill", "pkill", "pytest")

    @property
    def until_interrupt(self) -> str | None:
        """Return the output before the interrupt; None if the command ends by itself."""
        before, found, _ = self.expected.partition("^C")
        return before.strip() if found else None


def pattern(expected: str) -> re.Pattern[str]:
    """Return the text as a pattern: ``...`` matches anything, blanks match any blanks."""
    parts = (r"\s+".join(map(re.escape, part.split())) for part in re.split(r"\.\.\.", expected))
    return re.compile(r"[\s\S]*?".join(parts))


def commands(block: str) -> Iterator[Command]:
    """Yield the commands of a console block."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        first, _, rest = part.partition("\n")
        ending = re.search(r"^\(exit code (\d+)\)$", rest, re.MULTILINE)
        expected = re.sub(r"^\(exit code \d+\)$", "", rest, flags=re.MULTILINE)
        words = shlex.split(first, comments=True)
        background = words[-1] == "&"
        yield Command(
            words[:-1] if background else words,
            expected.strip(),
            int(ending[1]) if ending else 0,
            background,
        )


@dataclass
class Console:
    """A shell in ``folder``; leaving the block ends its jobs and their runners."""

    folder: Path
    coordinator_port: int
    python: Path = Path(sys.executable)
    """Runs `dora` and `pytest`."""
    jobs: dict[int, RunningDora] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for job in self.jobs.values():
            job.kill()
        end_runners()
        self._stack.close()

    def run(self, command: Command, where: str) -> None:
        """Run a command; raise AssertionError if its output or exit code differs."""
        match command.words:
            case ["kill", *options, job]:
                self._kill(int(job.removeprefix("%")), hard="-9" in options)
            case ["pkill", "-9", "-f", "dora_daemon.runner"]:
                _kill_runners()
            case ["pytest", *words]:
                program = (self.python, "-m", "pytest", "-p", "no:cacheprovider")
                done = run_dora(*words, cwd=self.folder, program=program)
                _check(done, command, command.expected, where)
            case _ if command.background:
                self._start(command, where)
            case _ if command.until_interrupt is not None:
                self._interrupt(command, where)
            case _:
                self._wait(command, where)

    @property
    def _dora(self) -> tuple[Path] | None:
        """`dora` of another environment."""
        own = self.python == Path(sys.executable)
        return None if own else (self.python.with_name("dora"),)

    def _words(self, command: Command) -> list[str]:
        """Return the arguments of `dora`; a coordinator gets the port of this test."""
        words = command.words[1:]
        if words[0] == "coordinator":
            words += ["--port", str(self.coordinator_port)]
        return words

    def _start(self, command: Command, where: str) -> None:
        running = running_dora(*self._words(command), cwd=self.folder, program=self._dora)
        job = self._stack.enter_context(running)
        self.jobs[max(self.jobs, default=0) + 1] = job
        self._until_printed(job, command.expected, where)

    def _interrupt(self, command: Command, where: str) -> None:
        with running_dora(*self._words(command), cwd=self.folder, program=self._dora) as running:
            self._until_printed(running, command.until_interrupt or "", where)
            running.interrupt()
            _check(running.wait(), command, command.expected.replace("^C", "..."), where)

    def _wait(self, command: Command, where: str) -> None:
        words = self._words(command)
        done = run_dora(*words, cwd=self.folder, timeout=90, program=self._dora)
        if any(tuple(words[: len(look)]) == look for look in LOOKS):

            def shows() -> bool:
                nonlocal done
                if not fits():
                    done = run_dora(*words, cwd=self.folder, timeout=90, program=self._dora)
                return fits()

            def fits() -> bool:
                found = pattern(command.expected).search(done.output)
                return found is not None and done.code == command.code

            wait_until(
                shows,
                what=lambda: f"{where}: expected\n{command.expected}\n{done}",
            )
        _check(done, command, command.expected, where)

    def _until_printed(self, running: RunningDora, expected: str, where: str) -> None:
        wait_until(
            lambda: pattern(expected).search(running.stdout + running.stderr),
            what=lambda: f"{where}: expected\n{expected}\n{running.result()}",
        )

    def _kill(self, number: int, *, hard: bool) -> None:
        job = self.jobs.pop(number)
        job.send_signal(signal.SIGKILL if hard else signal.SIGTERM)
        job.wait()


def _check(done: Completed, command: Command, expected: str, where: str) -> None:
    assert done.code == command.code, f"{where}: exit code {done.code}\n{done}"
    assert pattern(expected).search(done.output), f"{where}: expected\n{expected}\n{done}"


def _kill_runners() -> None:
    living = [found.entry.pid for found in list_runners(runtime_root()) if found.alive]
    for pid in living:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, living)), what="the runners to end")
