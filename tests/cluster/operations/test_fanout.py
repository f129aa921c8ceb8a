"""Output of several machines at once, and the choice of machines."""

from __future__ import annotations

import errno
import threading
from typing import Any

import pytest

from dora_cli import output
from dora_cluster.connection import FinishedCommand, Listener, MachineConnection
from dora_cluster.errors import ConnectionLost
from dora_cluster.machines import remote_machine
from dora_cluster.machines.daemon_service import DaemonService
from dora_cluster.operations import fanout
from dora_cluster.operations.fanout import PrefixedLines
from dora_config.cluster.models import Cluster, Coordinator, Machine
from dora_config.streams import STANDARD_OUTPUT


def test_output_is_cut_into_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = PrefixedLines("gpu", 5)
    for piece in (b"on", b"e\ntw", b"o\n\nthr\xff"):
        lines.take_output(piece)
    lines.end()
    lines.remark("exit code 1")
    out, err = capsys.readouterr()
    assert out == "gpu   | one\ngpu   | two\ngpu   | \ngpu   | thr\ufffd\n"
    assert err == "gpu   | exit code 1\n"


def test_unfinished_lines_of_two_streams_are_not_mixed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = PrefixedLines("gpu", 3)
    lines.take_output(b"all is ")
    lines.take_errors(b"wat")
    lines.take_output(b"well\nlast")
    lines.take_errors(b"ch out\nend")
    lines.end()
    expected = "gpu | all is well\ngpu | watch out\ngpu | last\ngpu | end\n"
    assert capsys.readouterr().out == expected


def test_machines_are_cut_off_when_their_output_cannot_be_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with `dora cluster logs --follow PATH | head`."""
    following = threading.Event()

    class Connected(MachineConnection):
        def __init__(self, target: Machine) -> None:
            super().__init__(target.label)
            self._host = target.host
            self._closed = threading.Event()

        def _execute(self, *_: object) -> FinishedCommand:
            raise NotImplementedError

        def run(
            self, *_: object, on_output: Listener | None = None, **__: object
        ) -> FinishedCommand:
            if self._host == "silent":
                following.set()
                assert self._closed.wait(30)
                raise ConnectionLost(self.name, "closed")
            following.wait(30)
            assert on_output is not None
            on_output(b"a line\n")
            return FinishedCommand(0, "", "")

        def close(self) -> None:
            self._closed.set()

    def fail(_: str) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe", STANDARD_OUTPUT)

    monkeypatch.setattr(remote_machine, "connect", Connected)
    monkeypatch.setattr(output, "write", fail)
    machines = tuple(Machine(id=name, host=name) for name in ("silent", "talking"))
    cluster = Cluster(coordinator=Coordinator(addr="10.0.0.1"), machines=machines)
    with pytest.raises(BrokenPipeError):
        fanout.execute(cluster, machines, ["tail"], None)


@pytest.mark.parametrize(("last", "said"), [([], True), (["a problem"], False)])
def test_an_empty_log_of_a_daemon_in_the_background(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], last: list[str], said: bool
) -> None:
    class Remote:
        def __init__(self, _: Cluster, machine: Machine, connection: Any) -> None:
            self.machine, self.connection = machine, connection

        def facts(self) -> None:
            return None

        def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
            assert (operation, arguments["lines"]) == ("daemon.tail", 1)
            return {"lines": last, "path": "/srv/r/daemon.log"}

    class Connected(MachineConnection):
        def __init__(self, target: Machine) -> None:
            super().__init__(target.label)

        def _execute(self, *_: object) -> FinishedCommand:
            raise NotImplementedError

        def run(
            self, *_: object, on_output: Listener | None = None, **__: object
        ) -> FinishedCommand:
            assert on_output is not None
            on_output("".join(f"{line}\n" for line in last).encode())
            return FinishedCommand(0, "", "")

        def close(self) -> None:
            pass

    monkeypatch.setattr(remote_machine, "connect", Connected)
    monkeypatch.setattr(fanout, "RemoteMachine", Remote)
    monkeypatch.setattr(DaemonService, "find", lambda *_: None)
    machines = (Machine(id="robot", host="robot"),)
    cluster = Cluster(coordinator=Coordinator(addr="10.0.0.1"), machines=machines)
    assert fanout.show_logs(cluster, machines, 50, follow=False)
    shown = capsys.readouterr()
    assert ("robot | no warnings were logged: /srv/r/daemon.log is empty" in shown.err) is said
    assert shown.out == "".join(f"robot | {line}\n" for line in last)
