"""Each machine records its own outputs; the files are merged by corrected time."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
from support.dora import RunningDora, running_dora
from support.fleets.daemons import RealFleet, real_fleet
from support.fleets.linked_fleet import ROBOT, STATION, runner_of
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.access import state_dir
from dora_config.protocol.recorders import RecordingPlan
from dora_config.protocol.rest import paths
from dora_config.transfers import DownloadFailed, Downloads, PlainFile
from dora_recordings.arrow_messages import decode
from dora_recordings.reading import Recording
from dora_recordings.recorders.folder import RecordingFolder
from dora_recordings.status_file import is_recording

pytestmark = pytest.mark.integration

COUNTER = """
    import pyarrow as pa
    from dora import Node

    node = Node()
    for number, event in enumerate(node):
        if event["type"] == "INPUT":
            node.send_output("count", pa.array([number]))
"""
SENDER = """
    import pyarrow as pa
    from dora import Node

    node = Node()
    for number in range(200):
        node.send_output("count", pa.array([number]))
"""
ECHO = """
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("echo", event["value"])
"""


def flow(workspace: Workspace, sender: str, **inputs: str) -> Path:
    """A node on the robot whose numbers a node on the station repeats."""
    workspace.node("sender", sender)
    workspace.node("echo", ECHO)
    source = {"source": "sender/count", "queue_policy": "backpressure"}
    nodes = [
        {
            "id": "sender",
            "path": "sender.py",
            "inputs": inputs,
            "outputs": ["count"],
            "deploy": ROBOT,
        },
        {
            "id": "echo",
            "path": "echo.py",
            "inputs": {"count": source},
            "outputs": ["echo"],
            "deploy": STATION,
        },
    ]
    return workspace.dataflow({"nodes": nodes})


def ticking(workspace: Workspace) -> Path:
    return flow(workspace, COUNTER, tick="dora/timer/millis/10")


def folder_of(machine: str) -> RecordingFolder:
    """Return the only recording of a machine."""
    root = state_dir() / "daemon" / machine / "recordings"
    (found,) = wait_until(lambda: RecordingFolder.all(root), what=f"a recording on {machine}")
    return found


def recorder_of(machine: str) -> int:
    """Return the process id of a machine's recorder."""

    def active() -> list[int]:
        statuses = folder_of(machine).statuses()
        return [one.pid for one in statuses if one is not None and is_recording(one)]

    (pid,) = wait_until(active, what=f"a recorder on {machine}")
    return pid


def recorded(machine: str) -> int:
    return sum(folder_of(machine).state(live=True).recorded.values())


def wait_for_more(*machines: str) -> None:
    before = {machine: recorded(machine) for machine in machines}
    for machine in machines:
        wait_until(
            lambda name=machine: recorded(name) > before[name] + 50,  # type: ignore[misc]
            what=f"more messages on {machine}",
        )


def numbers(path: Path) -> dict[str, list[int]]:
    """Return the numbers of each output, in the order of time."""
    found: dict[str, list[int]] = {}
    for message in Recording(path).messages():
        array, _ = decode(message.schema, message.data)
        found.setdefault(message.topic, []).append(array[0].as_py())
    return found


def record(fleet: RealFleet, *words: str | Path) -> Any:
    port = ("--coordinator-port", str(fleet.port))
    return running_dora("record", *words, *port, cwd=fleet.workspace.path)


def finish(recording: RunningDora, code: int) -> str:
    recording.interrupt()
    return recording.wait().exited(code).output


def test_a_dataflow_is_recorded_from_its_first_message_on(workspace: Workspace) -> None:
    target = workspace.path / "all.mcap"
    with real_fleet(workspace, "robot", "station") as fleet:
        with record(fleet, flow(workspace, SENDER), "-o", target) as recording:
            done = recording.wait().succeeded()
        listed = fleet.dora("recording", "list", "-f", "json").stdout
        fleet.dora("recording", "remove", json.loads(listed)["recording"][:8])
        assert fleet.dora("recording", "list", "-f", "json").stdout == ""
    assert "sender/count  200       0" in done.stdout
    assert "echo/echo     200       0" in done.stdout
    everything = list(range(200))
    assert numbers(target) == {"sender/count": everything, "echo/echo": everything}
    facts = Recording(target).facts
    assert facts.source["machine"] == "robot, station"
    assert facts.source["working_dir"] == str(workspace.path)
    assert facts.dataflow is not None
    assert [node["id"] for node in facts.dataflow["nodes"]] == ["sender", "echo"]
    assert {clock["machine"] for clock in facts.clocks} == {"robot", "station"}
    assert all(int(clock["round_trip_ns"]) > 0 for clock in facts.clocks)
    assert not target.with_name("all.mcap.parts").exists()


