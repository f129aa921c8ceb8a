"""Builds on daemons: real processes, killed at every place; what is built is what is started."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dora import RunningDora, running_dora
from support.fleets.daemons import RealFleet, end_runners, is_running, real_fleet
from support.git_repository import Repository
from support.runner.linked import children
from support.waiting import wait_until
from support.workspace import Workspace

from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import RequestFailed
from dora_cli.coordinator.start_spec import make_spec
from dora_cli.dataflow_file import load
from dora_config.protocol.builds import BuildDataflow
from dora_config.protocol.control import StartDataflow
from dora_config.protocol.dataflow import DataflowSpec, Origin
from dora_daemon.process_tree.runtime_dir import runtime_root

pytestmark = pytest.mark.integration

SHOWS_WHERE = """
    from pathlib import Path
    from dora import Node

    Node()
    print("runs in", Path.cwd(), "built", Path("built").exists(), flush=True)
"""

NOTES_WHERE = """# {name}
import os
from pathlib import Path
from dora import Node
node = Node()
with Path(os.environ["NOTES"]).open("a") as file:
    print(Path(__file__).parent.name, Path("built").read_text(), file=file)
for event in node:
    pass
"""

LINGERS = """
    import os, signal
    from pathlib import Path

    Path("pids").write_text(str(os.getpid()))
    print("lingering", flush=True)
    signal.pause()
