"""This machine behind the interface of a connection, for what is also done over SSH."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from dora_cli.ssh.commands import SUDO_LOCALE, shown, sudo_problem
from dora_cli.ssh.connection import Connection, Finished, Listener
from dora_cli.ssh.errors import NOT_ENDED, RemoteTimeout, SudoUnavailable
from dora_cli.ssh.transport import Transport

NAME = "this machine"


class LocalConnection(Connection):
    """Commands run in the user's home, with `sudo` where root's rights are needed."""

    def __init__(self) -> None:
        super().__init__(NAME, cast(Transport, None))

    def close(self) -> None:
        return

    def _run(
        self,
        argv: Sequence[str],
        pieces: Iterator[bytes],
        *,
        sudo: bool,
        timeout: float,
        listeners: tuple[Listener | None, Listener | None] = (None, None),
    ) -> Finished:
        with_sudo = sudo and os.geteuid() != 0
        words = [*(["sudo", "-n", "--"] if with_sudo else []), *argv]
        # the Python that runs dora, because that of the system may be too old
        locale = SUDO_LOCALE if with_sudo else {}
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
        try:
            done = subprocess.run(
                words,
                input=b"".join(pieces),
                capture_output=True,
                cwd=Path.home(),
                env={**os.environ, **locale, "PATH": path},
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError as error:
            if str(error.filename) == str(Path.home()):
                raise
            if with_sudo:
                raise SudoUnavailable(NAME, _needs_root("sudo is not installed")) from None
            return Finished(127, "", f"{argv[0]}: not found")
        except subprocess.TimeoutExpired:
            raise RemoteTimeout(NAME, f"`{shown(argv)}` {NOT_ENDED}") from None
        for listener, data in zip(listeners, (done.stdout, done.stderr), strict=True):
            if listener is not None:
                listener(data)
        out, err = (data.decode("utf-8", "surrogateescape") for data in (done.stdout, done.stderr))
        if with_sudo and done.returncode != 0:
            user = pwd.getpwuid(os.getuid()).pw_name
            if sudo_problem(err, user) is not None:
                raise SudoUnavailable(NAME, _needs_root(f"sudo requires a password for {user}"))
        return Finished(done.returncode, out, err)


def _needs_root(reason: str) -> str:
    return (
        f"root's rights are needed, and {reason}; run `sudo -v` in this terminal and then this "
        "command again, or use `--user`, which needs none"
    )