def test_a_recording_survives_everything_but_its_recorder(workspace: Workspace) -> None:
    target = workspace.path / "all.mcap"
    with real_fleet(workspace, "robot", "station") as fleet:
        uuid = fleet.start(ticking(workspace))
        with record(fleet, "--attach", uuid[:8]) as recording:
            recording.wait_for("on robot, station")
            wait_for_more("robot", "station")
            fleet.coordinator.process.kill()
            recording.wait_for("the machines keep recording")
            wait_for_more("robot", "station")
            fleet.restart_coordinator()
            recording.wait_for("connected to the coordinator again")
            os.kill(runner_of("robot"), signal.SIGKILL)  # recovered, with another recorder
            wait_until(lambda: len(folder_of("robot").statuses()) == 2, what="another recorder")
            wait_for_more("robot", "station")
            pid = recorder_of("station")
            fleet.daemons["station"].kill()
            wait_for_more("station")
            fleet.start_daemon("station")
            assert recorder_of("station") == pid
            assert "fetch it with: dora recording fetch" in finish(recording, 0)
        fleet.daemons["station"].kill()
        fetch = ("record", "fetch", "-o", target)
        missing = fleet.dora(*fetch, code=1)
        assert "no recording of station, which may not be connected" in missing.stderr
        fleet.start_daemon("station")
        done = fleet.dora(*fetch, "--remove")
        assert fleet.dora("recording", "list", "-f", "json").stdout == ""
    assert "robot: " not in done.stderr, "fetched a second time"
    found = numbers(target)
    counts = found["sender/count"]
    restart = counts.index(max(counts)) + 1
    for run in (counts[:restart], counts[restart:]):
        assert run == list(range(run[0], run[0] + len(run)))
    assert f"sender/count  {len(counts)}" in done.stdout
    assert f"echo/echo     {len(found['echo/echo'])}" in done.stdout


def test_what_is_not_recorded_makes_the_exit_code_1(workspace: Workspace) -> None:
    with real_fleet(workspace, "robot", "station") as fleet:
        uuid = fleet.start(ticking(workspace))
        with record(fleet, "--attach", uuid, "-o", workspace.path / "all.mcap") as recording:
            recording.wait_for("on robot, station")
            wait_for_more("robot", "station")
            os.kill(recorder_of("robot"), signal.SIGKILL)
            wait_until(lambda: len(folder_of("robot").statuses()) == 2, what="another recorder")
            file = next(folder_of("station").path.glob("*.mcap"))
            wait_until(lambda: file.stat().st_size > 3000, what="messages on disk")
            size = file.stat().st_size + 1000
            resource.prlimit(recorder_of("station"), resource.RLIMIT_FSIZE, (size, size))
            recording.wait_for("File too large")
            lost = folder_of("station").state(live=True).lost["echo/echo"]
            wait_until(
                lambda: folder_of("station").state(live=True).lost["echo/echo"] > lost + 50,
                what="more messages that are counted",
            )
            wait_for_more("robot")
            listed = fleet.dora("recording", "list").stdout
            stopped = fleet.dora("recording", "stop").stdout
            output = recording.wait().exited(1).output
        fleet.wait_for_status("Running")
        fleet.dora("stop", uuid)
    assert re.search(r"recording +robot, station ", listed)
    assert re.search(r"robot: stopped recording \w{8}\nstation: stopped", stopped)
    assert "station: " in output
    assert output.count("File too large") == 2  # at once, and in the report
    assert "robot: recorder 0 was killed" in output
    (row,) = (line.split() for line in output.splitlines() if line.startswith("echo/echo"))
    found = numbers(workspace.path / "all.mcap")
    assert int(row[1]) == len(found["echo/echo"])
    assert int(row[2]) > 0


def test_a_large_file_is_resumed_after_its_daemon_was_killed(workspace: Workspace) -> None:
    content = random.Random(1).randbytes(64 << 20)
    copy = PlainFile(workspace.path / "copy.mcap", len(content))
    with real_fleet(workspace, "robot") as fleet:
        root = state_dir() / "daemon" / "robot" / "recordings"
        folder = RecordingFolder(root / "01a20e4b-f5a3-4858-99fe-d510d04b9561")
        folder.save(RecordingPlan(recording=folder.path.name))
        (folder.path / "robot-0.mcap").write_bytes(content)
        url = paths.url(paths.RECORDINGS, folder.path.name, "robot", "robot-0.mcap")

        def kill_on_the_way() -> bool:
            if (copy.arrived() or 0) > 8 << 20:
                fleet.daemons["robot"].kill()
            return False

        first = Downloads(fleet.coordinator.endpoint, kill_on_the_way)
        with first, pytest.raises(DownloadFailed, match='daemon "robot"'):
            first.download(url, copy)
        begun = copy.arrived()
        assert begun is not None
        assert 8 << 20 < begun < len(content)
        fleet.start_daemon("robot")
        with Downloads(fleet.coordinator.endpoint) as downloads:
            downloads.download(url, copy)
        part = {**fleet.coordinator.endpoint.headers(), "Range": "bytes=1000-1999"}
        found = fleet.coordinator.request(url, headers=part)
        gone = fleet.coordinator.request(url.replace("robot-0", "robot-1"))
    assert copy.path.read_bytes() == content
    assert (found.status, found.body) == (206, content[1000:2000])
    assert (gone.status, b"robot-1.mcap: No such file" in gone.body) == (500, True)


def test_wrong_names_and_no_coordinator(workspace: Workspace) -> None:
    with real_fleet(workspace, "robot") as fleet:
        unknown = fleet.dora("record", "--attach", "nothing", code=1)
        assert 'no dataflow with name "nothing"' in unknown.stderr
        for command in (("record", "fetch"), ("recording", "stop"), ("recording", "fetch", "x")):
            none = fleet.dora(*command, code=1)
            assert "the connected machines have no recording" in none.stderr
        fleet.coordinator.process.kill()
        gone = fleet.dora("recording", "list", code=1)
        assert "cannot connect to the coordinator" in gone.stderr