"""


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture(scope="module")
def fleet(home: Path, shared_workspace: Workspace) -> Iterator[RealFleet]:
    """Two daemons; the tests have workspaces of their own."""
    assert home.is_dir()
    with real_fleet(shared_workspace, "robot", "station") as made:
        yield made


def on(machine: str, node: str, **fields: object) -> dict[str, object]:
    return {"id": node, "path": f"{node}.py", "deploy": {"machine": machine}, **fields}


def lingering(workspace: Workspace) -> Path:
    """A dataflow whose build does not end."""
    workspace.file("linger.py", LINGERS)
    workspace.node("left", SHOWS_WHERE)
    return workspace.dataflow({"nodes": [on("robot", "left", build="python3 linger.py")]})


def command_of_a_build(fleet: RealFleet, flow: Path) -> tuple[RunningDora, int]:
    """A build whose only command does not end, and the pid of that command."""
    words = ("build", flow, "--coordinator-port", str(fleet.port))
    running = fleet.stack.enter_context(running_dora(*words, cwd=flow.parent))
    running.wait_for("lingering")
    return running, int((flow.parent / "pids").read_text())


def test_each_daemon_builds_its_own_nodes_and_start_uses_them(
    fleet: RealFleet, workspace: Workspace
) -> None:
    for node in ("left", "right"):
        workspace.node(node, SHOWS_WHERE)
    left = on("robot", "left", build="python3 -c \"print('made left')\"\ntouch built")
    left["deploy"] = {"machine": "robot", "working_dir": "robot-files"}
    workspace.node("robot-files/left", SHOWS_WHERE)
    flow = workspace.dataflow({"nodes": [left, on("station", "right", build="touch built")]})
    done = fleet.dora("build", flow).stdout
    build_id = done.split("dataflow build triggered: ")[1].split()[0]
    assert f"build finished successfully: {build_id}" in done
    assert "robot/left: touch built" in done
    assert "robot/left:   made left" in done
    assert "station/right: ready after" in done
    uuid = fleet.start(flow)
    assert fleet.wait_for_status("Finished").uuid == uuid
    logs = fleet.dora("logs", uuid).stdout
    assert f"left: runs in {workspace.path}/robot-files built True" in logs
    assert f"right: runs in {workspace.path} built True" in logs


def test_failures_of_all_daemons_are_named_at_once(fleet: RealFleet, workspace: Workspace) -> None:
    for node in ("left", "right", "third"):
        workspace.node(node, SHOWS_WHERE)
    nodes = [
        on("robot", "left", build="sh -c 'echo no compiler; exit 3'"),
        on("station", "right", build="no-such-program"),
        on("station", "third", build="touch built"),
    ]
    flow = workspace.dataflow({"nodes": nodes})
    failed = fleet.dora("build", flow, code=1)
    assert 'daemon "robot", node "left": build line' in failed.stderr
    assert failed.stdout.count("no compiler\n") == 1
    assert "no compiler\n" not in failed.stderr
    assert 'daemon "station", node "right": build line' in failed.stderr
    assert "the program 'no-such-program' is not on PATH" in failed.stderr
    assert "third" not in failed.stderr
    assert "finished" not in failed.output


def require_nothing_left(command: int) -> None:
    """Wait until the command of a build and its runtime directory are gone."""
    wait_until(lambda: not is_running(command), what="the command of the build to end")
    wait_until(
        lambda: not [p for p in runtime_root().iterdir() if p.name.isdigit()],
        what="the directory of the build to go",
    )


@pytest.mark.parametrize("victim", ["cli", "build"])
def test_a_killed_process_of_a_build_leaves_nothing(
    fleet: RealFleet, workspace: Workspace, victim: str
) -> None:
    running, pid = command_of_a_build(fleet, lingering(workspace))
    if victim == "cli":
        running.kill()
    else:
        (builder,) = children(fleet.daemons["robot"].pid, "dora_daemon.build")
        os.kill(builder, signal.SIGKILL)
        assert "its build ended unexpectedly" in running.wait().exited(1).stderr
    require_nothing_left(pid)


@pytest.mark.usefixtures("own_home")
@pytest.mark.parametrize("victim", ["daemon", "coordinator"])
def test_a_build_ends_with_the_daemon_or_the_coordinator(workspace: Workspace, victim: str) -> None:
    with real_fleet(workspace, "robot") as fleet:
        running, pid = command_of_a_build(fleet, lingering(workspace))
        if victim == "daemon":
            fleet.daemons["robot"].kill()
            assert "the connection was lost during the build" in running.wait().exited(1).stderr
        else:
            fleet.coordinator.process.kill()
            assert "lost the connection" in running.wait().exited(1).stderr
        require_nothing_left(pid)


def test_builds_in_one_folder_wait_for_each_other(fleet: RealFleet, workspace: Workspace) -> None:
    slow = lingering(workspace)
    quick = workspace.dataflow({"nodes": [on("robot", "left", build="touch built")]}, "quick.yml")
    first, _ = command_of_a_build(fleet, slow)
    words = ("build", quick, "--coordinator-port", str(fleet.port))
    with running_dora(*words, cwd=workspace.path) as second:
        second.wait_for("dataflow build triggered")
        assert not (workspace.path / "built").exists()
        first.interrupt()
        assert "interrupted, also on the daemons" in first.wait().exited(130).stderr
        second.wait().succeeded()
    assert (workspace.path / "built").exists()


def test_two_daemons_of_one_machine_build_one_after_another(
    fleet: RealFleet, workspace: Workspace
) -> None:
    """They share the interpreter that `pip install` would install into."""
    slow = lingering(workspace)
    workspace.node("right", SHOWS_WHERE)
    built = on("station", "right", build="touch built")
    quick = workspace.dataflow({"nodes": [built]}, "quick.yml")
    first, _ = command_of_a_build(fleet, slow)
    words = ("build", quick, "--coordinator-port", str(fleet.port))
    with running_dora(*words, cwd=workspace.path) as second:
        second.wait_for("station/right: waits for another build on this machine")
        assert not (workspace.path / "built").exists()
        first.kill()
        second.wait().succeeded()
    assert (workspace.path / "built").exists()


def from_elsewhere(flow: Path, **changes: object) -> DataflowSpec:
    """What the command line of another machine would send, whose folders exist on no daemon."""
    return make_spec(load(flow)).model_copy(update={"origin": Origin(), **changes})


@pytest.mark.usefixtures("own_home")
def test_recovery_uses_the_build_of_the_first_start(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A machine without the file clones below its own folder, and stays with that
    clone when it loses power, whatever has been built since.
    """
    repository = Repository(tmp_path_factory.mktemp("remote") / "nodes.git")
    notes = workspace.path / "notes"
    first = repository.commit(NOTES_WHERE.format(name="first"))
    node: dict[str, object] = {
        "id": "left",
        "path": "node.py",
        "git": repository.url,
        "branch": "main",
        "build": "sh -c 'echo -n made > built'",
        "env": {"NOTES": str(notes)},
        "inputs": {"tick": "dora/timer/secs/1"},
        "deploy": {"machine": "robot"},
    }
    flow = workspace.dataflow({"nodes": [node]})
    with (
        real_fleet(workspace, "robot") as fleet,
        CoordinatorClient(fleet.coordinator.endpoint) as client,
    ):
        with pytest.raises(RequestFailed, match=r"git source.* was not cloned for this machine"):
            client.request(StartDataflow(spec=from_elsewhere(flow)))
        built = client.request(BuildDataflow(spec=from_elsewhere(flow)))
        assert [(one.daemon, one.commit) for one in built.nodes] == [("robot", first)]
        spec = from_elsewhere(flow, build_id=built.build_id, built_on={"left": "robot"})
        client.request(StartDataflow(spec=spec))
        wait_until(lambda: notes.exists() and notes.read_text() == f"{first} made\n")
        assert [path.name for path in (workspace.path / "_work").iterdir()] == [spec.workspace]

        second = repository.commit(NOTES_WHERE.format(name="second"))
        again = client.request(BuildDataflow(spec=from_elsewhere(flow)))
        assert again.nodes[0].commit == second
        fleet.daemons["robot"].kill()
        end_runners()
        fleet.start_daemon("robot")
        wait_until(lambda: notes.read_text() == f"{first} made\n" * 2, what="the node to be back")


def test_a_build_that_is_gone_is_named(fleet: RealFleet, workspace: Workspace) -> None:
    workspace.node("left", SHOWS_WHERE)
    flow = workspace.dataflow({"nodes": [on("robot", "left", build="touch built")]})
    with CoordinatorClient(fleet.coordinator.endpoint) as client:
        missing = "01234567-89ab-cdef-0123-456789abcdef"
        spec = from_elsewhere(flow, build_id=missing, built_on={"left": "robot"})
        with pytest.raises(RequestFailed, match=f"build {missing} is not on this machine"):
            client.request(StartDataflow(spec=spec))
