"""Operations of the REST API against the state machines of a coordinator and its daemons."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import pytest
from support.simulation.fleets import SimulatedFleet, dataflow, fleet_of, running_dataflows

from dora_config.protocol import control
from dora_config.protocol.envelope import Message, Query, Request
from dora_config.protocol.rest.errors import STATUSES, OperationFailed
from dora_config.protocol.rest.operations import OPERATIONS, body_arguments

BY_NAME = {one.name: one for one in OPERATIONS}
A = TypeVar("A", bound=Message)


def run(fleet: SimulatedFleet, operation_name: str, /, **arguments: object) -> Any:
    """Return the result as JSON data; a refused request raises OperationFailed."""
    operation = BY_NAME[operation_name]

    async def send(request: Request[A]) -> A:
        assert operation.method == "POST" or isinstance(request, Query), "GET changes nothing"
        number = fleet.request(cast(control.ControlRequest, request))
        fleet.settle()
        await fleet.wait_for(number)
        if number in fleet.failures:
            failure = fleet.failures[number]
            raise OperationFailed(failure.code, failure.message)
        answer = fleet.answers[number]
        assert isinstance(answer, request.answer_type())
        return answer

    result: Any = fleet.run(operation.run(operation.parse({}, arguments), send))
    return result.model_dump(mode="json")


def refusal(fleet: SimulatedFleet, operation_name: str, /, **arguments: object) -> tuple[int, str]:
    with pytest.raises(OperationFailed) as refused:
        run(fleet, operation_name, **arguments)
    return STATUSES[refused.value.code], str(refused.value)


def test_dataflows_are_filtered_by_status_and_name() -> None:
    fleet, _ = running_dataflows("front", "rear")
    run(fleet, "stopDataflow", dataflow="rear")

    def names(**wanted: str) -> list[str]:
        return [row["name"] for row in run(fleet, "listDataflows", **wanted)["dataflows"]]

    assert names() == ["front", "rear"]
    assert names(status="running") == ["front"]
    assert names(status="finished") == ["rear"]
    assert names(status="failed") == []
    assert names(name="ea") == ["rear"]


def test_one_dataflow_is_found_by_name_or_uuid() -> None:
    fleet, daemon = running_dataflows("a", "b")
    found = run(fleet, "getDataflow", dataflow="b")
    assert (found["name"], found["status"], found["daemons"]) == ("b", "Running", [daemon.key])
    assert run(fleet, "getDataflow", dataflow=found["uuid"])["name"] == "b"
    specification = run(fleet, "getSpecification", dataflow="b")
    assert specification["daemons"] == {"source": daemon.key, "sink": daemon.key}
    assert refusal(fleet, "getDataflow", dataflow="c") == (404, 'no dataflow with name "c"')


def test_a_dataflow_and_a_refused_start_are_explained_by_name() -> None:
    fleet, _ = running_dataflows("a")
    assert run(fleet, "explainDataflow", dataflow="a")["summary"] == "nothing is wrong"
    status, text = refusal(fleet, "explainDataflow", dataflow="b")
    assert (status, text) == (404, 'no dataflow with name "b"')
    fleet.start(dataflow(camera="missing").model_copy(update={"name": "b"}))
    explained = run(fleet, "explainDataflow", dataflow="b")
    assert explained["status"] == "Not started"
    assert explained["cause"]["text"].startswith("the dataflow could not be placed: ")


def test_stop_names_the_ended_dataflows() -> None:
    fleet, _ = running_dataflows("a", "b")
    status, sentence = refusal(fleet, "stopDataflows")
    assert (status, "several dataflows are running" in sentence) == (409, True)
    stopped = run(fleet, "stopDataflows", dataflow="a")["dataflows"]
    assert [(one["name"], one["ok"]) for one in stopped] == [("a", True)]
    assert [one["name"] for one in run(fleet, "stopDataflows", all=True)["dataflows"]] == ["b"]
    assert refusal(fleet, "stopDataflows", all=True) == (404, "No dataflows are running.")
    cleaned = run(fleet, "forgetEndedDataflows")["dataflows"]
    assert [row["name"] for row in cleaned] == ["a", "b"]


def test_contradicting_arguments_are_refused() -> None:
    fleet, _ = running_dataflows("a")
    for name in ("stopDataflow", "restartDataflow"):
        assert refusal(fleet, name, dataflow="a", force=True, grace=1)[0] == 400
    assert refusal(fleet, "stopDataflows", dataflow="a", all=True)[0] == 400
    assert refusal(fleet, "listMachines", label="arm") == (
        400,
        'label: "arm": expected KEY=VALUE',
    )


def test_restart_and_start_of_an_ended_dataflow() -> None:
    fleet, _ = running_dataflows("a")
    restarted = run(fleet, "restartOnlyDataflow")
    assert restarted["old"] != restarted["new"]
    status, sentence = refusal(fleet, "startDataflowAgain", dataflow="a")
    assert (status, "is running already" in sentence) == (409, True)
    run(fleet, "stopDataflow", dataflow="a")
    started = run(fleet, "startDataflowAgain", dataflow="a")
    assert run(fleet, "getDataflow", dataflow="a")["uuid"] == started["uuid"]


def test_a_descriptor_is_started_on_the_machines_that_it_names() -> None:
    fleet = fleet_of("robot")
    descriptor: dict[str, object] = {
        "nodes": [{"id": "camera", "path": "camera.py", "deploy": {"machine": "robot"}}]
    }
    started = run(fleet, "startDataflow", descriptor=descriptor, name="demo")
    found = run(fleet, "getDataflow", dataflow="demo")
    assert (found["uuid"], found["daemons"]) == (started["uuid"], ["robot"])
    conflict = refusal(fleet, "startDataflow", descriptor=descriptor, name="demo")
    assert conflict[0] == 409
    text = "nodes:\n  - {id: camera, path: camera.py, deploy: {machine: car}}\n"
    status, sentence = refusal(fleet, "startDataflow", descriptor=text)
    assert (status, 'no matching daemon for machine id "car"' in sentence) == (409, True)


def test_an_invalid_descriptor_is_refused_with_its_place() -> None:
    fleet = fleet_of("robot")
    text = "nodes:\n  - id: camera\n    pth: camera.py\n"
    status, sentence = refusal(fleet, "startDataflow", descriptor=text)
    assert status == 400
    assert sentence.startswith("invalid dataflow:\ndataflow.yml:3:5: ")
    unset = "nodes:\n  - {id: camera, path: camera.py, env: {A: $SPEED}}\n"
    assert "$SPEED is not defined" in refusal(fleet, "startDataflow", descriptor=unset)[1]
    for folder in ("relative", "/does/not/exist", "/\0"):
        refused = refusal(fleet, "startDataflow", descriptor=text, directory=folder)
        assert refused[0] == 400
        assert refused[1].startswith("directory: ")
    assert (
        refusal(fleet, "startDataflow", descriptor=unset, env={"SPEED": "1"}, name="\x07")[0] == 400
    )
    for env in ({"A=B": "x"}, {"": "x"}, {"A": "\0"}):
        status, sentence = refusal(fleet, "startDataflow", descriptor="nodes: []", env=env)
        assert (status, sentence.startswith("env.")) == (400, True), sentence


@pytest.mark.parametrize("text", [rb"\ud800", b"\xed\xa0\x80", b"\xff"])
def test_a_body_that_is_not_unicode_is_refused(text: bytes) -> None:
    assert body_arguments(rb'{"name": "\ud83d\ude00"}') == {"name": "\N{GRINNING FACE}"}
    with pytest.raises(OperationFailed, match="is not valid JSON"):
        body_arguments(b'{"name": "%s"}' % text)


def test_machines_are_filtered_by_connection_and_label() -> None:
    fleet = fleet_of("robot")
    fleet.add_daemon("car", "car", arm="left")
    fleet.settle()

    def ids(**wanted: object) -> list[str]:
        return [one["daemon"] for one in run(fleet, "listMachines", **wanted)["machines"]]

    assert sorted(ids()) == ["car", "robot"]
    assert ids(label="arm=left") == ["car"]
    assert ids(label=["arm=left", "arm=right"]) == []
    fleet.kill_daemon(fleet.daemons["car"])
    assert ids(connected="true") == ["robot"]
    assert run(fleet, "getMachine", machine="car")["connected"] is False
    assert refusal(fleet, "getMachine", machine="bus")[1].startswith('no machine "bus"; known')
    assert run(fleet, "getStatus")["active_dataflows"] == 0


def test_nodes_are_filtered_and_found() -> None:
    fleet, daemon = running_dataflows("a", "b")
    rows = run(fleet, "listNodes", dataflow="a")["nodes"]
    assert [row["node"] for row in rows] == ["source", "sink"]
    assert run(fleet, "listNodes", machine="elsewhere")["nodes"] == []
    assert len(run(fleet, "listNodes", machine=daemon.key)["nodes"]) == 4
    assert run(fleet, "getNode", node="sink", dataflow="b")["dataflow_name"] == "b"
    assert refusal(fleet, "getNode", node="sink")[0] == 409
    assert refusal(fleet, "getNode", node="camera", dataflow="b") == (
        404,
        'the dataflow has no node "camera"; its nodes are: sink, source',
    )
    assert refusal(fleet, "restartNode", node="camera", dataflow="b")[0] == 404
