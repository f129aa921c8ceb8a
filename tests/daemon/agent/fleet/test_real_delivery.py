"""Code that is sent to a daemon without the folder: real processes, a real coordinator."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fleets.daemons import RealFleet, real_fleet
from support.runner import log_files
from support.waiting import wait_until
from support.workspace import Workspace

from dora_cli.build.remote import deliver
from dora_cli.coordinator.calls import describe
from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import RequestFailed
from dora_cli.coordinator.start_spec import make_spec
from dora_cli.dataflow_file import load
from dora_cli.live.sending import reload
from dora_cli.shipping.sending import CollectionError
from dora_config.access import state_dir
from dora_config.protocol.control import StartDataflow
from dora_config.protocol.dataflow import DataflowSpec

pytestmark = pytest.mark.integration

READER = """
    from pathlib import Path
    import words
    from dora import Node

    Node()
    here = Path(__file__).parent
    print(words.GREETING, (here / "data" / "name.txt").read_text(), Path.cwd() == here, flush=True)
"""

ROBOT = {"machine": "robot", "distribute": "http"}


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture(scope="module")
def shared_fleet(home: Path, shared_workspace: Workspace) -> Iterator[RealFleet]:
    assert home.is_dir()
    with real_fleet(shared_workspace, "robot") as made:
        yield made


@pytest.fixture
def fleet(shared_fleet: RealFleet) -> Iterator[RealFleet]:
    """A daemon in a folder without code; its coordinator keeps the code of earlier tests."""
    yield shared_fleet
    shared_fleet.end_dataflows()
    shutil.rmtree(shared_fleet.workspace.path / "_work", ignore_errors=True)


def project(workspace: Workspace, nodes: list[dict[str, object]] | None = None) -> Path:
    """Write a node that needs other files of its folder; return its dataflow file.

    The contents differ in each workspace, so that the coordinator has none of the files.
    """
    workspace.file("project/reader.py", READER)
    workspace.file("project/words.py", f'GREETING = "hello"  # {workspace.path}\n')
    workspace.file("project/data/name.txt", "robot")
    reader: dict[str, object] = {"id": "reader", "path": "reader.py", "deploy": ROBOT}
    return workspace.dataflow({"nodes": nodes or [reader]}, "project/dataflow.yml")


def unseen(path: Path, name: str | None = None) -> DataflowSpec:
    """The dataflow as sent to another machine, which does not have the folder."""
    spec = make_spec(load(path), name=name)
    return spec.model_copy(
        update={"origin": spec.origin.model_copy(update={"boot_id": "elsewhere"})}
    )


def start(fleet: RealFleet, path: Path, name: str | None = None) -> str:
    """Send the code and start; return the dataflow's id."""
    with CoordinatorClient(fleet.coordinator.endpoint) as client:
        spec = deliver(client, unseen(path, name))
        return client.request(StartDataflow(spec=spec)).uuid


def laid_out(fleet: RealFleet) -> Path:
    (found,) = (fleet.workspace.path / "_work").iterdir()
    return found


def printed(fleet: RealFleet, uuid: str, node: str = "reader") -> list[str]:
    log = laid_out(fleet) / "out" / uuid / f"log_{node}.jsonl"
    return log_files.texts(log)


