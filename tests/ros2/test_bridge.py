"""The node behind `ros2:`, with a fake node of dora and a router of our own."""

from __future__ import annotations

import json
import queue
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest
from ros2.routers import Router, open_sockets, running_router
from support.dora import run_dora
from support.waiting import wait_until

from dora_recordings.reading import Recording
from dora_ros2.bags.importing import CDR
from dora_ros2.bridge import (
    ActionCaller,
    Bridge,
    BridgeSender,
    PublishedTopic,
    SubscribedTopic,
    waiting_text,
)
from dora_ros2.connection import RosNode
from dora_ros2.errors import DefinitionError
from dora_ros2.transport import choose_transport
from dora_ros2.types import Types
from dora_ros2.zenoh.actions import (
    MAX_GOALS,
    ActionClient,
    ActionServer,
    CancelCode,
    GoalState,
)
from dora_ros2.zenoh.graph import Graph
from dora_ros2.zenoh.node_services import find_description, serve_descriptions
from dora_ros2.zenoh.tokens import EndpointToken, Qos, parse_token

EXAMPLES = Path(__file__).parents[2] / "examples"
TYPES = Types()
TWIST = TYPES.message("geometry_msgs/Twist")
ADD = TYPES.service("example_interfaces/AddTwoInts")
FIBONACCI = TYPES.action("example_interfaces/Fibonacci")
Sent = tuple[str, Any, Mapping[str, Any]]


class FakeNode:
    """What a bridge uses of a node."""

    node_id = "robot.bridge"

    def __init__(self, outputs: list[str]) -> None:
        self.outputs = outputs
        self.events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.behind: list[dict[str, Any]] = []
        """Events that wait behind the first one."""
        self.refused: list[Exception] = []
        """What the next outputs raise."""
        self.sent: queue.SimpleQueue[Sent] = queue.SimpleQueue()
        self.waiting: list[str | None] = []
        self.graph: dict[str, Any] = {}

    def node_config(self) -> dict[str, Any]:
        return {"inputs": {}, "outputs": self.outputs}

    def next(self, timeout: float) -> dict[str, Any] | None:
        try:
            return self.events.get(timeout=timeout)
        except queue.Empty:
            return {"type": "ERROR"}

    def try_recv(self) -> dict[str, Any] | None:
        return self.behind.pop(0) if self.behind else None

    def send_output(self, output: str, value: Any, metadata: Any = None) -> None:
        if self.refused:
            raise self.refused.pop()
        self.sent.put((output, value.to_pylist()[0], metadata or {}))

    def report_waiting(self, text: str | None) -> None:
        self.waiting.append(text)

    def report_details(self, details: dict[str, Any]) -> None:
        self.graph = details

    def put(self, name: str, value: dict[str, Any], **metadata: Any) -> None:
        self.events.put(self.event(name, value, metadata))

    def event(self, name: str, value: dict[str, Any], metadata: Any) -> dict[str, Any]:
        return {"type": "INPUT", "id": name, "value": pa.array([value]), "metadata": metadata}

    def get(self) -> Sent:
        return self.sent.get(timeout=20)


@pytest.fixture(scope="module")
def router() -> Iterator[Router]:
    with running_router() as running:
        yield running


@pytest.fixture
def other(router: Router) -> Iterator[RosNode]:
    """A node of ROS on the other side."""
    with router.open() as session:
        yield RosNode(session, "other")


