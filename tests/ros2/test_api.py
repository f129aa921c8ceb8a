"""The classes `dora.Ros2*`, two nodes of which talk to each other."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any, cast

import pyarrow as pa
import pytest
from ros2.routers import running_router
from support.waiting import wait_until

import dora
from dora_ros2.api import Ros2Context, Ros2Node, Ros2NodeOptions, Ros2QosPolicies, Ros2Transport

QOS = Ros2QosPolicies(reliable=True, keep_last=10)


@pytest.fixture(scope="module")
def ros() -> Iterator[tuple[Ros2Node, Ros2Node]]:
    with running_router() as router, pytest.MonkeyPatch.context() as patched:
        override = f'connect/endpoints=["{router.endpoint}"]'
        patched.setenv("ZENOH_CONFIG_OVERRIDE", override)
        contexts = [Ros2Context(transport=Ros2Transport.zenoh("rep2016")) for _ in range(2)]
        options = Ros2NodeOptions(rosout=True)
        yield (
            contexts[0].new_node("one", "/", options, {"speed": 1.5}),
            contexts[1].new_node("two", "/", options),
        )
        for context in contexts:
            context._connection.close()


Pair = tuple[Ros2Node, Ros2Node]


def test_the_names_of_dora() -> None:
    names = [name for name in dora.__all__ if name.startswith("Ros2")]
    assert len(names) == 14
    assert all(getattr(dora, name).__name__ == name for name in names)
    assert Ros2Transport.dds().kind == "dds"
    with pytest.raises(ValueError, match="must be `humble` or `rep2016`"):
        Ros2Transport.zenoh("foxy")
    assert repr(dora.Ros2Durability.Volatile) == "Ros2Durability.Volatile"


def test_topics(ros: Pair) -> None:
    one, two = ros
    topic = one.create_topic("/chat", "std_msgs::String", QOS)
    subscription = two.create_subscription(topic)
    assert subscription.next() is None
    publisher = one.create_publisher(topic)
    received: list[str] = []

    def heard() -> list[str]:
        publisher.publish(pa.array([{"data": "x"}]))
        while (message := subscription.next()) is not None:
            received.append(message[0]["data"].as_py())
        return received

    wait_until(heard)
    with pytest.raises(RuntimeError, match="dat"):
        publisher.publish(pa.array([{"dat": "x"}]))
    with pytest.raises(TypeError):
        publisher.publish("x")
    with pytest.raises(RuntimeError, match="not a valid ROS name"):
        one.create_topic("a b", "std_msgs/String", QOS)


def test_services(ros: Pair) -> None:
    one, two = ros
    server = one.create_service_server("/add", "example_interfaces/AddTwoInts", QOS)
    assert server.take_request(0.05) is None

    def serve() -> None:
        found = server.take_request(20)
        assert found is not None
        asked = found[1][0].as_py()
        server.send_response(found[0], pa.array([{"sum": asked["a"] + asked["b"]}]))

    thread = threading.Thread(target=serve)
    thread.start()
    client = two.create_service_client("/add", "example_interfaces/AddTwoInts", QOS)
    assert client.call(pa.array([{"a": 2, "b": 3}]), 20)[0]["sum"].as_py() == 5
    thread.join()
    with pytest.raises(RuntimeError, match="unknown request_id 7"):
        server.send_response(7, pa.array([{"sum": 1}]))


def test_actions(ros: Pair) -> None:
    one, two = ros
    server = one.create_action_server("/fib", "example_interfaces/Fibonacci", QOS)
    client = two.create_action_client("/fib", "example_interfaces/Fibonacci", QOS)
    key = client.send_goal(pa.array([{"order": 2}]), 20)
    assert server.take_goal(20) == (
        key,
        pa.array([{"order": 2}], pa.struct([("order", pa.int32())])),
    )
    server.send_feedback(key, pa.array([{"sequence": [0]}]))
    feedback = client.take_feedback(key, 20)
    assert feedback is not None
    assert feedback.to_pylist() == [{"sequence": [0]}]
    assert client.take_result(key, 0.1) is None
    assert client.cancel(key) == 0
    assert server.take_cancel(20) == [key]
    server.send_result(key, pa.array([{"sequence": [0, 1]}]), "canceled")  # it was requested above
    result = client.take_result(key, 20)
    assert result is not None
    assert (result[0], result[1].to_pylist()) == ("canceled", [{"sequence": [0, 1]}])
    with pytest.raises(RuntimeError, match="unknown goal_id"):
        client.take_result(key)


def test_a_result_is_sent_once_it_was_fetched(ros: Pair) -> None:
    """As in dora-rs: a server may end after its last `send_result`."""
    one, two = ros
    server = one.create_action_server("/late", "example_interfaces/Fibonacci", QOS)
    client = two.create_action_client("/late", "example_interfaces/Fibonacci", QOS)
    key = client.send_goal(pa.array([{"order": 2}]), 20)
    assert server.take_goal(20) is not None
    done = pa.array([{"sequence": [0, 1]}])
    with pytest.raises(RuntimeError, match=f"goal {key} was not requested within 0.1 s"):
        server.send_result(key, done, timeout_s=0.1)
    returned = threading.Event()

    def send_again() -> None:
        server.send_result(key, done, timeout_s=30)
        returned.set()

    thread = threading.Thread(target=send_again)
    thread.start()
    assert not returned.wait(0.1)
    result = client.take_result(key, 20)
    assert result is not None
    assert result[0] == "succeeded"
    thread.join(20)
    assert returned.is_set()
    with pytest.raises(RuntimeError, match="it has a result"):
        server.send_result(key, done)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"keep_last": 0}, "keep_last must be 1 to 10000, not 0"),
        ({"keep_last": 2.5}, "integer"),
        ({"reliable": 1}, "reliable must be a bool, not 1"),
        ({"durability": "volatile"}, "durability must be a Ros2Durability"),
        ({"lease_duration": math.nan}, "lease_duration must be more than 0 s"),
        ({"lease_duration": -1.0}, "lease_duration must be more than 0 s"),
        ({"max_blocking_time": -1.0}, "max_blocking_time must be at least 0 s"),
    ],
)
def test_values_of_qos(values: dict[str, Any], problem: str) -> None:
    with pytest.raises((TypeError, ValueError), match=problem):
        Ros2QosPolicies(**values)
    assert Ros2QosPolicies(lease_duration=math.inf).qos.lease is None


def test_refused_parameters_leave_no_node(ros: Pair) -> None:
    connection, types = ros[0]._connection, ros[0]._types
    for parameters in ({"use_sim_time": True}, {"x": cast(Any, object())}):
        with pytest.raises(RuntimeError):
            Ros2Node(connection, types, "refused", "/", parameters)
    Ros2Node(connection, types, "later", "/", {})
    graph = ros[1]._connection
    assert graph.wait_for(lambda graph: "later" in str(graph.texts()), 20)
    names = [node.name for node in graph.graph.nodes()]
    assert names == ["later", "one", "two"]
    with pytest.raises(RuntimeError, match="a node of dora has no clock"):
        ros[0].set_parameter("use_sim_time", True)


def test_parameters(ros: Pair) -> None:
    one, _ = ros
    assert one.list_parameters() == ["speed", "use_sim_time"]
    assert one.get_parameter("speed") == 1.5
    assert one.get_parameter("other") is None
    one.set_parameter("speed", 2.0)
    assert one.get_parameter("speed") == 2.0
    with pytest.raises(RuntimeError, match="not declared"):
        one.set_parameter("other", 1)
    with pytest.raises(RuntimeError, match="another type"):
        one.set_parameter("speed", "fast")
