"""Runs one request of ``dora_cluster.remote_program`` on a machine.

The program and the request go to the standard input of a Python there, which keeps the program in
a memory file: nothing is left on the machine, however the request ends.
"""

from __future__ import annotations

import io
from functools import cache
from importlib.resources import files
from typing import Any, Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from dora_cluster.connection import FinishedCommand, Listener, MachineConnection
from dora_cluster.errors import NOT_ENDED, RemoteTimeout
from dora_cluster.remote_program.protocol import RemoteProblem, decode_reply, encode_request
from dora_config.errors import DoraError

PACKAGE: Final = "dora_cluster.remote_program"
SHARED: Final = ("access_token.py", "atomic_write.py", "process_identity.py")
"""Modules of ``dora_config`` that the program uses; they import the standard library only."""
NO_PYTHON: Final = 97
"""Exit code of a machine without a usable Python."""

_FIND_PYTHON: Final = """\
for python in python3 python3.14 python3.13 python3.12 python3.11 /usr/local/bin/python3 \\
        "$HOME"/.local/bin/python3.1[1-9]; do
    command -v "$python" >/dev/null || continue
    "$python" -I -c "$0" "$@"
    code=$?
    case $code in 97 | 126 | 127) ;; *) exit $code ;; esac
done
python3 --version 2>&1
exit 97
"""
_BOOT: Final = """\
import sys
if sys.version_info < (3, 11):
    sys.exit(97)
import os
try:
    file = open(os.memfd_create("dora"), "wb")
except (AttributeError, OSError):
    import tempfile
    file = tempfile.TemporaryFile()
file.write(sys.stdin.buffer.read(int(sys.argv[1])))
file.flush()
sys.path.insert(0, "/proc/self/fd/%d" % file.fileno())
from dora_cluster.remote_program.__main__ import main
sys.exit(main())
"""
_SHELL_TEST: Final = ("echo", "dora")
"""Command that prints a word; a login shell without commands does not."""


class MachineProblem(DoraError):
    """A request to a machine failed; ``str()`` is "NAME: REASON"."""

    def __init__(self, machine: str, reason: str) -> None:
        super().__init__(f"{machine}: {reason}")


@cache
def program() -> bytes:
    """Return the zip of the program; the same modules give the same bytes."""
    archive = io.BytesIO()
    own = sorted(one.name for one in files(PACKAGE).iterdir() if one.name.endswith(".py"))
    with ZipFile(archive, "w", ZIP_DEFLATED) as zipped:
        for package, names in ((PACKAGE, own), ("dora_config", SHARED)):
            folder = package.replace(".", "/")
            zipped.writestr(ZipInfo(f"{folder.partition('/')[0]}/__init__.py"), "")
            for name in names:
                content = files(package).joinpath(name).read_bytes()
                zipped.writestr(ZipInfo(f"{folder}/{name}"), content, ZIP_DEFLATED)
    return archive.getvalue()


def command_words(command: str) -> list[str]:
    """Return the command that runs a request; its input begins with ``program_input``."""
    return ["sh", "-c", _FIND_PYTHON, _BOOT, str(len(program())), command]


def program_input(command: str, arguments: dict[str, Any]) -> bytes:
    """Return the program with a request."""
    return program() + encode_request(command, arguments)


def call(
    connection: MachineConnection,
    command: str,
    *,
    sudo: bool = False,
    timeout: float = 60.0,
    on_output: Listener | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    """Return the result of a request; raises MachineProblem and SshError.

    ``on_output`` gets the output while the request runs.
    """
    try:
        done = connection.run(
            command_words(command),
            stdin=program_input(command, arguments),
            sudo=sudo,
            timeout=timeout,
            on_output=on_output,
        )
    except RemoteTimeout:
        raise RemoteTimeout(connection.name, f"`{command}` {NOT_ENDED}") from None
    lines = done.stdout.strip().splitlines()
    try:
        return decode_reply(lines[-1])
    except RemoteProblem as problem:
        raise MachineProblem(connection.name, str(problem)) from None
    except (IndexError, ValueError):
        raise MachineProblem(connection.name, _failure(connection, command, done)) from None


def too_old(done: FinishedCommand) -> str:
    """Return the message for a machine without a Python that is new enough."""
    found = done.stdout.strip() or "no python3"
    return (
        f"dora needs Python 3.11 or newer there, found: {found}; install one beside it, for "
        "example with uv: `uv python install 3.12` for the account, or for services `sudo env "
        "UV_PYTHON_INSTALL_DIR=/opt/python UV_PYTHON_BIN_DIR=/usr/local/bin $(command -v uv) "
        "python install 3.12`"
    )


def _failure(connection: MachineConnection, command: str, done: FinishedCommand) -> str:
    """Return why a request has no reply."""
    if done.code == NO_PYTHON:
        return too_old(done)
    test = connection.run(_SHELL_TEST)
    printed = (test.stdout.strip() or test.stderr.strip()).splitlines()
    if not test.stdout.strip().endswith("dora"):
        shown = f' (it printed: "{printed[0]}")' if printed else ""
        return (
            f"the login shell of this account does not run commands{shown}; change it there, as "
            "root: usermod --shell /bin/sh USER, or use another account as `user` in the cluster "
            "file"
        )
    errors = (done.stderr.strip() or done.stdout.strip() or "without output").splitlines()
    return f"`{command}` ended with exit code {done.code}: {errors[-1]}"
