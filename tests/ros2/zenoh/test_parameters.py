"""Parameters and type descriptions between two sessions of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ros2.routers import Router
from support.waiting import wait_until

from dora_ros2.connection import RosNode
from dora_ros2.definitions.description import TypeDescription
from dora_ros2.errors import DefinitionError, NoReply, Ros2Error
from dora_ros2.types import Types
from dora_ros2.zenoh.node_services import (
    ParameterServer,
    Value,
    decoded,
    encoded,
    fetch_description,
    find_description,
    parameter_service,
    parameter_type,
    serve_descriptions,
)
from dora_ros2.zenoh.tokens import Attachment

TYPES = Types()
SECONDS = 30
VALUES: Mapping[str, Value] = {
    "rate": 10,
    "gain": 0.5,
    "frame": "map",
    "on": True,
    "raw": b"\x01\xff",
    "camera.size": [640, 480],
    "camera.k": [1.0, 0.5],
    "camera.lens.names": ["a", "ü"],
    "flags": [True, False],
}


def ask(node: RosNode, target: str, word: str, **request: Any) -> dict[str, Any]:
    """Ask a service of the parameters of another node."""
    client = node.service_client(f"{target}/{word}", parameter_service(TYPES, word))
    client.wait_for_server(SECONDS if target != "/nobody" else 0)
    answer: dict[str, Any] = client.ask(request).result(SECONDS)[0].as_py()
    client.close()
    return answer


def test_all_services_of_parameters(router: Router) -> None:
    refusals: dict[str, str] = {"rate": "too fast"}

    def on_set(values: Mapping[str, Value]) -> str | None:
        return next((refusals[name] for name in values if name in refusals), None)

    with router.open() as one, router.open() as other:
        events: list[tuple[bytes, Attachment | None]] = []
        own = RosNode(one, "tool")
        event = TYPES.message("rcl_interfaces/msg/ParameterEvent")
        own.subscription("/parameter_events", event, lambda *got: events.append(got))
        server = ParameterServer(RosNode(other, "camera", "/robot"), TYPES, VALUES, on_set=on_set)

        def camera(word: str, **request: Any) -> dict[str, Any]:
            return ask(own, "/robot/camera", word, **request)

        def listed(*prefixes: str, depth: int = 0) -> list[str]:
            found = camera("list_parameters", prefixes=prefixes, depth=depth)["result"]
            return list(found["names"])

        names = [*VALUES, "none"]
        values = camera("get_parameters", names=names)["values"]
        assert [decoded(value) for value in values] == [*VALUES.values(), None]
        types = camera("get_parameter_types", names=["gain", "none"])["types"]
        assert list(types) == [3, 0]
        assert listed() == list(VALUES)
        assert listed("camera") == ["camera.size", "camera.k", "camera.lens.names"]
        assert listed("camera", depth=1) == ["camera.size", "camera.k"]
        assert listed(depth=1) == ["rate", "gain", "frame", "on", "raw", "flags"]
        described = camera("describe_parameters", names=["gain", "none"])["descriptors"]
        assert [(one["name"], one["type"]) for one in described] == [("gain", 3), ("none", 0)]
        changes: dict[str, Value] = {"gain": 0.25, "rate": 50, "frame": 1, "none": 1}
        parameters = [{"name": name, "value": encoded(value)} for name, value in changes.items()]
        results = camera("set_parameters", parameters=parameters)["results"]
        assert [result["reason"] for result in results] == [
            "",
            "too fast",
            'parameter "frame" has another type (4, not 2)',
            'parameter "none" is not declared',
        ]
        assert [result["successful"] for result in results] == [True, False, False, False]
        assert server.values == {**VALUES, "gain": 0.25}
        wait_until(
            lambda: any(
                change["name"] == "gain" and change["value"]["double_value"] == 0.25
                for payload, _ in events
                for change in event.decode(payload).to_pylist()[0]["changed_parameters"]
            ),
            what="the event",
        )
        services = {name for name in one.graph.services() if name.startswith("/robot/camera/")}
        assert len(services) == 6


def test_setting_several_at_once_is_all_or_nothing(router: Router) -> None:
    with router.open() as session:
        node = RosNode(session, "camera")
        server = ParameterServer(node, TYPES, {"a": 1, "b": 2})
        atomic = TYPES.service("rcl_interfaces/srv/SetParametersAtomically")
        client = node.service_client("~/set_parameters_atomically", atomic)
        assert client.wait_for_server(SECONDS)
        for name, successful in (("none", False), ("b", True)):
            parameters = [
                {"name": one, "value": {"type": 2, "integer_value": 7}} for one in ("a", name)
            ]
            payload = client.call(atomic.request.encode({"parameters": parameters})).result(SECONDS)
            result = atomic.response.decode(payload).to_pylist()[0]["result"]
            assert result["successful"] is successful
            assert server.values == ({"a": 7, "b": 7} if successful else {"a": 1, "b": 2})


def test_values() -> None:
    assert [parameter_type(value) for value in VALUES.values()] == [2, 3, 4, 1, 5, 7, 8, 9, 6]
    assert parameter_type([]) == 9
    assert parameter_type([1, 2.5]) == 8
    wrong: list[Any] = [[1, "a"], {}, [None]]
    for value in wrong:
        with pytest.raises(Ros2Error, match="is not a value of a ROS parameter"):
            parameter_type(value)


def test_a_node_that_is_missing(router: Router) -> None:
    with (
        router.open() as session,
        pytest.raises(NoReply, match="/nobody/get_parameters: no server"),
    ):
        ask(RosNode(session, "tool"), "/nobody", "get_parameters", names=["a"])


def test_types_described_by_their_users(router: Router) -> None:
    pose = TYPES.description("geometry_msgs/msg/PoseStamped")
    with router.open() as one, router.open() as other:
        serve_descriptions(RosNode(other, "talker"), TYPES.description)
        own = RosNode(one, "tool")
        assert one.wait_for(
            lambda graph: "/talker/get_type_description" in graph.services(), SECONDS
        )

        def fetch(name: str, type_hash: str) -> TypeDescription:
            return fetch_description(own, "/talker", name, type_hash)

        described = fetch(pose.name, pose.hash)
        assert described == pose
        assert described.concatenated_text == pose.concatenated_text
        with pytest.raises(DefinitionError, match="/talker does not describe the type"):
            fetch("no_msgs/msg/No", "RIHS01_00")
        with pytest.raises(DefinitionError, match="the hash here is RIHS01_"):
            fetch(pose.name, "RIHS01_00")
        assert not own.endpoints
        with pytest.raises(NoReply, match="no server"):
            fetch_description(own, "/other", pose.name, pose.hash)


def test_a_subscription_needs_no_definition(router: Router, tmp_path: Path) -> None:
    folder = tmp_path / "robot_msgs" / "msg"
    folder.mkdir(parents=True)
    (folder / "Pose.msg").write_text("float64 x\ngeometry_msgs/Point p\n")
    robot_types = Types([tmp_path])
    pose = robot_types.message("robot_msgs/msg/Pose")
    with router.open() as one, router.open() as other:
        robot = RosNode(other, "robot")
        robot.publisher("pose", pose)
        own = RosNode(one, "tool")
        assert one.wait_for(lambda graph: "/pose" in graph.topics(), SECONDS)
        [endpoint] = one.graph.topics()["/pose"].offers
        with pytest.raises(
            DefinitionError, match=r"robot_msgs.*/robot, which uses RIHS01_\w+, does"
        ):
            find_description(own, TYPES, endpoint)
        serve_descriptions(robot, robot_types.description)
        services = "/robot/get_type_description"
        assert one.wait_for(lambda graph: services in graph.services(), SECONDS)
        assert find_description(own, TYPES, endpoint) == pose.description
        (folder / "Pose.msg").write_text("float32 x\n")
        assert find_description(own, Types([tmp_path]), endpoint) == pose.description