@pytest.fixture
def bridged(router: Router, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    override = f'connect/endpoints=["{router.endpoint}"]'
    monkeypatch.setenv("ZENOH_CONFIG_OVERRIDE", override)

    @contextmanager
    def run(settings: dict[str, Any], *outputs: str) -> Iterator[FakeNode]:
        node = FakeNode(list(outputs))
        bridge = Bridge(cast(Any, node), {"transport": {"kind": "zenoh"}, **settings})
        thread = threading.Thread(target=bridge.run)
        thread.start()
        try:
            yield node
        finally:
            node.events.put({"type": "STOP"})
            thread.join(20)
        assert not thread.is_alive()

    return run


def test_text_of_what_a_bridge_waits_for_is_limited() -> None:
    missing = [DefinitionError(f"found no definition of X{n}", remedy="do y") for n in range(13)]
    found = [*missing, "waits for a", "waits for b", None, "waits for a", "waits for c", "d", "e"]
    assert waiting_text(found) == (
        "waits for a; waits for b; waits for c; and 2 more; waits for a definition"
        " (and 12 more types): found no definition of X0; do y"
    )
    assert waiting_text([None, None]) is None


def test_both_directions_with_types_of_the_other_side(bridged: Any, other: RosNode) -> None:
    topics = [
        {"topic": "/in", "output": "a"},
        {"topic": "out", "direction": "publish", "input": "b"},
    ]
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def hear(payload: bytes, _: Any) -> None:
        received.put(TWIST.decode(payload).to_pylist()[0])

    with bridged({"topics": topics, "namespace": "/ns"}, "a") as node:
        node.put("b", {"linear": {"x": 1.0}})  # waits for the type
        other.subscription("/ns/out", TWIST, hear)
        publisher = other.publisher("/in", TWIST)
        assert received.get(timeout=20)["linear"]["x"] == 1.0
        graph = other.connection.graph
        wait_until(lambda: len(graph.topics()["/in"].uses) == 1)
        publisher.publish(TWIST.encode({"angular": {"z": 2.0}}))
        output, value, metadata = node.get()
        known = {"ros2_type": "geometry_msgs/msg/Twist"}  # the dataflow file has no type
        assert (output, value["angular"]["z"], metadata) == ("a", 2.0, known)
        assert "/ns/robot_bridge" in [one.full_name for one in graph.nodes()]


def test_the_last_message_arrives_and_bad_ones_are_dropped_with_a_warning(
    bridged: Any, other: RosNode, caplog: pytest.LogCaptureFixture
) -> None:
    received: list[float] = []
    other.subscription(
        "/last",
        TWIST,
        lambda payload, _: received.append(TWIST.decode(payload).field("linear")[0]["x"].as_py()),
    )
    topic = {"topic": "/last", "message_type": "geometry_msgs/Twist", "direction": "publish"}
    sub = {"topic": "/bad", "message_type": "geometry_msgs/Twist", "output": "a"}
    with bridged(
        {"topics": [{**topic, "input": "b"}, sub], "qos": {"reliable": True}}, "a"
    ) as node:
        publisher = other.publisher("/bad", TWIST, Qos())
        graph = other.connection.graph
        wait_until(lambda: "/bad" in graph.topics() and graph.topics()["/bad"].uses)
        publisher.publish(b"\0\1\0\0short")
        publisher.publish(b"\0\1\0\0short")
        wait_until(lambda: "/bad: dropped a message" in caplog.text)
        node.put("b", {"wrong": 1})
        wait_until(lambda: "/last: dropped a message" in caplog.text)
        node.put("b", {"linear": {"x": "fast"}})
        for number in range(20):
            node.put("b", {"linear": {"x": float(number)}})
    wait_until(lambda: received == [float(number) for number in range(20)])
    assert "from /other" in caplog.text
    assert "/bad: dropped 2 messages in all" in caplog.text
    assert caplog.text.count("/last: dropped a message") == 2, "one for each reason"


def test_a_service_in_the_dataflow(bridged: Any, other: RosNode) -> None:
    settings = {"service": "/add", "service_type": "example_interfaces/AddTwoInts"}
    with bridged({**settings, "role": "server"}, "request") as node:
        client = other.service_client("/add", ADD)
        assert client.wait_for_server(20)
        first = client.call(ADD.request.encode({"a": 1, "b": 2}))
        _, _, metadata = node.get()
        second = client.call(ADD.request.encode({"a": 5, "b": 5}))
        output, value, later = node.get()
        assert (output, value) == ("request", {"a": 5, "b": 5})
        node.put("response", {"sum": 10}, **later)
        node.put("response", {"sum": 3}, **metadata)
        assert ADD.response.decode(first.result(20)).to_pylist() == [{"sum": 3}]
        assert ADD.response.decode(second.result(20)).to_pylist() == [{"sum": 10}]
        both = [client.call(ADD.request.encode({"a": one})) for one in (1, 2)]
        asked = [node.get()[1]["a"] for _ in both]
        for one in asked:  # without an id: in the order of the requests
            node.put("response", {"sum": one})
        sums = [ADD.response.decode(one.result(20)).to_pylist()[0]["sum"] for one in both]
        assert sums == [1, 2]


def test_a_client_waits_for_its_service_and_shows_it(bridged: Any, other: RosNode) -> None:
    settings = {"service": "/later", "service_type": "example_interfaces/AddTwoInts"}
    with bridged({**settings, "role": "client"}, "response") as node:
        node.put("request", {"a": 1, "b": 2})
        wait_until(lambda: node.waiting == ["waits for a server of service /later"])

        def answer(request: Any) -> None:
            asked = ADD.request.decode(request.payload).to_pylist()[0]
            request.reply(ADD.response.encode({"sum": asked["a"] + asked["b"]}))

        other.service_server("/later", ADD, answer)
        assert node.get() == ("response", {"sum": 3}, {})
        node.put("request", {"a": 2, "b": 2}, request_id="r")
        assert node.get() == ("response", {"sum": 4}, {"request_id": "r"})
        wait_until(lambda: node.waiting[-1] is None)


def test_a_client_of_another_type_than_its_server(bridged: Any, other: RosNode) -> None:
    server = other.service_server("/typed", TYPES.service("std_srvs/SetBool"), print)
    settings = {"service": "/typed", "service_type": "example_interfaces/AddTwoInts"}
    with bridged({**settings, "role": "client"}, "response") as node:
        wait_until(lambda: bool(node.waiting))
    [text, *_] = node.waiting
    assert text is not None
    assert text.startswith(
        "waits for a server of service /typed: the server in /other has the type"
        f" std_srvs/srv/SetBool {server.type.hash}, this client example_interfaces/srv/AddTwoInts"
    )


def test_a_kept_message_is_sent_again_with_the_definition_of_the_other_side(
    bridged: Any, other: RosNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, text in (("here", "int8 x\n"), ("there", "int8 x\nint8 y 5\n")):
        (tmp_path / folder / "own" / "msg").mkdir(parents=True)
        (tmp_path / folder / "own" / "msg" / "State.msg").write_text(text)
    monkeypatch.chdir(tmp_path / "here")
    there = Types([tmp_path / "there"])
    kind = there.message("own/State")
    topic = {"topic": "/state", "message_type": "own/State", "direction": "publish", "input": "b"}
    qos = {"reliable": True, "durability": "transient_local"}
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with bridged({"topics": [topic], "qos": qos}) as node:
        node.put("b", {"x": 1})
        graph = other.connection.graph
        assert other.connection.wait_for(lambda _: "/state" in graph.topics(), 20)
        serve_descriptions(other, there.description)
        latched = Qos(transient_local=True, depth=1)
        other.subscription("/state", kind, lambda payload, _: received.put(payload), latched)
        assert kind.decode(received.get(timeout=20)).to_pylist() == [{"x": 1, "y": 5}]


def test_unexpected_errors_end_neither_the_sender_nor_silently_the_bridge(
    monkeypatch: pytest.MonkeyPatch, router: Router
) -> None:
    node = FakeNode(["a"])
    node.refused.append(ValueError("no"))
    sender = BridgeSender(cast(Any, node))
    for number in range(2):
        sender.put(partial(node.send_output, "a", pa.array([{"x": number}])))
    assert node.get() == ("a", {"x": 1}, {})
    sender.close()
    monkeypatch.setenv("ZENOH_CONFIG_OVERRIDE", f'connect/endpoints=["{router.endpoint}"]')
    monkeypatch.setattr(SubscribedTopic, "update", lambda *_: next(iter(())))
    settings = {"transport": {"kind": "zenoh"}, "topics": [{"topic": "/in", "output": "a"}]}
    with pytest.raises(StopIteration):
        Bridge(cast(Any, node), settings).run()


def assert_(condition: bool) -> None:
    assert condition


def test_a_blocked_dataflow_holds_few_messages() -> None:
    node, blocked = FakeNode(["a"]), threading.Event()
    sender = BridgeSender(cast(Any, node))
    sender.put(lambda: assert_(blocked.wait(20)))
    topic = SubscribedTopic({"topic": "/in", "output": "a"}, sender, TYPES)
    for number in range(1000):
        topic._received(TWIST, bytes(TWIST.encode({"linear": {"x": float(number)}})), None)
    assert sender._jobs.qsize() <= len(topic.held) + 1 == 65
    blocked.set()
    assert [node.get()[1]["linear"]["x"] for _ in range(64)] == list(range(936, 1000))
    sender.close()


def test_answers_under_way_are_awaited_at_the_end_of_the_inputs(
    bridged: Any, other: RosNode
) -> None:
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    other.service_server("/slow", ADD, requests.put)
    settings = {"service": "/slow", "service_type": "example_interfaces/AddTwoInts"}
    with bridged({**settings, "role": "client"}, "response") as node:
        node.put("request", {"a": 1})
        node.events.put({"type": "STOP", "id": "ALL_INPUTS_CLOSED"})
        requests.get(timeout=20).reply(ADD.response.encode({"sum": 1}))
        assert node.get() == ("response", {"sum": 1}, {})
    topic = {"topic": "/once", "message_type": "geometry_msgs/Twist", "direction": "publish"}
    qos = {"reliable": True, "durability": "transient_local"}
    kept: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with bridged({"topics": [{**topic, "input": "b"}], "qos": qos}) as node:
        node.put("b", {"linear": {"x": 1.0}})  # the bridge is not connected yet
        node.events.put({"type": "STOP", "id": "ALL_INPUTS_CLOSED"})
        latched = Qos(transient_local=True, depth=1)
        other.subscription("/once", TWIST, lambda *got: kept.put(got), latched)
        kept.get(timeout=20)


def test_a_mistake_in_a_definition_ends_the_bridge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "msg").mkdir()
    (tmp_path / "msg" / "Own.msg").write_text("int32 x\nint32 9y\n")
    types, node = Types([tmp_path]), cast(Any, FakeNode(["a"]))
    for kind in (SubscribedTopic, PublishedTopic):
        ports = {"input": "a", "output": "a"}
        topic = kind({"topic": "/a", "message_type": "own/Own", **ports}, BridgeSender(node), types)
        with pytest.raises(DefinitionError, match=r"msg/Own.msg:2: "):
            topic.update(cast(Any, None), Graph())
        topic.sender.close()


def test_feedback_for_a_blocked_dataflow_is_limited(caplog: pytest.LogCaptureFixture) -> None:
    sender, released = BridgeSender(cast(Any, FakeNode(["feedback", "result"]))), threading.Event()
    sender.put(lambda: assert_(released.wait(20)))
    settings = {"action": "/x", "action_type": "example_interfaces/Fibonacci"}
    caller = ActionCaller(settings, sender, TYPES)
    feedback: list[Callable[[pa.Array], None]] = []

    def send_goal(_: object, *, on_feedback: Any, **__: object) -> Future[None]:
        feedback.append(on_feedback)
        return Future()

    caller.endpoint = SimpleNamespace(available=True, send_goal=send_goal, close=lambda: None)
    caller.receive("goal", pa.array([{}]), {})
    for number in range(1000):
        feedback[0](pa.array([{"sequence": [number]}]))
    assert sender._jobs.qsize() <= 65
    assert "/x: dropped a message: the dataflow does not take messages fast enough" in caplog.text
    released.set()
    node = cast(FakeNode, sender.node)
    numbers = [node.get()[1]["sequence"][0] for _ in range(64)]
    assert numbers == list(range(936, 1000)), "the last ones"
    caller.close()
    sender.close()


def test_messages_of_a_topic_that_keeps_all_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dora_ros2.backlog.MAX_BYTES", 1000)
    sender, released = BridgeSender(cast(Any, FakeNode(["a"]))), threading.Event()
    sender.put(lambda: assert_(released.wait(20)))
    qos = {"keep_all": True, "reliable": True, "durability": "transient_local"}
    topic = SubscribedTopic({"topic": "/x", "output": "a", "qos": qos}, sender, TYPES)
    for _ in range(100):
        topic._received(TWIST, bytes(TWIST.encode({})), None)
    assert len(topic.held) == 1000 // len(TWIST.encode({}))
    published = PublishedTopic({"topic": "/y", "input": "b", "qos": qos}, sender, TYPES)
    published.endpoint, published.type = SimpleNamespace(publish=lambda _: None), TWIST
    for _ in range(100):
        published.receive("b", pa.array([{}]), {})
    assert len(published._kept) == len(topic.held)
    released.set()
    sender.close()


def test_a_differing_definition_over_dds() -> None:
    """DDS cannot fetch the definition of the other side."""
    token = (
        "@ros2_lv/0/1/0/1/MP/%/%/robot/%pose/geometry_msgs::msg::dds_::Twist_/RIHS01_5/::,1:,:,:,,"
    )
    endpoint = cast(EndpointToken, parse_token(token))
    dds = cast(Any, SimpleNamespace(has_services=False))
    with pytest.raises(DefinitionError) as raised:
        find_description(dds, TYPES, endpoint)
    assert str(raised.value) == (
        f"the definition of geometry_msgs/msg/Twist here has the hash {TWIST.hash}, and /robot uses"
        " RIHS01_5; over DDS a node cannot describe its types: put its definition into a folder"
        " msg beside the dataflow"
    )


def test_an_action_in_the_dataflow(bridged: Any, other: RosNode) -> None:
    settings = {"action": "/fib", "action_type": "example_interfaces/Fibonacci"}
    with bridged({**settings, "role": "server"}, "goal") as node:
        client = ActionClient(other, "/fib", FIBONACCI)
        assert client.wait_for_server(20)
        seen: queue.SimpleQueue[Any] = queue.SimpleQueue()
        goal_id = uuid.uuid4()
        client.send_goal({"order": 3}, goal_id=goal_id.bytes, on_feedback=seen.put).result(20)
        output, value, metadata = node.get()
        assert (output, value) == ("goal", {"order": 3})
        assert metadata == {"goal_id": str(goal_id)}
        node.put("feedback", {"sequence": [0, 1]}, **metadata)
        assert seen.get(timeout=20).to_pylist() == [{"sequence": [0, 1]}]
        # Inputs take turns: the last feedback was sent before the result.
        node.behind.append(node.event("feedback", {"sequence": [0, 1, 1]}, metadata))
        node.put("result", {"sequence": [0, 1, 1]}, goal_status="aborted", **metadata)
        assert seen.get(timeout=20).to_pylist() == [{"sequence": [0, 1, 1]}]
        result = client.result(goal_id.bytes).result(20)
        assert result.state is GoalState.ABORTED
        assert result.result.to_pylist() == [{"sequence": [0, 1, 1]}]


def test_goals_are_cancelled_in_the_dataflow(bridged: Any, other: RosNode) -> None:
    """With an output `cancel`; without it requests are refused."""
    settings = {"action": "/stop", "action_type": "example_interfaces/Fibonacci", "role": "server"}
    client = ActionClient(other, "/stop", FIBONACCI)
    for outputs, code in (
        (["goal", "cancel"], CancelCode.ACCEPTED),
        (["goal"], CancelCode.REJECTED),
    ):
        with bridged(settings, *outputs) as node:
            assert client.wait_for_server(20)
            goal_id = uuid.uuid4()
            client.send_goal({"order": 3}, goal_id=goal_id.bytes).result(20)
            known = {"goal_id": str(goal_id)}
            assert node.get() == ("goal", {"order": 3}, known)
            assert client.cancel(goal_id.bytes).result(20) is code
            if code is CancelCode.ACCEPTED:
                assert node.get() == ("cancel", known, known)
                node.put("result", {"sequence": [0]}, goal_status="canceled", **known)
                result = client.result(goal_id.bytes).result(20)
                assert (result.state, result.result.to_pylist()) == (
                    GoalState.CANCELED,
                    [{"sequence": [0]}],
                )
        assert other.connection.wait_for(lambda _: not client.available, 20)


def test_a_goal_that_the_dataflow_forgot_is_aborted(
    bridged: Any, other: RosNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"action": "/lost", "action_type": "example_interfaces/Fibonacci"}
    with bridged({**settings, "role": "server"}, "goal") as node:
        client = ActionClient(other, "/lost", FIBONACCI)
        assert client.wait_for_server(20)
        monkeypatch.setattr("dora_ros2.bridge.RESULT_SECONDS", 0.1)
        for _ in range(MAX_GOALS + 1):
            goal_id = uuid.uuid4().bytes
            client.send_goal({"order": 3}, goal_id=goal_id).result(20)
            node.get()
            assert client.result(goal_id).result(20).state is GoalState.ABORTED


def test_goals_of_the_dataflow(bridged: Any, other: RosNode) -> None:
    goals: queue.SimpleQueue[Any] = queue.SimpleQueue()
    ActionServer(other, "/fib2", FIBONACCI, goals.put)
    settings = {"action": "/fib2", "action_type": "example_interfaces/Fibonacci"}
    key = str(uuid.uuid4())
    with bridged({**settings, "role": "client"}, "feedback", "result") as node:
        node.put("goal", {"order": 2}, goal_id=key)
        goal = goals.get(timeout=20)
        goal.accept()

        def arrives() -> bool:
            goal.feedback({"sequence": [0]})
            return not node.sent.empty()

        wait_until(arrives)
        assert node.get() == ("feedback", {"sequence": [0]}, {"goal_id": key})
        goal.finish(GoalState.SUCCEEDED, {"sequence": [0, 1]})
        result: dict[str, Any] = {}
        while not result:
            output, value, metadata = node.get()
            result = {output: (value, metadata)} if output == "result" else {}
        status = {"goal_id": key, "goal_status": "succeeded"}
        assert result["result"] == ({"sequence": [0, 1]}, status)


def test_without_a_router_it_says_so_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENOH_CONFIG_OVERRIDE", 'connect/endpoints=["tcp/127.0.0.1:9"]')
    node = FakeNode(["a"])
    topic = {"topic": "/a", "message_type": "std_msgs/String", "output": "a"}
    bridge = Bridge(cast(Any, node), {"topics": [topic], "transport": {"kind": "zenoh"}})
    thread = threading.Thread(target=bridge.run)
    thread.start()
    wait_until(lambda: node.waiting == ["waits for a Zenoh router at tcp/127.0.0.1:9"], timeout=20)
    node.events.put({"type": "STOP"})
    thread.join(10)
    assert not thread.is_alive()


def test_the_choice_of_a_transport(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_sockets()
    monkeypatch.setattr("dora_ros2.transport.find_spec", lambda _: "found")
    override = {"ZENOH_CONFIG_OVERRIDE": 'connect/endpoints=["tcp/127.0.0.1:9"]'}
    assert choose_transport(override).kind == "zenoh"  # the router may start later
    assert choose_transport({"ZENOH_SESSION_CONFIG_URI": "session.json5"}).kind == "zenoh"
    assert choose_transport({}, config="session.json5").kind == "zenoh"
    assert choose_transport({**override, "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp"}).kind == "dds"
    assert choose_transport({"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"}).kind == "zenoh"
    monkeypatch.setattr("dora_ros2.transport.ROUTER", router.endpoint)
    assert choose_transport({}).reason == f"a router answers at {router.endpoint}"
    monkeypatch.setattr("dora_ros2.transport.ROUTER", "tcp/127.0.0.1:9")
    assert choose_transport({}).kind == "dds"
    monkeypatch.setattr("dora_ros2.transport.find_spec", lambda _: None)
    assert choose_transport({}).kind == "zenoh"
    assert 'pip install "cyclonedds>=11.0.1"' in choose_transport({}).reason
    wait_until(lambda: open_sockets() <= before, what="the router to close what was a trial")


@pytest.mark.integration
def test_the_example_is_recorded_and_becomes_a_bag(router: Router, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "ros2", tmp_path / "ros2")
    override = f"connect/endpoints={json.dumps([router.endpoint])}"
    env = {"ZENOH_CONFIG_OVERRIDE": override}
    drive = tmp_path / "drive.mcap"
    words = ("record", tmp_path / "ros2" / "dataflow.yml", "-o", drive)
    done = run_dora(*words, env=env, timeout=60).succeeded()
    assert "an image of 64 x 48, rgb8" in done.output
    assert "the turtle moves" in done.output
    run_dora("recording", "export", drive, "--to", "rosbag", "-o", tmp_path / "bag").succeeded()
    types = {
        one.topic: one.type_name for one in Recording(tmp_path / "bag/bag_0.mcap", CDR).messages()
    }
    assert types == {
        "/turtle1/pose": "turtlesim/msg/Pose",
        "/turtle1/cmd_vel": "geometry_msgs/msg/Twist",
        "/camera/image_raw": "sensor_msgs/msg/Image",
    }
