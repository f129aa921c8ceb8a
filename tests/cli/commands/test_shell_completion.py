"""Completion of names by the shells themselves, in a terminal."""

from __future__ import annotations

import os
import pty
import select
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import pytest
from support.dora import DORA, run_dora
from support.fleets.daemons import RealFleet, counting, real_fleet
from support.requirements import require_installed
from support.waiting import wait_until
from support.workspace import Workspace

pytestmark = pytest.mark.integration

SHELLS: Mapping[str, tuple[list[str], str]] = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        "bind 'set bell-style none'; PS1=$'RE\\101DY> '; eval \"$(dora completion bash)\"\n",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        "autoload -U compinit; compinit -u -D; PS1=$'RE\\101DY> '; unsetopt beep; "
        'eval "$(dora completion zsh)"\n',
    ),
}


@dataclass
class Terminal:
    """A shell in a terminal, with everything that it has shown."""

    terminal: int
    shown: str = ""

    def send(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self._read(), what=lambda: f"{text!r} in {self.shown!r}")

    def _read(self) -> str:
        while select.select([self.terminal], [], [], 0)[0]:
            self.shown += os.read(self.terminal, 65536).decode(errors="replace")
        return self.shown

    def completed(self, line: str, end: str) -> None:
        """Type a line and a tab; wait until the shell has completed it with ``end``."""
        self.shown = ""
        self.send(f"{line}\t")
        self.wait_for(f"{line}{end}")
        self.send("\x15")  # clears the line


@contextmanager
def shell(name: str, folder: Path, port: int) -> Iterator[Terminal]:
    argv, setup = SHELLS[name]
    ours, theirs = pty.openpty()
    environment = os.environ | {
        "PATH": f"{DORA.parent}{os.pathsep}{os.environ['PATH']}",
        "DORA_COORDINATOR_PORT": str(port),
        "TERM": "dumb",
    }
    process = Popen(
        argv,
        cwd=folder,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        terminal = Terminal(ours)
        terminal.send(setup)
        terminal.wait_for("READY> ")  # not in the echo of the setup
        yield terminal
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture(scope="module")
def fleet(home: Path, shared_workspace: Workspace) -> Iterator[RealFleet]:
    """A daemon with a running dataflow."""
    assert home.is_dir()
    with real_fleet(shared_workspace, None) as made:
        made.start(counting(shared_workspace), "--name", "front-left")
        yield made


@pytest.mark.parametrize("name", SHELLS)
def test_names_are_completed(fleet: RealFleet, name: str) -> None:
    require_installed(name)
    with shell(name, fleet.workspace.path, fleet.port) as terminal:
        terminal.completed("dora stop fr", "ont-left")
        terminal.completed("dora logs fr", "ont-left")
        terminal.completed("dora node restart coll", "ector")
        terminal.completed("dora node list -d fr", "ont-left")
        terminal.completed("dora topic echo cou", "nter/count")


def _words(fleet_port: int, line: str) -> list[str]:
    environment = {
        "_DORA_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
        "DORA_COORDINATOR_PORT": str(fleet_port),
    }
    done = run_dora(env=environment)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.usefixtures("own_home")
def test_which_names_are_offered(workspace: Workspace) -> None:
    with real_fleet(workspace, None) as fleet:
        first = fleet.start(counting(workspace))
        fleet.dora("stop")
        fleet.start(counting(workspace), "--name", "a")
        assert _words(fleet.port, "dora stop ") == ["a"]
        assert sorted(_words(fleet.port, "dora logs ")) == sorted([first, "a"])
        assert _words(fleet.port, "dora node info ") == ["counter", "collector"]
        assert _words(fleet.port, f"dora node info -d {first} ") == ["counter", "collector"]
        assert _words(fleet.port, "dora node info -d missing ") == []
        assert _words(fleet.port, "dora topic info ") == ["counter/count"]
        _without_a_coordinator(fleet)


def _without_a_coordinator(fleet: RealFleet) -> None:
    fleet.coordinator.process.kill()
    for line in ("dora stop ", "dora node info ", "dora topic info "):
        assert _words(fleet.port, line) == []
