"""What installing needs of a connection to a machine, and our program run over it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Protocol

from dora_config.errors import DoraError

NO_PYTHON: Final = 97

_FIND: Final = """\
for python in python3 python3.14 python3.13 python3.12 python3.11 /usr/local/bin/python3; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        exec "$python" -I - "$@"
    fi
done
echo "$(python3 --version 2>&1)"
exit 97
"""


class Finished(Protocol):
    """How a remote command ended."""

    @property
    def code(self) -> int: ...
    @property
    def stdout(self) -> str: ...
    @property
    def stderr(self) -> str: ...


class Machine(Protocol):
    """A connection to one machine; calls block."""

    @property
    def name(self) -> str:
        """For sentences: ``robot (ubuntu@10.0.0.2)``."""
        ...

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        sudo: bool = False,
        timeout: float = 60.0,
    ) -> Finished:
        """Run a command to its end. Any exit code is an answer; DoraError when there is none."""
        ...

    def send(
        self,
        source: Path,
        target: str,
        *,
        offset: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Append ``source`` from ``offset`` on to the file ``target``, which has that size."""
        ...


class MachineProblem(DoraError):
    """Something could not be done on a machine; ``str()`` says what and why."""

    def __init__(self, machine: str, reason: str) -> None:
        super().__init__(f"{machine}: {reason}")
        self.machine = machine
        self.reason = reason


@cache
def _program() -> bytes:
    return (files("dora_cli.bundle") / "machine_program.py").read_bytes()


def ask(
    machine: Machine,
    command: str,
    *,
    sudo: bool = False,
    timeout: float = 60.0,
    program: bytes | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    """Have ``machine_program`` (or another program of that kind) do one thing there; raises
    MachineProblem.
    """
    done = machine.run(
        ["sh", "-c", _FIND, "dora", command, json.dumps(arguments)],
        stdin=program or _program(),
        sudo=sudo,
        timeout=timeout,
    )
    if done.code == NO_PYTHON:
        raise MachineProblem(machine.name, too_old(done.stdout))
    lines = done.stdout.strip().splitlines()
    try:
        answer = json.loads(lines[-1])
        problem = answer.get("problem")
    except (IndexError, ValueError, AttributeError):
        _require_shell(machine)
        said = (done.stderr.strip() or done.stdout.strip() or "nothing was printed").splitlines()
        raise MachineProblem(
            machine.name, f"`{command}` ended with code {done.code}: {said[-1]}"
        ) from None
    if problem is not None:
        raise MachineProblem(machine.name, str(problem))
    return dict(answer)


def too_old(said: str) -> str:
    """The sentence for a machine without a Python that we need; ``said``: what it has."""
    found = said.strip() or "no python3"
    return (
        f"dora needs Python 3.11 or newer there, found: {found}; install one, for example "
        "`sudo apt install python3` on a newer system, or python3.11 beside the old one"
    )


def _require_shell(machine: Machine) -> None:
    """Raises MachineProblem if the account's login shell runs no commands."""
    done = machine.run(["echo", "dora"])
    if done.stdout.strip().endswith("dora"):
        return
    said = (done.stdout.strip() or done.stderr.strip()).splitlines()
    shown = f' (it printed: "{said[0]}")' if said else ""
    raise MachineProblem(
        machine.name,
        f"the login shell of this account runs no commands{shown}; give it one there, as root: "
        "usermod --shell /bin/sh USER, or name another account as `user` in the cluster file",
    )
