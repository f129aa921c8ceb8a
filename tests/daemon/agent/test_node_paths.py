"""Directories of nodes: the folder of the dataflow file where it exists, else one of the daemon."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from support.fleets.stored_files import add
from support.simulation.fleets import dataflow

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedDeploy, ResolvedNode
from dora_config.file_store import FileStore
from dora_config.protocol.calls import PartLinks
from dora_config.protocol.code import CodeFile, CodeSet
from dora_config.protocol.dataflow import DataflowSpec, Origin
from dora_config.protocol.runner import CurrentNode, NodeLocation
from dora_daemon.agent.node_paths import (
    LocalMachine,
    deliver,
    explain,
    has_folder,
    log_dirs,
    make_plan,
)
from dora_daemon.agent.records import PartRecord
from dora_daemon.code.delivery import CodeDelivery, CodeNotDelivered


def origin_of(folder: Path) -> Origin:
    found = folder.stat()
    return Origin(boot_id="boot", directory=str(folder), device=found.st_dev, inode=found.st_ino)


def record(origin: Origin, *nodes: ResolvedNode, **more: object) -> PartRecord:
    spec = dataflow().model_copy(
        update={
            "resolved": ResolvedDataflow(nodes=nodes),
            "origin": origin,
            "workspace": "flow-12345678",
            **more,
        }
    )
    return PartRecord(dataflow_id="d", attempt=1, spec=spec)


NODE = ResolvedNode(id="n", path="n.py")


def test_the_folder_of_the_file_is_used_where_it_is_the_same_folder(tmp_path: Path) -> None:
    machine = LocalMachine(tmp_path / "daemon", "boot")
    origin = origin_of(tmp_path)
    assert has_folder(machine, origin)
    assert make_plan(record(origin, NODE), machine).working_dir == str(tmp_path)


def test_elsewhere_it_is_a_folder_of_the_daemon(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    origin = origin_of(here)
    other_boot = LocalMachine(tmp_path / "daemon", "other boot")
    namesake = origin.model_copy(update={"inode": origin.inode + 1})
    gone = origin.model_copy(update={"directory": str(tmp_path / "gone")})
    unknown = origin.model_copy(update={"boot_id": ""})
    same_boot = LocalMachine(tmp_path / "daemon", "boot")
    expected = str(tmp_path / "daemon" / "_work" / "flow-12345678")
    assert make_plan(record(origin, NODE), other_boot).working_dir == expected
    for stranger in (namesake, gone, unknown):
        assert make_plan(record(stranger, NODE), same_boot).working_dir == expected


def test_directory_is_reported_with_its_rule(tmp_path: Path) -> None:
    made = record(origin_of(tmp_path), NODE)
    here = explain(made, LocalMachine(tmp_path / "daemon", "boot"))
    assert here.startswith(f"relative paths start at {tmp_path}: the folder of the dataflow file")
    there = explain(made, LocalMachine(tmp_path / "daemon", "other"))
    assert f"start at {tmp_path}/daemon/_work/flow-12345678: a folder of the daemon" in there


def test_working_dir_is_joined_or_replaces(tmp_path: Path) -> None:
    machine = LocalMachine(tmp_path / "daemon", "boot")
    nodes = (
        NODE,
        ResolvedNode(id="in", path="x.py", deploy=ResolvedDeploy(working_dir="nodes")),
        ResolvedNode(id="out", path="y.py", deploy=ResolvedDeploy(working_dir="/opt/app")),
    )
    plan = make_plan(record(origin_of(tmp_path), *nodes), machine)
    assert log_dirs(plan) == {
        "n": f"{tmp_path}/out/d",
        "in": f"{tmp_path}/nodes/out/d",
        "out": "/opt/app/out/d",
    }


def test_a_local_build_is_used_only_on_its_machine(tmp_path: Path) -> None:
    places = {"n": NodeLocation(python="/envs/n/bin/python")}
    origin = origin_of(tmp_path)
    built = record(origin, NODE, places=places)
    assert make_plan(built, LocalMachine(tmp_path, "boot")).places == places
    assert make_plan(built, LocalMachine(tmp_path, "other")).places == {}


def test_whether_a_runner_has_all_nodes(tmp_path: Path) -> None:
    made = record(origin_of(tmp_path), NODE)
    machine = LocalMachine(tmp_path, "boot")
    assert make_plan(made, machine).whole
    assert not make_plan(made.model_copy(update={"links": PartLinks(whole=False)}), machine).whole


SENT = ResolvedDeploy(distribute="http")


class SentCode:
    """A machine to which code is sent."""

    def __init__(self, folder: Path) -> None:
        self.store = FileStore(folder / "store")
        self.base = folder / "_work" / "flow-12345678"
        self.folder = folder

    def spec(self, **nodes: dict[str, str]) -> DataflowSpec:
        """Return a dataflow of nodes that were sent with these files."""
        code = {}
        for node, files in nodes.items():
            entries = [
                CodeFile(path=name, sha256=add(self.store, text.encode()), size=len(text))
                for name, text in files.items()
            ]
            code[node] = add(self.store, CodeSet(files=tuple(entries)).text())
        resolved = tuple(ResolvedNode(id=node, path=f"{node}.py", deploy=SENT) for node in nodes)
        return record(Origin(), *resolved, code=code).spec

    def deliver(
        self, spec: DataflowSpec, *running: DataflowSpec, replaces: str | None = None
    ) -> None:
        """Deliver code while dataflows run, whose ids are "0", "1" ..."""
        machine = LocalMachine(
            self.folder,
            "boot",
            code=CodeDelivery(self.store, lambda: pytest.fail("not used")),
            parts=tuple(
                PartRecord(dataflow_id=str(number), attempt=1, spec=one)
                for number, one in enumerate(running)
            ),
        )
        anyio.run(deliver, spec, machine, "build", replaces)

    def files(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.base.iterdir() if path.is_file()}


@pytest.fixture
def sent(tmp_path: Path) -> SentCode:
    return SentCode(tmp_path)


def test_the_code_of_a_running_dataflow_is_not_replaced_by_another(sent: SentCode) -> None:
    running = sent.spec(a={"a.py": "old"}, b={"b.py": "old"})
    sent.deliver(running)
    with pytest.raises(CodeNotDelivered, match=r'of dataflow "0", which runs there; stop it first'):
        sent.deliver(sent.spec(a={"a.py": "new"}, b={"b.py": "old"}), running)
    sent.deliver(running, running)  # the same code
    assert sent.files() == {"a.py": "old", "b.py": "old"}


def test_a_replaced_node_leaves_the_files_of_the_others(sent: SentCode) -> None:
    running = sent.spec(a={"a.py": "old", "words.py": "old"}, b={"b.py": "old", "words.py": "old"})
    sent.deliver(running)
    replacement = sent.spec(a={"a.py": "new", "words.py": "new"})
    sent.deliver(replacement, running, replaces="0")
    assert sent.files() == {"a.py": "new", "b.py": "old", "words.py": "new"}
    current = tuple(
        CurrentNode(node=node, code={**running.code, **replacement.code}[node.id])
        for node in running.resolved.nodes
    )
    sent.deliver(running.with_current(current))  # after a recovery
    assert sent.files() == {"a.py": "new", "b.py": "old", "words.py": "new"}
