"""The `dora` script: finds a command in the wheels installed beside it and imports only that.

Every wheel names what it brings in the entry point group `dora.commands`: dora-daemon `daemon`,
dora-coordinator `coordinator`, dora-cli `cli` (all other words). An entry is a function
`main(arguments: Sequence[str]) -> int` that gets the words after its own and returns the exit code.
This module imports neither typer nor pydantic, so that `dora daemon` starts on a bare robot.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import cast

from dora_config._version import __version__

ENTRY_POINT_GROUP = "dora.commands"
OWN_WORDS = ("daemon", "coordinator")
"""First words that a wheel of their own answers; every other word belongs to dora-cli."""

Command = Callable[[Sequence[str]], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `dora` with `arguments` (default: the command line) and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] in (["--version"], ["-V"]):
        sys.stdout.write(f"dora {__version__}\n")
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
    """The function an installed wheel offers under `name`, or None when no wheel does."""
    from importlib.metadata import entry_points  # 10 ms that `dora --version` need not pay

    for entry in entry_points(group=ENTRY_POINT_GROUP, name=name):
        return cast(Command, entry.load())
    return None


def _explain_missing(word: str) -> int:
    if word in OWN_WORDS:
        wheel, subject = f"dora-{word}", f"`dora {word}` is"
    elif word.startswith("-") or not word:
        wheel, subject = "dora-cli", "`dora` without a command is"
    else:
        wheel, subject = "dora-cli", f"`dora {word}` is"
    from importlib.metadata import entry_points

    here = [name for name in OWN_WORDS if entry_points(group=ENTRY_POINT_GROUP, name=name)]
    lines = [
        "[ERROR]",
        f"{subject} part of the wheel {wheel}, which is not installed for {sys.executable}",
        f"  install it: pip install {wheel}",
    ]
    if here:
        lines.append(f"  installed here: {', '.join(f'dora {name}' for name in here)}")
    sys.stderr.write("\n".join(lines) + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
