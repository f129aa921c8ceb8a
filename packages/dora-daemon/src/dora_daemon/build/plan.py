"""What preparing a node takes, decided from the descriptor alone: pure.

A build line is one command, split like a shell splits words and run without one: no `&&`, pipes,
globs or variables.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from dora_config import ResolvedNode
from dora_daemon.build.errors import StepFailed

PIP = ("pip", "pip3")
INSTALLS_PYTHON = (*PIP, "uv", "python", "python3")
NAMES_TARGET = ("--python", "-p", "--target", "--prefix")
TAKES_TARGET = (("install",), ("uninstall",), ("list",), ("freeze",), ("show",))
SHELL_OPERATORS = ("&&", "||", "|", ";", ">", ">>", "<", "&")


@dataclass(frozen=True, slots=True)
class BuildLine:
    """One command of `build`: as written, and its words."""

    text: str
    words: tuple[str, ...]


def build_lines(node: ResolvedNode) -> tuple[BuildLine, ...]:
    """The commands of a node; StepFailed for a line whose quotes do not close."""
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
        raise StepFailed(f"build line {text!r} holds no command")
    return tuple(words)


def shell_hint(line: BuildLine) -> str | None:
    """Why a line that failed may be one that expected a shell, None when nothing hints at it."""
    used = [word for word in line.words if word in SHELL_OPERATORS]
    if used:
        return (
            f"build lines run without a shell, so {used[0]!r} is an ordinary word here; "
            "write one command a line, or `sh -c '...'`"
        )
    return None


def wants_environment(node: ResolvedNode) -> bool:
    """Whether a build with uv gives the node a Python environment of its own.

    A Python file or operators with build lines always; a program by name when its build lines
    install Python packages (`build: pip install dora-echo`, `path: dora-echo`).
    """
    if node.kind not in ("standard", "runtime"):
        return False
    first_words = [text.split()[0] for text in node.build if text.strip()]
    if not first_words:
        return False
    if node.operators or (node.path or "").endswith(".py"):
        return True
    return any(word in INSTALLS_PYTHON for word in first_words)


def rewrite_for_uv(words: tuple[str, ...], *, uv: str, python: str | None) -> tuple[str, ...]:
    """`pip ...` as `uv pip ...`, into `python` when there is no environment to find; else as is."""
    if words[0] not in PIP:
        return words
    rest = words[1:]
    names_target = any(
        word.split("=")[0] in ("--python", "-p", "--target", "--prefix") for word in rest
    )
    takes_target = rest[:1] in (("install",), ("uninstall",), ("list",), ("freeze",), ("show",))
    if python is None or names_target or not takes_target:
        return (uv, "pip", *rest)
    return (uv, "pip", rest[0], "--python", python, *rest[1:])


def rewrite_pip(words: tuple[str, ...], *, python: str) -> tuple[str, ...]:
    """`pip ...` as the pip of the interpreter that will run the node; else as is."""
    return (python, "-m", "pip", *words[1:]) if words[0] in PIP else words
