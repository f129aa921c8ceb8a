"""The `dora` script: finds a command in the installed wheels and imports only that wheel.

`COMMANDS` names the module of each command: `daemon`, `coordinator`, and `cli` for all other
words, also for commands of plug-ins. Its function `main(arguments: Sequence[str]) -> int` receives
the remaining words and returns the exit code. This module imports neither typer nor pydantic, nor
metadata of wheels, which are slow to import.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import dora_config.quick_imports  # noqa: F401
from dora_config._version import __version__
from dora_config.streams import finish, report_unwritten

COMMANDS = {
    "daemon": "dora_daemon.command",
    "coordinator": "dora_coordinator.command",
    "cli": "dora_cli.main",
}
"""Module of each command; `cli` handles every other first word."""
OWN_WORDS = ("daemon", "coordinator")

Command = Callable[[Sequence[str]], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `dora` with `arguments` (default: the command line) and return the exit code."""
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        code = 130
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    problem = finish()
    if problem is not None and code == 0 and not isinstance(problem, BrokenPipeError):
        return report_unwritten(problem)
    return code


def _run(words: list[str]) -> int:
    if words[:1] in (["--version"], ["-V"]):
        print(f"dora {__version__}")  # does not fail if stdout is closed
        return 0
    try:
        Path.home()
    except RuntimeError:
        sys.stderr.write(
            f"[ERROR]\nno home folder: HOME is not set, and the account (uid {os.getuid()}) has no "
            "passwd entry\n  set HOME to a folder that the account can write\n"
        )
        return 1
    first = words[0] if words else ""
    if first == "run":
        _start_zygote(words)
    if first in OWN_WORDS:
        command = find_command(first)
        words = words[1:]
    else:
        command = find_command("cli")
    if command is not None:
        return command(words)
    if first == "help" and len(words) > 1:
        return _run([words[1], "--help"])
    return _show_installed() if first in ("", "-h", "--help", "help") else _explain_missing(first)


def _start_zygote(words: Sequence[str]) -> None:
    """Let the process that forks nodes import its modules while this one imports the command."""
    files = [word for word in words if word.endswith((".yml", ".yaml"))]
    if files and "--uv" not in words:
        from dora_config.zygote_process import start_early

        start_early(files[0])


def find_command(name: str) -> Command | None:
    """Return the function of a command; None if its wheel is not installed."""
    if not _is_installed(name):
        return None
    # KeyboardInterrupt is lost in the finalizers and weakref callbacks that run in an import.
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return cast(Command, import_module(COMMANDS[name]).main)
    finally:
        gc.freeze()  # the next collection would visit all that was imported, and free none of it
        if handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, handler)


def _is_installed(name: str) -> bool:
    return find_spec(COMMANDS[name].partition(".")[0]) is not None


def _explain_missing(word: str) -> int:
    from dora_config.installation import wheel_command, with_needed
    from dora_config.plugins import known_names

    wheel = f"dora-{word}" if word in OWN_WORDS else known_names("dora.commands").get(word)
    if wheel is not None and find_spec(wheel.replace("-", "_")) is None:
        subject = f"`dora {word}` is part of the wheel {wheel}"
    else:
        wheel = "dora-cli-core"
        subject = f"`dora {word}` is not installed here; most commands are in the wheel {wheel}"
    lines = ["[ERROR]", f"{subject}, which is not installed for {sys.executable}"]
    # a wheel of nodes does not depend on the command line that its command needs
    alone = word in OWN_WORDS or "dora-cli-core" in with_needed(wheel)
    needed = [wheel] if alone else ["dora-cli-core", wheel]
    lines += [f"  install it: {wheel_command(one)}" for one in needed]
    if here := _installed_words():
        lines.append(f"  installed here: {', '.join(f'dora {name}' for name in here)}")
    sys.stderr.write("\n".join(lines) + "\n")
    return 1


def _show_installed() -> int:
    """Print which commands this installation has, and how to install the command line."""
    from dora_config.installation import wheel_command

    print("Usage: dora COMMAND [OPTIONS]\n\nInstalled here:")
    for name in _installed_words():
        print(f"  dora {name}")
    print(
        "\nThe wheel dora-cli-core adds the other commands (`dora run`, `dora start`, `dora list`,"
        f" ...):\n  {wheel_command('dora-cli-core')}"
    )
    return 0


def _installed_words() -> list[str]:
    return [name for name in OWN_WORDS if _is_installed(name)]


if __name__ == "__main__":
    sys.exit(main())