def test_a_python_node_finds_its_module_and_its_data_there(
    fleet: RealFleet, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project(workspace)
    first = start(fleet, path)
    fleet.wait_for_status("Finished")
    assert printed(fleet, first) == ["hello robot True"]
    assert "sending" in capsys.readouterr().err
    again = start(fleet, path)
    fleet.wait_for_status("Finished")
    assert printed(fleet, again) == ["hello robot True"]
    assert "sending" not in capsys.readouterr().err, "nothing travels twice"


def test_what_is_left_out_is_noted_once(
    fleet: RealFleet, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project(
        workspace,
        [{"id": name, "path": "reader.py", "deploy": ROBOT} for name in ("one", "two")],
    )
    (path.parent / ".#reader.py").symlink_to("somebody@desk.1")
    os.mkfifo(path.parent / "pipe")
    workspace.file("project/__pycache__/words.pyc", "")
    start(fleet, path)
    fleet.wait_for_status("Finished")
    sent = {path.name for path in laid_out(fleet).rglob("*")}
    assert not sent & {".#reader.py", "pipe", "words.pyc"}
    note = "note: not sent: .#reader.py, __pycache__/, pipe (FIFO) (see .doraignore)\n"
    assert capsys.readouterr().err.count(note) == 1


def test_what_changed_travels_what_is_gone_goes_and_what_nodes_made_stays(
    fleet: RealFleet, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project(workspace)
    workspace.file("project/old/module.py", "")
    start(fleet, path)
    fleet.wait_for_status("Finished")
    (laid_out(fleet) / "calibration").write_text("mine")
    workspace.file("project/words.py", 'GREETING = "goodbye"\n')
    shutil.rmtree(workspace.path / "project" / "old")
    (workspace.path / "project" / "tool").write_text(f"#!/bin/sh\n# {workspace.path}\n")
    (workspace.path / "project" / "tool").chmod(0o755)
    (workspace.path / "project" / "data" / "link.txt").symlink_to("../words.py")
    capsys.readouterr()
    uuid = start(fleet, path)
    fleet.wait_for_status("Finished")
    assert printed(fleet, uuid) == ["goodbye robot True"]
    assert "sending 3 files" in capsys.readouterr().err  # a list, a module, a tool
    there = laid_out(fleet)
    assert not (there / "old").exists()
    assert (there / "calibration").read_text() == "mine"
    assert os.access(there / "tool", os.X_OK)
    assert not os.access(there / "words.py", os.X_OK)
    assert (there / "data" / "link.txt").readlink() == Path("../words.py")


def wheel(folder: Path, version: str) -> str:
    """Write a wheel without a build tool and an index."""
    name = f"helper-{version}-py3-none-any.whl"
    info = f"helper-{version}.dist-info"
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("helper.py", f'VERSION = "{version}"\n')
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: helper\nVersion: {version}\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return name


USES_HELPER = """
    import sys
    import helper, pyarrow
    from dora import Node

    Node()
    print(helper.VERSION, sys.prefix, flush=True)
"""


def test_build_lines_run_there_once_for_the_same_requirements(
    fleet: RealFleet, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    reader: dict[str, object] = {
        "id": "reader",
        "path": "reader.py",
        "build": "pip install --no-index --no-deps -r requirements.txt",
        "deploy": ROBOT,
    }
    path = project(workspace, [reader])
    workspace.file("project/reader.py", USES_HELPER)
    workspace.file("project/requirements.txt", f"./{wheel(workspace.path / 'project', '1.0')}\n")
    uuid = start(fleet, path)
    fleet.wait_for_status("Finished")
    output = capsys.readouterr().out
    assert "pip install --no-index" in output
    environment = laid_out(fleet) / ".dora" / "python-envs" / "reader"
    assert printed(fleet, uuid) == [f"1.0 {environment}"]
    workspace.file("project/reader.py", USES_HELPER + "\n    # changed\n")
    start(fleet, path)
    fleet.wait_for_status("Finished")
    output = capsys.readouterr().out
    assert "built already with the same requirements" in output
    assert "no-index" not in output
    newer = wheel(workspace.path / "project", "2.0")
    workspace.file("project/requirements.txt", f"./{newer}\n")
    uuid = start(fleet, path)
    fleet.wait_for_status("Finished")
    assert printed(fleet, uuid) == [f"2.0 {environment}"]


def test_a_build_line_that_fails_stops_the_start(fleet: RealFleet, workspace: Workspace) -> None:
    reader: dict[str, object] = {
        "id": "reader",
        "path": "reader.py",
        "build": "sh -c 'echo no compiler here; exit 3'",
        "deploy": ROBOT,
    }
    path = project(workspace, [reader])
    before = [one.uuid for one in fleet.listed()]
    with pytest.raises(RequestFailed, match="exit code 3") as problem:
        start(fleet, path)
    assert "no compiler here" in str(problem.value)
    assert [one.uuid for one in fleet.listed()] == before


def test_what_leads_out_of_the_folder_is_refused_and_nothing_is_sent(
    fleet: RealFleet,
    workspace: Workspace,
) -> None:
    path = project(workspace)
    (workspace.path / "secret").write_text("not yours")
    (workspace.path / "project" / "data" / "link").symlink_to("../../secret")
    with pytest.raises(CollectionError, match=r"is a link to .*, outside of"):
        start(fleet, path)
    assert not (fleet.workspace.path / "_work").exists()


def test_a_refused_start_leaves_the_code_of_a_running_dataflow(
    fleet: RealFleet, workspace: Workspace
) -> None:
    reader: dict[str, object] = {
        "id": "reader",
        "path": "reader.py",
        "inputs": {"tick": "dora/timer/secs/1"},
        "deploy": ROBOT,
    }
    path = project(workspace, [reader])
    workspace.file("project/reader.py", "from dora import Node\nfor event in Node(): pass\n")
    start(fleet, path, "app")
    fleet.wait_for_status("Running")
    before = (laid_out(fleet) / "words.py").read_text()
    workspace.file("project/words.py", "GREETING = 'refused'\n")
    with pytest.raises(RequestFailed, match='already a running dataflow with name "app"'):
        start(fleet, path, "app")
    with pytest.raises(RequestFailed, match='other code, of dataflow "app", which runs there'):
        start(fleet, path, "other")
    assert (laid_out(fleet) / "words.py").read_text() == before


@pytest.mark.usefixtures("own_home")
def test_recovery_restores_the_code_without_the_client(workspace: Workspace) -> None:
    """The daemon is killed with its runner, and the code's folder is lost."""
    waits = """
        import words
        from dora import Node
        node = Node()
        print(words.GREETING, flush=True)
        for event in node:
            pass
    """
    clocked: dict[str, object] = {
        "id": "reader",
        "path": "reader.py",
        "inputs": {"tick": "dora/timer/millis/100"},
        "deploy": ROBOT,
    }
    path = project(workspace, [clocked])
    workspace.file("project/reader.py", waits)
    with real_fleet(workspace, "robot") as fleet:
        uuid = start(fleet, path)
        fleet.wait_for_status("Running")
        fleet.daemons["robot"].kill()
        os.kill(fleet.runner_pid(), 9)
        there = laid_out(fleet)
        (there / "words.py").unlink()
        shutil.rmtree(workspace.path / "project")
        fleet.start_daemon("robot")
        wait_until(lambda: (there / "words.py").exists(), what="the code to be back")
        log = there / "out" / uuid / "log_reader.jsonl"
        wait_until(
            lambda: log.exists() and log.read_text().count("hello") >= 2,
            what="the node to run again",
        )


def test_python_is_the_one_that_runs_dora_without_build_lines(
    fleet: RealFleet, workspace: Workspace
) -> None:
    path = project(workspace)
    workspace.file(
        "project/reader.py", "import sys\nfrom dora import Node\nNode()\nprint(sys.executable)\n"
    )
    uuid = start(fleet, path)
    fleet.wait_for_status("Finished")
    assert printed(fleet, uuid) == [sys.executable]


def test_a_machine_that_sees_the_folder_uses_it_as_it_is(
    fleet: RealFleet, workspace: Workspace
) -> None:
    reader: dict[str, object] = {
        "id": "reader",
        "path": "reader.py",
        "build": "sh -c 'echo built >> built'",
        "deploy": ROBOT,
    }
    path = project(workspace, [reader])
    uuid = fleet.start(path)
    fleet.wait_for_status("Finished")
    log = path.parent / "out" / uuid / "log_reader.jsonl"
    assert '"hello robot True"' in log.read_text()
    assert (path.parent / "built").read_text() == "built\n"
    assert not (fleet.workspace.path / "_work").exists()


def test_the_coordinator_serves_the_code_of_a_node_as_an_archive(
    fleet: RealFleet, workspace: Workspace
) -> None:
    """By the id of the build that the command prints, or the dataflow's UUID; with the token."""
    nodes: list[dict[str, object]] = [
        {"id": "reader", "path": "reader.py", "deploy": ROBOT},
        {"id": "local", "path": "reader.py", "deploy": {"machine": "robot"}},
    ]
    flow = project(workspace, nodes)
    long = "data/" + "deep/" * 30 + "leaf.bin"
    workspace.file(f"project/{long}", "x" * 3_000_000)
    (workspace.path / "project" / "tool").write_text("#!/bin/sh\n")
    (workspace.path / "project" / "tool").chmod(0o755)
    (workspace.path / "project" / "data" / "link.txt").symlink_to("../words.py")
    done = fleet.dora("start", flow, "--name", "my-app", "--detach")
    build = done.stdout.split("dataflow build triggered: ")[1].split()[0]
    uuid = done.stdout.split("dataflow started: ")[1].split()[0]
    request = fleet.coordinator.request
    for known in (build, uuid):
        reply = request(f"/api/artifacts/{known}/reader")
        assert reply.status == 200, reply.body
        with tarfile.open(fileobj=io.BytesIO(reply.body)) as archive:
            archive.extractall(workspace.path / known, filter="data")
        there = workspace.path / known
        assert (there / "words.py").read_text().startswith('GREETING = "hello"')
        assert (there / long).stat().st_size == 3_000_000
        assert os.access(there / "tool", os.X_OK)
        assert not os.access(there / "words.py", os.X_OK)
        assert (there / "data" / "link.txt").readlink() == Path("../words.py")
    assert request(f"/api/artifacts/{uuid}/reader", headers={}).status == 401
    for path, sentence in (
        ("other/reader", 'no artifact of node "reader" in build "other"'),
        (f"{uuid}/camera", 'has no node "camera"; its nodes are: reader, local'),
        (f"{uuid}/local", "it was started with `distribute: local`"),
    ):
        reply = request(f"/api/artifacts/{path}")
        assert (reply.status, sentence in reply.body.decode()) == (404, True), reply.body
    for bad in ("..%2freader", "%2e%2e/reader", f"{uuid}/..%2f..%2fetc%2fpasswd", f"{uuid}/.."):
        assert request(f"/api/artifacts/{bad}").status in (400, 404)


def test_code_that_the_coordinator_lost_comes_from_a_machine(
    fleet: RealFleet, workspace: Workspace, tmp_path: Path
) -> None:
    """A standby that takes over has the records, not the files."""
    with CoordinatorClient(fleet.coordinator.endpoint) as client:
        spec = deliver(client, unseen(project(workspace)))
        client.request(StartDataflow(spec=spec))
        fleet.wait_for_status("Finished")
        code = state_dir() / "coordinator" / "files"
        shutil.rmtree(code)
        spare = fleet.start_daemon("spare", env={"XDG_STATE_HOME": str(tmp_path / "empty")})
        try:
            moved = moved_to(spec, "spare")
            uuid = client.request(StartDataflow(spec=moved)).uuid
            fleet.wait_for_status("Finished")
            assert printed(fleet, uuid) == ["hello robot True"]
            archive = fleet.coordinator.request(f"/api/artifacts/{uuid}/reader")
            assert (archive.status, b"GREETING" in archive.body) == (200, True)
            shutil.rmtree(code)
            shutil.rmtree(state_dir() / "code")
            shutil.rmtree(tmp_path / "empty" / "dora" / "code")
            with pytest.raises(RequestFailed, match="nor a machine that is connected to it has"):
                client.request(StartDataflow(spec=moved))
        finally:
            spare.kill()
            del fleet.daemons["spare"]


def moved_to(spec: DataflowSpec, machine: str) -> DataflowSpec:
    """Return the dataflow with all nodes on another machine."""
    text = spec.model_dump_json().replace('"machine":"robot"', f'"machine":"{machine}"')
    return DataflowSpec.model_validate_json(text)


def test_a_reload_sends_the_changed_files_first(fleet: RealFleet, workspace: Workspace) -> None:
    path = project(workspace)
    lasting = READER.replace("Node()\n", "node = Node()\n") + "    for _ in node:\n        pass\n"
    workspace.file("project/reader.py", lasting)
    uuid = start(fleet, path)
    wait_until(lambda: printed(fleet, uuid) == ["hello robot True"], what="the first version")
    (path.parent / "words.py").write_text('GREETING = "hi"\n')
    with CoordinatorClient(fleet.coordinator.endpoint) as client:
        reload(client, uuid, "reader", 1.0)
        found = describe(client, uuid)
    texts = ["hello robot True", "hi robot True"]
    wait_until(lambda: texts == [t for t in printed(fleet, uuid) if "robot" in t], what="both")
    assert found.spec.code.keys() == {"reader"}
    os.kill(fleet.runner_pid(), signal.SIGKILL)  # a recovery runs the changed files
    again = [*texts, "hi robot True"]
    wait_until(lambda: again == [t for t in printed(fleet, uuid) if "robot" in t], what="all")
