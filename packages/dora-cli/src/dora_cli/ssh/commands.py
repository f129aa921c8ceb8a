"""Command lines for other machines from argument lists; pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

NEEDS_PASSWORD = (
    "a password is required",
    "a terminal is required",
    "no tty present",
    "askpass",
    "is not in the sudoers file",
    "not allowed to execute",
    "is not allowed to run sudo",
    "may not run sudo",
)
NEEDS_TERMINAL = ("you must have a tty",)
SUDO_LOCALE: Mapping[str, str] = {"LC_ALL": "C.UTF-8", "LANGUAGE": ""}
"""Variables with which sudo prints the texts above."""


def command_line(argv: Sequence[str], *, sudo: bool = False) -> str:
    """Return the text for the login shell: every word quoted for a POSIX shell."""
    if not argv:
        raise ValueError("a command needs at least one word")
    for word in argv:
        if "\0" in word:
            raise ValueError(f"a NUL character cannot be part of a command: {word!r}")
    variables = [f"{name}={value}" for name, value in SUDO_LOCALE.items()]
    prefix = ["env", *variables, "sudo", "-n", "--"] if sudo else []
    return shlex.join([*prefix, *argv])


def shown(argv: Sequence[str]) -> str:
    """Return a command for a message: at most 80 characters, scripts as `...`."""
    words = ["..." if "\n" in word else word for word in argv]
    text = shlex.join(words)
    return text if len(text) <= 80 else f"{text[:77]}..."


def sudo_problem(stderr: str, user: str) -> str | None:
    """Return why `sudo -n` refused; None if something else failed."""
    if any(line.startswith("env: ") and "sudo" in line for line in stderr.splitlines()):
        return f"sudo is not installed there, and {user} is not root"
    if any(text in stderr for text in NEEDS_TERMINAL):
        return (
            f"sudo requires a terminal there (requiretty in sudoers); lift that for {user}: "
            f"put `Defaults:{user} !requiretty` into /etc/sudoers.d/dora there (visudo -f "
            "/etc/sudoers.d/dora)"
        )
    lines = [line for line in stderr.splitlines() if line.startswith(("sudo", "Sorry, user", user))]
    if any(text in line for line in lines for text in NEEDS_PASSWORD):
        return (
            f"sudo requires a password for {user} (or has no rule for it); allow it without one: "
            f"put `{user} ALL=(ALL) NOPASSWD: ALL` into /etc/sudoers.d/dora there"
        )
    return None
