"""Build lines and environments that a node needs; pure.

A build line is one command. It is split into words like in a shell and run without one: no `&&`,
pipes, globs or variables.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from dora_config.dataflow.resolved import ResolvedNode
from dora_daemon.build.errors import StepFailed

PIP = ("pip", "pip3")
INSTALLS_PYTHON = (*PIP, "uv", "python", "python3")
NAMES_TARGET = ("--python", "-p", "--target", "--prefix")
SHELL_OPERATORS = ("&&", "||", "|", ";", ">", ">>", "<", "&")


@dataclass(frozen=True, slots=True)
class BuildLine:
    """One command of `build` as written, and its words."""

    text: str
    words: tuple[str, ...]


def build_lines(node: ResolvedNode) -> tuple[BuildLine, ...]:
    """Return the commands of a node. Raises StepFailed for unbalanced quotes."""
    lines = [text.strip() for text in node.build]
    return tuple(BuildLine(text, _split(text)) for text in lines if text)


def _split(text: str) -> tuple[str, ...]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise StepFailed(
            f"build line {text!r}: {error}".replace("No closing", "no closing")
        ) from None
    if not words:
        raise StepFailed(f"build line {text!r} contains no command")
    return tuple(words)


def shell_hint(line: BuildLine) -> str | None:
    """Return a hint if a failed line contains operators of a shell; None otherwise."""
    used = next((word for word in line.words if word in SHELL_OPERATORS), None)
    if used is None:
        return None
    return (
        f"build lines run without a shell, so {used!r} is an ordinary word here; "
        "write one command per line, or `sh -c '...'`"
    )


def wants_environment(node: ResolvedNode) -> bool:
    """Return whether a build with uv creates a Python environment for the node.

    That is the case for a Python file or operators with build lines, and for a program whose build
    lines install Python packages (`build: pip install dora-echo`, `path: dora-echo`).
    """
    if node.kind not in ("standard", "runtime") and node.block is None:
        return False
    first_words = [text.split()[0] for text in node.build if text.strip()]
    if not first_words:
        return False
    if node.operators or (node.path or "").endswith(".py"):
        return True
    return any(word in INSTALLS_PYTHON for word in first_words)
