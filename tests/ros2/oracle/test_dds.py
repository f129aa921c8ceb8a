"""Topics over DDS with rclpy on Fast DDS, on this computer alone."""

from __future__ import annotations

import logging
import os
import queue
import random
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.ros2_values import random_value
from support.waiting import wait_until

from dora_ros2.connection import RosNode
from dora_ros2.dds.participant import DdsParticipant, DdsSubscription
from dora_ros2.errors import SessionError
from dora_ros2.types import Types
from dora_ros2.zenoh.graph import Graph
from dora_ros2.zenoh.tokens import Kind, Qos

PYTHON = Path(os.environ["DORA_TESTS_RCLPY"])
SHARE = PYTHON.parents[1] / "share"
DOMAIN = 87
TYPES = Types([SHARE])
NAMES = [
    f"test_msgs/msg/{path.stem}" for path in sorted((SHARE / "test_msgs" / "msg").glob("*.msg"))
] + [
    "sensor_msgs/msg/JointState",
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/PointCloud2",
    "geometry_msgs/msg/TransformStamped",
    "nav_msgs/msg/Path",
    "rcl_interfaces/msg/ParameterEvent",
    "visualization_msgs/msg/MarkerArray",
]
TEXT = TYPES.message("std_msgs/msg/String")
ENVIRONMENT = {"ROS_DOMAIN_ID": str(DOMAIN)}


@contextmanager
def echoing(domain: int, names: Sequence[str]) -> Iterator[None]:
    """A process with the node ``/oracle/echo``."""
    command = [str(PYTHON), str(Path(__file__).with_name("rclpy_echo.py")), *names]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as process:
        yield
        assert process.stdin is not None
        process.stdin.close()  # no descriptor of it is left, so it ends
        try:
            process.wait(60)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def participant() -> Iterator[DdsParticipant]:
    with echoing(DOMAIN, NAMES), DdsParticipant(environ=ENVIRONMENT) as made:
        assert made.wait_for(
            lambda graph: any(node.full_name == "/oracle/echo" for node in graph.nodes()), 60
        )
        yield made


@pytest.fixture(scope="module")
def early() -> Iterator[DdsParticipant]:
    """In a domain of its own: all participants of a process know the same publishers."""
    with DdsParticipant(domain=DOMAIN + 1) as made:
        yield made


def keep(received: queue.Queue[bytes], payload: bytes, _: object) -> None:
    received.put(payload)


def get(received: queue.Queue[bytes]) -> Any:
    return received.get(timeout=30)


def test_all_types_both_ways(participant: DdsParticipant) -> None:
    with closing(RosNode(participant, "both")) as node:
        received: list[queue.Queue[bytes]] = [queue.Queue() for _ in NAMES]
        publishers = []
        for number, name in enumerate(NAMES):
            message = TYPES.message(name)
            node.subscription(f"/pong_{number}", message, partial(keep, received[number]))
            publishers.append(node.publisher(f"/ping_{number}", message))
        for number, name in enumerate(NAMES):
            message = TYPES.message(name)
            value = random_value(message.description, random.Random(name))

            def answered(number: int = number, message: Any = message, value: Any = value) -> bool:
                # discovery by both ends takes longer than by one of them
                publishers[number].publish(message.encode(value))
                try:
                    payload = received[number].get(timeout=0.5)
                except queue.Empty:
                    return False
                return bool(message.decode(payload).to_pylist() == [value])

            wait_until(answered, what=f"an answer of type {name}")


def test_first_large_message(early: DdsParticipant) -> None:
    """The first message of a publisher arrives, also in several fragments."""
    image = TYPES.message("sensor_msgs/msg/Image")
    received: queue.Queue[bytes] = queue.Queue()
    with closing(RosNode(early, "early")) as node:
        pong = node.subscription("/pong_0", image, partial(keep, received))
        assert isinstance(pong, DdsSubscription)
        ping = node.publisher("/ping_0", image)

        def are_known(graph: Graph) -> bool:
            names = ((Kind.PUBLISHER, pong.name), (Kind.SUBSCRIPTION, ping.name))
            return all(graph.endpoints(kind, name=name) for kind, name in names)

        with echoing(DOMAIN + 1, [image.name]):
            assert early.wait_for(are_known, 60)
            wait_until(lambda: not pong.is_rematching, what="the end of the second match")
            for width in (1, 2):
                ping.publish(image.encode({"width": width, "data": bytes(300_000)}))
            assert [image.decode(get(received))[0]["width"].as_py() for _ in range(2)] == [1, 2]
            own = early.graph.endpoints(Kind.SUBSCRIPTION, name=pong.name)
            assert len(own) == 1


