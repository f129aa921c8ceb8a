"""A fake machine with versions of dora and a service; its connection breaks at a chosen command.

Its files are real, below one folder, and programs and scripts run on them. Systemd and the daemon
are fakes: a restart records the version that the link leads to, and the unit that was loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.cluster.machine_facts import HEALTHY_MACHINE

from dora_cluster.connection import FinishedCommand, Listeners, MachineConnection
from dora_cluster.errors import ConnectionLost, Unreachable
from dora_cluster.remote_call import program
from dora_cluster.remote_program.__main__ import run
from dora_cluster.remote_program.protocol import (
    RemoteProblem,
    decode_request,
    encode_problem,
    encode_result,
)

NAME = "robot (10.0.0.2)"
_SYSTEMCTL = """\
#!/bin/sh
cd "{folder}" || exit
[ "$1" = --user ] && shift
case $1 in
daemon-reload) cp .config/systemd/user/dora-daemon-*.service loaded ;;
restart)
    cp loaded active
    basename "$(readlink -f .local/share/dora/versions/current)" >running ;;
esac
"""


@dataclass
class ScriptedMachine:
    """``cut_at``: number of the command before (or ``after``) which the connection breaks.

    ``back``: whether a new connection is possible then.
    """

    folder: Path
    cut_at: int = 0
    after: bool = False
    back: bool = False
    of: int = 0
    """Number of this machine in a series."""
    count: int = 0
    _cut: bool = False

    def __post_init__(self) -> None:
        systemctl = self.folder / "bin" / "systemctl"
        systemctl.parent.mkdir()
        systemctl.write_text(_SYSTEMCTL.format(folder=self.folder))
        systemctl.chmod(0o755)

    # ------------------------------------------------------------------------ state

    @property
    def versions(self) -> Path:
        return self.folder / ".local/share/dora/versions"

    @property
    def unit(self) -> Path:
        return self.folder / ".config/systemd/user/dora-daemon-robot.service"

    @property
    def running(self) -> str:
        """Name of the version's folder that the daemon runs from."""
        return (self.folder / "running").read_text().strip()

    @property
    def release(self) -> str:
        manifest = json.loads((self.versions / self.running / "bundle.json").read_text())
        return str(manifest["version"])

    def add_version(self, version: str) -> None:
        tree = self.versions / f"{version}-py3.11"
        (tree / "bin").mkdir(parents=True)
        (tree / "bin/python").symlink_to("/bin/sh")
        (tree / "bundle.json").write_text(json.dumps({"version": version, "content": version}))

    # ------------------------------------------------------------------------ its connection

    def mend(self) -> None:
        """No more cuts."""
        self.cut_at, self._cut = 0, False

    @property
    def is_unreachable(self) -> bool:
        """Whether neither SSH nor its daemon can connect."""
        return self._cut and not self.back

    @property
    def was_cut(self) -> bool:
        return self._cut

    def connect(self, *_target: object) -> MachineConnection:
        if self._cut and not self.back:
            raise Unreachable(NAME, "no answer")
        return _ScriptedConnection(self)

    def step(
        self, connection: _ScriptedConnection, argv: Sequence[str], stdin: bytes
    ) -> FinishedCommand:
        self.count += 1
        breaks = self.count == self.cut_at
        if breaks and not self.after:
            self._break(connection)
        done = self._do(argv, stdin)
        if breaks:
            self._break(connection)
        return done

    def _break(self, connection: _ScriptedConnection) -> None:
        self._cut = connection.broken = True
        raise ConnectionLost(NAME, "the connection broke")

    def _do(self, argv: Sequence[str], stdin: bytes) -> FinishedCommand:
        if stdin.startswith(program()):
            request = decode_request(stdin.removeprefix(program()))
            return FinishedCommand(0, self._reply(*request).decode(), "")
        done = subprocess.run(
            list(argv),
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env={
                "HOME": str(self.folder),
                "PATH": f"{self.folder}/bin:/usr/bin:/bin",
                "XDG_RUNTIME_DIR": str(self.folder),
            },
            check=False,
        )
        return FinishedCommand(done.returncode, done.stdout.decode(), done.stderr.decode())

    def _reply(self, command: str, arguments: dict[str, Any]) -> bytes:
        if command == "daemon.facts":
            return encode_result(self._facts())
        try:
            return encode_result(run(command, arguments) or {})
        except (RemoteProblem, OSError) as problem:
            return encode_problem(str(problem))

    def _facts(self) -> dict[str, Any]:
        python = f"{self.versions / self.running}/bin/python"
        return HEALTHY_MACHINE | {
            "uid": os.getuid(),
            "home": str(self.folder),
            "state": str(self.folder),
            "daemon": {"pid": 7, "words": [python, "-I", "-m", "x", "daemon"]},
            "user_service": self.unit.exists(),
        }


class _ScriptedConnection(MachineConnection):
    is_root = True

    def __init__(self, machine: ScriptedMachine) -> None:
        super().__init__(NAME)
        self._machine = machine
        self.broken = False

    def close(self) -> None:
        self.broken = True

    def _execute(
        self, argv: Sequence[str], pieces: Iterator[bytes], timeout: float, listeners: Listeners
    ) -> FinishedCommand:
        if self.broken:
            raise ConnectionLost(NAME, "the connection broke")
        return self._machine.step(self, argv, b"".join(pieces))
