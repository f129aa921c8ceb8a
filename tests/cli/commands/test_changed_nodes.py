"""Commands that change the nodes and edges of a running dataflow, and reload on save."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dora import RunningDora, running_dora
from support.fleets.daemons import RealFleet, counting, real_fleet
from support.fleets.linked_fleet import ROBOT, STATION, runner_of
from support.runner import log_files
from support.waiting import wait_until
from support.workspace import Workspace

pytestmark = pytest.mark.integration

SECOND = {
    "id": "second",
    "path": "collector.py",
    "deploy": STATION,
    "inputs": {"count": {"source": "counter/count", "queue_size": 1000}},
}


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture(scope="module")
def shared_fleet(home: Path, shared_workspace: Workspace) -> Iterator[RealFleet]:
    assert home.is_dir()
    with real_fleet(shared_workspace, None) as made:
        yield made


@pytest.fixture
def fleet(shared_fleet: RealFleet) -> Iterator[RealFleet]:
    """One daemon, without dataflows."""
    yield shared_fleet
    shared_fleet.end_dataflows()


def printed(fleet: RealFleet, node: str) -> list[str]:
    """Return what a node has printed, over all its processes."""
    lines = fleet.dora("logs", "a", "--node", node, "--log-format", "json").stdout.splitlines()
    entries = [json.loads(line) for line in lines]
    return [one["msg"] for one in entries if one["level"] == "stdout"]


def wait_for_more(workspace: Workspace, node: str) -> None:
    """Wait until a node has received more messages."""

    def received() -> int:
        logs = workspace.path.glob(f"out/*/log_{node}.jsonl")
        return sum(text.startswith("got ") for log in logs for text in log_files.texts(log))

    before = received()
    wait_until(lambda: received() > before, what=lambda: f"more messages of {node}")


def inputs_of(fleet: RealFleet, node: str) -> dict[str, str]:
    info = json.loads(fleet.dora("node", "info", node, "-f", "json").stdout)
    found = info["inputs"]
    assert isinstance(found, dict)
    return found


@pytest.mark.usefixtures("own_home")
def test_nodes_and_edges_over_two_machines_survive_everything(workspace: Workspace) -> None:
    file = str(workspace.file("second.yml", json.dumps(SECOND)))
    with real_fleet(workspace, "robot", "station") as fleet:
        fleet.start(counting(workspace, counter=ROBOT, collector=ROBOT), "--name", "a")
        added = fleet.dora("node", "add", "--from-yaml", file)
        assert added.stdout == 'node "second" added on daemon "station"\n'
        wait_for_more(workspace, "second")
        connected = fleet.dora("node", "connect", "second/out", "collector/x", code=1)
        assert 'does not exist; the outputs of "second": none' in connected.stderr
        connected = fleet.dora("node", "connect", "counter/count", "second/more")
        assert connected.stdout == "connected counter/count to second/more\n"
        wired = {"count": "counter/count", "more": "counter/count"}
        assert inputs_of(fleet, "second") == wired

        os.kill(runner_of("station"), signal.SIGKILL)
        wait_for_more(workspace, "second")
        fleet.coordinator.process.kill()
        fleet.restart_coordinator()
        wait_until(lambda: len(fleet.cluster().machines) == 2, what="both daemons")
        fleet.wait_for_status("Running")
        assert inputs_of(fleet, "second") == wired
        wait_for_more(workspace, "second")
        assert "->" in fleet.dora("restart", "a").stdout
        wait_for_more(workspace, "second")

        cut = fleet.dora("node", "disconnect", "counter/count", "second/count")
        assert cut.stdout == "disconnected counter/count from second/count\n"
        assert inputs_of(fleet, "second") == {"more": "counter/count"}
        assert fleet.dora("node", "remove", "second").stdout == 'node "second" removed\n'
        assert {row["node"] for row in _rows(fleet)} == {"counter", "collector"}
        wait_for_more(workspace, "collector")


def _rows(fleet: RealFleet) -> list[dict[str, object]]:
    listed = fleet.dora("node", "list", "-f", "json").stdout
    return [json.loads(line) for line in listed.splitlines()]


def test_a_replacement_that_fails_changes_nothing(fleet: RealFleet, workspace: Workspace) -> None:
    workspace.node("broken", "raise SystemExit('no good')")
    new = {"id": "collector", "path": "broken.py", "inputs": {"count": "counter/count"}}
    file = workspace.file("new.yml", json.dumps(new))
    fleet.start(counting(workspace), "--name", "a")
    before = _rows(fleet)
    refused = fleet.dora("node", "replace", "collector", "--from-yaml", file, code=1).stderr
    assert "exited before connecting: no good" in refused
    assert [row["pid"] for row in _rows(fleet)] == [row["pid"] for row in before]
    another = workspace.file("another.yml", json.dumps({**new, "id": "another"}))
    refused = fleet.dora("node", "add", "--from-yaml", another, code=1).stderr
    assert "exited with code 1" in refused
    assert "no good" in fleet.dora("logs", "a", "--node", "another").stdout
    unknown = fleet.dora("logs", "a", "--node", "anothr", code=1).stderr
    assert 'has no node "anothr"; its nodes are: collector, counter' in unknown
    file.write_text(json.dumps({**new, "path": "collector.py", "args": "x"}))
    replaced = fleet.dora("node", "replace", "collector", "--from-yaml", file).stdout
    assert replaced.startswith('node "collector" replaced on daemon ')
    wait_for_more(workspace, "collector")
    got = [int(line.split()[1]) for line in printed(fleet, "collector") if "got" in line]
    assert got == list(range(len(got)))
    for words in (("remove", "nope"), ("connect", "counter", "collector/x")):
        assert fleet.dora("node", *words, code=2 if words[0] == "connect" else 1).stderr


def edit(path: Path, old: str, new: str) -> None:
    """Save a file as editors do: write another one and rename it."""
    other = path.with_name(f".{path.name}.swp")
    other.write_text(path.read_text().replace(old, new))
    other.replace(path)


def reloads(running: RunningDora, workspace: Workspace) -> None:
    """Save a helper module with errors, then without: the node is replaced once."""
    helper = workspace.path / "words.py"
    running.wait_for("node 'first")
    edit(helper, '"""first"""', "(")
    running.wait_for("words.py:1: '(' was never closed; node \"talker\" keeps running")
    edit(helper, "(", "second")
    running.wait_for("was not reloaded: the new process of node")
    running.wait_for("NameError: name 'second' is not defined")
    edit(helper, "second", "'second'")
    running.wait_for('reloaded node "talker"')
    running.wait_for("node 'second after first")


WATCHED = {
    "nodes": [{"id": "talker", "path": "talker.py", "inputs": {"tick": "dora/timer/millis/50"}}]
}

TALKER = """
    from dora import Node
    import words
    node = Node()
    state = node.load_state()
    print("node '" + words.WORD, "after", "nothing" if state is None else bytes(state).decode())
    for event in node:
        pass
    node.save_state(words.WORD.encode())
