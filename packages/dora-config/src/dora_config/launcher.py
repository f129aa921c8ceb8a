"""The `dora` script: finds a command in the installed wheels and imports only that wheel.

Wheels register commands in the entry point group `dora.commands`: dora-daemon `daemon`,
dora-coordinator `coordinator`, dora-cli `cli` (all other words). An entry point is a function
`main(arguments: Sequence[str]) -> int` that receives the remaining words and returns the exit code.
This module imports neither typer nor pydantic, so that `dora daemon` works without them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from dora_config._version import __version__

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "dora.commands"
WHEELS = {"daemon": "dora-daemon", "coordinator": "dora-coordinator", "cli": "dora-cli"}
"""Wheel of each entry point; `cli` handles every other first word."""
OWN_WORDS = ("daemon", "coordinator")

Command = Callable[[Sequence[str]], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `dora` with `arguments` (default: the command line) and return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] in (["--version"], ["-V"]):
        print(f"dora {__version__}")  # does not fail if stdout is closed
        return 0
    first = words[0] if words else ""
    try:
        if first in OWN_WORDS:
            command = find_command(first)
            words = words[1:]
        else:
            command = find_command("cli")
        if command is None:
            return _explain_missing(first)
        return command(words)
    except KeyboardInterrupt:
        return 130


def find_command(name: str) -> Command | None:
    """Return the entry point of a command; None if its wheel is not installed."""
    entry = _entry_point(name)
    return None if entry is None else cast(Command, entry.load())


def _entry_point(name: str) -> EntryPoint | None:
    # only this wheel: reading all of an environment's wheels is slow
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        offered = distribution(WHEELS[name]).entry_points
    except PackageNotFoundError:
        return None
    return next(iter(offered.select(group=ENTRY_POINT_GROUP, name=name)), None)


def _explain_missing(word: str) -> int:
    wheel = WHEELS[word if word in OWN_WORDS else "cli"]
    named = word and not word.startswith("-")
    subject = f"`dora {word}`" if named else "`dora` without a command"
    lines = [
        "[ERROR]",
        f"{subject} is part of the wheel {wheel}, which is not installed for {sys.executable}",
        f"  install it: pip install {wheel}",
    ]
    if here := [name for name in OWN_WORDS if _entry_point(name) is not None]:
        lines.append(f"  installed here: {', '.join(f'dora {name}' for name in here)}")
    sys.stderr.write("\n".join(lines) + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