def test_graph(participant: DdsParticipant) -> None:
    with closing(RosNode(participant, "seen", "/ours")) as node:
        received: queue.Queue[bytes] = queue.Queue()
        node.subscription("/names", TEXT, lambda data, _: received.put(data))
        wait_until(lambda: b"seen" in get(received), what="our node in the graph of rclpy")
        graph = participant.graph
        assert participant.wait_for(
            lambda graph: any(one.full_name == "/ours/seen" for one in graph.nodes()), 30
        )
        (offer,) = graph.topics()["/latched"].offers
        assert offer.node.full_name == "/oracle/echo"
        assert (offer.type, offer.hash) == (TEXT.name, TEXT.hash)
        assert offer.qos.transient_local
        assert "/oracle/echo/get_parameters" in graph.services()
        servers = graph.services()["/oracle/echo/get_parameters"].offers
        assert [one.type for one in servers] == ["rcl_interfaces/srv/GetParameters"]
    assert participant.wait_for(
        lambda graph: all(one.full_name != "/ours/seen" for one in graph.nodes()), 30
    )


def test_history_and_sender(participant: DdsParticipant) -> None:
    """Messages from before arrive, there and here."""
    latching = Qos(transient_local=True, depth=3)
    with closing(RosNode(participant, "late")) as node:
        received: queue.Queue[Any] = queue.Queue()
        node.subscription("/latched", TEXT, lambda *both: received.put(both), latching)
        payload, attachment = get(received)
        assert TEXT.decode(payload).to_pylist() == [{"data": "from before"}]
        sender = participant.graph.sender(attachment.gid)
        assert sender is not None
        assert sender.node.full_name == "/oracle/echo"

        told = node.publisher("/told", TEXT, latching)
        for number in range(4):
            told.publish(TEXT.encode({"data": str(number)}))
        heard: queue.Queue[bytes] = queue.Queue()
        node.subscription("/heard", TEXT, lambda data, _: heard.put(data))
        listen = node.publisher("/listen", TEXT)

        def answered() -> bool:
            listen.publish(TEXT.encode({}))
            try:
                return bool(TEXT.decode(heard.get(timeout=0.5))[0]["data"].as_py() == "3")
            except queue.Empty:
                return False

        wait_until(answered, what="history in rclpy")


def test_mismatched_qos(participant: DdsParticipant, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), closing(RosNode(participant, "strict")) as node:
        received: queue.Queue[bytes] = queue.Queue()
        node.subscription("/picky", TEXT, lambda data, _: received.put(data))
        said = "/picky: no messages from /oracle/echo: the publisher is best effort"
        wait_until(lambda: said in caplog.text, what="a warning")
        assert received.empty()
        node.subscription("/picky", TEXT, lambda data, _: received.put(data), Qos(reliable=False))
        assert get(received)


def test_what_dds_cannot_do(participant: DdsParticipant) -> None:
    with closing(RosNode(participant, "limits")) as node:
        with pytest.raises(SessionError, match="do not work over DDS"):
            node.service_server("/x", TYPES.service("std_srvs/SetBool"), print)
        node.publisher("/typed", TEXT)
        with pytest.raises(SessionError, match="already has another type"):
            node.publisher("/typed", TYPES.message("std_msgs/Bool"))
        publisher = node.publisher("/closed", TEXT)
    with pytest.raises(SessionError, match="is closed"):
        publisher.publish(b"")


def test_two_participants(participant: DdsParticipant) -> None:
    """Without ROS: a subscription that is closed receives nothing more."""
    with DdsParticipant(environ=ENVIRONMENT) as other, closing(RosNode(other, "other")) as there:
        with closing(RosNode(participant, "here")) as node:
            received: queue.Queue[bytes] = queue.Queue()
            subscription = there.subscription("/ours", TEXT, lambda data, _: received.put(data))
            publisher = node.publisher("/ours", TEXT, Qos(transient_local=True))
            publisher.publish(TEXT.encode({"data": "x"}))

            def arrives() -> bool:
                publisher.publish(TEXT.encode({}))
                return not received.empty()

            wait_until(arrives, what="a message")
            subscription.close()
            assert participant.wait_for(lambda graph: not graph.topics()["/ours"].uses, 30)
        other.close()
        with pytest.raises(SessionError):
            RosNode(other, "more")
