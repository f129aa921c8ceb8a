"""A connection to a machine for commands, also with sudo, and files; blocking, for threads."""

from __future__ import annotations

import io
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO

from dora_cluster.errors import RemoteCommandFailed, SudoUnavailable

_CHUNK = 1 << 18
"""Bytes of a file that are read at a time."""
_WRITE = """\
umask 077
cat >"$1.new" && chmod "$2" "$1.new" && mv -f "$1.new" "$1" || { rm -f "$1.new"; exit 1; }"""
_READ = 'if [ -e "$1" ]; then cat "$1"; else exit 44; fi'
_NO_SUCH_FILE = 44
"""Exit code of `_READ`."""
_SEND_SECONDS = 3600.0
"""Time in which a file must have been sent."""

Progress = Callable[[int], None]
Listener = Callable[[bytes], None]
Listeners = tuple[Listener | None, Listener | None]
"""Receivers of stdout and stderr."""

SUDO = ("env", "LC_ALL=C.UTF-8", "LANGUAGE=", "sudo", "-n", "--")
"""Prefix of a command that runs as root; its messages are the English ones below."""
_NEEDS_PASSWORD = (
    "a password is required",
    "a terminal is required",
    "no tty present",
    "askpass",
    "is not in the sudoers file",
    "not allowed to execute",
    "is not allowed to run sudo",
    "may not run sudo",
)
_NEEDS_TERMINAL = "you must have a tty"


def sudo_problem(stderr: str, user: str) -> tuple[str, str] | None:
    """Return why `sudo -n` refused, with the remedy; None if something else failed."""
    allow = "put `{}` into /etc/sudoers.d/dora there"
    if any(line.startswith("env: ") and "sudo" in line for line in stderr.splitlines()):
        return "sudo is not installed", f"log in as root instead of {user}, or install sudo"
    if _NEEDS_TERMINAL in stderr:
        rule = f"Defaults:{user} !requiretty"
        return "sudo requires a terminal", f"lift requiretty of sudoers: {allow.format(rule)}"
    lines = [line for line in stderr.splitlines() if line.startswith(("sudo", "Sorry, user", user))]
    if any(text in line for line in lines for text in _NEEDS_PASSWORD):
        rule = f"{user} ALL=(ALL) NOPASSWD: ALL"
        return f"sudo requires a password for {user}", f"let it do without: {allow.format(rule)}"
    return None


def shown(argv: Sequence[str]) -> str:
    """Return a command for a message: at most 80 characters, scripts as `...`."""
    text = shlex.join("..." if "\n" in word else word for word in argv)
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(frozen=True, slots=True)
class FinishedCommand:
    """Result of a command; at most the last 64 KiB of output if a listener received it."""

    code: int
    stdout: str
    stderr: str


class MachineConnection(ABC):
    """A context manager; several threads may use it at once."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> MachineConnection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close the connection; commands that run over it fail."""

    @abstractmethod
    def _execute(
        self, argv: Sequence[str], pieces: Iterator[bytes], timeout: float, listeners: Listeners
    ) -> FinishedCommand:
        """Run a command; see ``run``."""

    @cached_property
    def is_root(self) -> bool:
        return self.run(["id", "-u"]).stdout.strip() == "0"

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Iterator[bytes] = b"",
        sudo: bool = False,
        timeout: float = 60.0,
        on_output: Listener | None = None,
        on_errors: Listener | None = None,
    ) -> FinishedCommand:
        """Run a command without a terminal, regardless of its exit code.

        After ``timeout`` seconds the command may continue to run; output that processes in the
        background still write is ignored then.

        ``on_output`` and ``on_errors`` get stdout and stderr while it runs, each from its own
        thread; an OSError that they raise ends the command. Raises RemoteTimeout, ConnectionLost,
        SudoUnavailable, RemoteCommandFailed after a signal, and that OSError.
        """
        with_sudo = sudo and not self.is_root
        words = [*SUDO, *argv] if with_sudo else argv
        pieces = _pieces(io.BytesIO(stdin)) if isinstance(stdin, bytes) else stdin
        done = self._execute(words, pieces, timeout, (on_output, on_errors))
        if with_sudo and done.code != 0:
            problem = sudo_problem(done.stderr, self.check(["id", "-un"]).strip())
            if problem is not None:
                raise SudoUnavailable(self.name, self._without_sudo(*problem))
        return done

    def _without_sudo(self, reason: str, remedy: str) -> str:
        return f"{reason} there; {remedy}"

    def check(
        self, argv: Sequence[str], *, stdin: bytes = b"", sudo: bool = False, timeout: float = 60.0
    ) -> str:
        """Return the output; raises RemoteCommandFailed unless the exit code is 0."""
        done = self.run(argv, stdin=stdin, sudo=sudo, timeout=timeout)
        if done.code != 0:
            raise self._failed(argv, done)
        return done.stdout

    def script(self, text: str, *arguments: str, sudo: bool = False) -> str:
        """Run a script of the POSIX shell as ``check`` does, whatever the login shell is."""
        return self.check(["sh", "-c", text, "sh", *arguments], sudo=sudo)

    def send(
        self, source: Path, target: str, *, offset: int = 0, progress: Progress | None = None
    ) -> None:
        """Append ``source`` from ``offset`` on to ``target``; ``progress`` gets bytes sent."""
        words = ["sh", "-c", 'cat >>"$1"', "sh", target]
        with source.open("rb") as file:
            file.seek(offset)
            done = self.run(words, stdin=_pieces(file, progress), timeout=_SEND_SECONDS)
        if done.code != 0:
            raise self._not_written(target, done)

    def write(self, target: str, content: bytes, *, mode: int = 0o644, sudo: bool = False) -> None:
        """Replace a small file atomically; its folder must exist."""
        done = self.run(["sh", "-c", _WRITE, "sh", target, f"{mode:o}"], stdin=content, sudo=sudo)
        if done.code != 0:
            raise self._not_written(target, done)

    def read(self, path: str, *, sudo: bool = False) -> bytes | None:
        """Return the content of a small file; None if it does not exist."""
        done = self.run(["sh", "-c", _READ, "sh", path], sudo=sudo)
        if done.code == _NO_SUCH_FILE:
            return None
        if done.code != 0:
            raise self._failed(["read", path], done)
        return done.stdout.encode("utf-8", "surrogateescape")

    def _not_written(self, target: str, done: FinishedCommand) -> RemoteCommandFailed:
        line = (done.stderr.strip() or f"exit code {done.code}").splitlines()[-1]
        reason = line.rpartition(": ")[2]
        return RemoteCommandFailed(self.name, f"{target} cannot be written: {reason}", done.code)

    def _failed(self, argv: Sequence[str], done: FinishedCommand) -> RemoteCommandFailed:
        printed = (done.stderr.strip() or done.stdout.strip()).splitlines()[-8:]
        lines = "".join(f"\n  {line}" for line in printed)
        end = f"failed with exit code {done.code}" if done.code >= 0 else "was ended by a signal"
        sentence = f"`{shown(argv)}` {end}{':' if lines else ''}{lines}"
        return RemoteCommandFailed(self.name, sentence, done.code)


def _pieces(file: IO[bytes], progress: Progress | None = None) -> Iterator[bytes]:
    begin = file.tell()
    while piece := file.read(_CHUNK):
        yield piece
        if progress is not None:
            progress(file.tell() - begin)