"""


def watched(workspace: Workspace) -> Path:
    workspace.node("talker", TALKER)
    workspace.file("words.py", 'WORD = """first"""\n')
    return workspace.dataflow(WATCHED)


@pytest.mark.usefixtures("own_home")
def test_run_reloads_a_node_on_save(workspace: Workspace) -> None:
    path = watched(workspace)
    with running_dora("run", path, "--watch", cwd=workspace.path) as running:
        reloads(running, workspace)
        running.interrupt()
        assert running.wait().code == 0


def reloads_an_added_node(running: RunningDora, workspace: Workspace, fleet: RealFleet) -> None:
    workspace.node("later", "from dora import Node\nfor event in Node():\n    pass\n")
    node = {"id": "later", "path": "later.py", "inputs": {"tick": "dora/timer/millis/50"}}
    fleet.dora("node", "add", "--from-yaml", workspace.file("later.yml", json.dumps(node)))
    running.wait_for('watching the files of node "later"')
    edit(workspace.path / "later.py", "pass", "event")
    running.wait_for('reloaded node "later"')


def test_start_reloads_a_node_on_save(fleet: RealFleet, workspace: Workspace) -> None:
    path = watched(workspace)
    detached = fleet.dora("start", path, "--hot-reload", "--detach", code=2)
    assert "remove --detach" in detached.stderr
    words = ("start", path, "--hot-reload", "--coordinator-port", str(fleet.port))
    with running_dora(*words, cwd=workspace.path) as running:
        reloads(running, workspace)
        reloads_an_added_node(running, workspace, fleet)
        running.interrupt()
        assert running.wait().code == 0
