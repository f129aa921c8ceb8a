"""Topics between two sessions of ours, over a router."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from ros2.routers import Router, running_router
from support.waiting import wait_until

from dora_ros2.connection import Publisher, RosNode
from dora_ros2.errors import InvalidName, SessionError
from dora_ros2.types import Types
from dora_ros2.zenoh import endpoints
from dora_ros2.zenoh.endpoints import ZenohPublisher
from dora_ros2.zenoh.graph import Profile
from dora_ros2.zenoh.session import ZenohSession
from dora_ros2.zenoh.tokens import Attachment, Kind, Qos

STRING = Types().message("std_msgs/String")
LATCHED = Qos(transient_local=True, depth=3)
Received = list[tuple[bytes, Attachment | None]]


def subscribe(session: ZenohSession, qos: Qos | None = None, node: str = "reader") -> Received:
    received: Received = []
    RosNode(session, node).subscription("chatter", STRING, lambda *got: received.append(got), qos)
    return received


def arrives(publisher: Publisher, received: Received, payload: bytes = b"x") -> None:
    """Publish until one more message is received."""
    count = len(received)

    def publish() -> bool:
        publisher.publish(payload)
        return len(received) > count

    wait_until(publish, what="a message")


def publish_on(node: RosNode, topic: str, qos: Qos | None = None) -> ZenohPublisher:
    publisher = node.publisher(topic, STRING, qos)
    assert isinstance(publisher, ZenohPublisher)
    return publisher


def pass_on(publisher: Publisher, reader: ZenohSession) -> None:
    """Wait until a session has received, and ignored, all that was published before.

    While the connection of two sessions is new, each sends the other all messages.
    """
    received: Received = []
    fence = RosNode(reader, "fence")
    fence.subscription("fence", STRING, lambda *got: received.append(got))
    arrives(publisher.node.publisher("fence", STRING), received)
    fence.close()


def test_messages_with_number_time_and_sender(router: Router) -> None:
    with router.open() as one, router.open() as other:
        received = subscribe(other)
        publisher = publish_on(RosNode(one, "talker", "robot1"), "/chatter")
        assert one.wait_for(lambda graph: len(graph.topics()["/chatter"].uses) == 1, 30)
        publisher.publish(b"a")
        arrives(publisher, received)
        start = len(received)
        for number in range(50):
            publisher.publish(bytes([number]))
        wait_until(lambda: len(received) >= start + 50, what="all messages")
        assert [payload for payload, _ in received[-50:]] == [bytes([n]) for n in range(50)]
        attachments = [attachment for _, attachment in received]
        first = attachments[0]
        assert first is not None
        assert first.gid == publisher.gid
        numbers = [attachment.sequence for attachment in attachments if attachment]
        assert numbers == list(range(numbers[0], numbers[0] + len(received)))
        sender = other.graph.sender(first.gid)
        assert sender is not None
        assert sender.node.full_name == "/robot1/talker"


def test_types_that_differ_are_logged(router: Router, caplog: pytest.LogCaptureFixture) -> None:
    """Once for each pair, and in the process of either end."""
    types = Types()
    other_type = types.message("std_msgs/Bool")
    with router.open() as one, router.open() as other:
        talker, listener = RosNode(one, "talker"), RosNode(other, "listener")
        talker.publisher("/chatter", STRING)
        listener.subscription("/chatter", other_type, lambda *_: None)
        listener.service_server("/set", types.service("std_srvs/SetBool"), print)
        talker.service_client("/set", types.service("std_srvs/Empty"))
        why = "the types differ: std_msgs/msg/String and std_msgs/msg/Bool"
        for said in (
            f"/chatter: no messages to /listener: {why}",
            f"/chatter: no messages from /talker: {why}",
            "/set: no requests from /talker: the types differ",
            "/set: no requests to /listener: the types differ",
        ):
            wait_until(lambda said=said: said in caplog.text, what=said)  # type: ignore[misc]
        talker.publisher("/other", STRING)
        # The other end is there already: nothing but the new endpoint itself is checked.
        assert other.wait_for(lambda graph: "/other" in graph.topics(), 30)
        listener.subscription("/other", other_type, lambda *_: None)
        wait_until(lambda: caplog.text.count("/other: no messages") == 2, what="the second pair")
        assert caplog.text.count("/chatter: no messages") == 2


def test_late_joiners_receive_the_kept_messages(router: Router) -> None:
    with router.open() as one, router.open() as other:
        publisher = publish_on(RosNode(one, "talker"), "chatter", LATCHED)
        for number in range(5):
            publisher.publish(bytes([number]))
        pass_on(publisher, other)
        received = subscribe(other, LATCHED)
        wait_until(lambda: len(received) >= 3, what="three kept messages")
        assert [payload for payload, _ in received] == [b"\x02", b"\x03", b"\x04"]
        assert all(attachment and attachment.gid == publisher.gid for _, attachment in received)
        publisher.publish(b"live")
        wait_until(lambda: len(received) >= 4, what="a live message")
        last_one = subscribe(other, Qos(transient_local=True, depth=1), "second")
        wait_until(lambda: last_one, what="the last message")
        assert [payload for payload, _ in last_one] == [b"live"]


def test_a_late_publisher_is_asked_for_its_messages(router: Router) -> None:
    with router.open() as reader, router.open() as writer:
        received = subscribe(reader, LATCHED)
        RosNode(writer, "talker").publisher("chatter", STRING, LATCHED).publish(b"first")
        wait_until(lambda: received, what="the message that was sent at once")
        assert [payload for payload, _ in received] == [b"first"]


def test_messages_that_overtake_the_kept_ones_wait_for_them(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_history(session: Any, key: str, handler: Any, **_: object) -> Any:
        return session.declare_subscriber(key, handler)

    monkeypatch.setattr("zenoh.ext.declare_advanced_subscriber", without_history)
    with router.open() as one, router.open() as other:
        publisher = publish_on(RosNode(one, "talker"), "chatter", LATCHED)
        for number in range(5):
            publisher.publish(bytes([number]))
        pass_on(publisher, other)
        received = subscribe(other, LATCHED)
        arrives(publisher, received, b"live")
        start = [payload for payload, _ in received[:3]]
        assert start in ([b"\x03", b"\x04", b"live"], [b"\x04", b"live", b"live"], [b"live"] * 3)
        numbers = [attachment.sequence for _, attachment in received if attachment]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_keep_all_keeps_all(router: Router) -> None:
    qos = Qos(transient_local=True, keep_all=True)
    with router.open() as one, router.open() as other:
        publisher = RosNode(one, "talker").publisher("chatter", STRING, qos)
        for number in range(200):
            publisher.publish(bytes([number]))
        received = subscribe(other, qos)
        wait_until(lambda: len(received) == 200, what="all messages")


def test_domains_and_profiles_are_apart(router: Router) -> None:
    with router.open() as one, router.open(domain=5) as other:
        received = subscribe(other)
        publisher = RosNode(one, "talker").publisher("chatter", STRING)
        publisher.publish(b"other domain")
        assert other.graph.topics()["/chatter"].offers == []
        own = RosNode(other, "talker").publisher("chatter", STRING)
        own.publish(b"own domain")
        wait_until(lambda: received, what="the message of the domain")
        assert [payload for payload, _ in received] == [b"own domain"]


def test_endpoints_follow_the_profile_of_the_others(router: Router) -> None:
    with (
        router.open() as another,
        router.open(profile=Profile.HUMBLE) as humble,
        router.open() as ours,
    ):
        RosNode(another, "another").publisher("chatter", STRING)
        bridge = RosNode(ours, "bridge")
        kept = publish_on(bridge, "map", LATCHED)
        for number in range(5):
            kept.publish(bytes([number]))
        publisher = publish_on(bridge, "chatter")
        received_here = subscribe(ours)
        assert publisher.key.endswith(STRING.hash)
        received: Received = []
        robot = RosNode(humble, "robot")
        robot.subscription("/chatter", STRING, lambda *got: received.append(got))
        arrives(publisher, received)
        assert ours.profile is Profile.HUMBLE
        assert publisher.key == "0/chatter/std_msgs::msg::dds_::String_/TypeHashNotSupported"
        assert received[0][1] is not None
        assert received[0][1].gid == publisher.gid
        arrives(robot.publisher("/chatter", STRING), received_here)
        maps: Received = []
        robot.subscription("/map", STRING, lambda *got: maps.append(got), LATCHED)
        wait_until(lambda: len(maps) == 3, what="the kept messages")
        assert [payload for payload, _ in maps] == [b"\x02", b"\x03", b"\x04"]
        assert {one.gid for _, one in maps if one} == {kept.gid}
        late = publish_on(RosNode(ours, "late"), "chatter")
        assert late.token.humble
        assert humble.wait_for(
            lambda graph: all(one.humble for one in graph.endpoints(Kind.PUBLISHER)), 30
        )


def test_a_domain_with_both_profiles_is_named(
    router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    newer_session = router.open(profile=Profile.REP2016)
    with router.open(profile=Profile.HUMBLE) as humble, newer_session as newer:
        RosNode(newer, "newer").publisher("chatter", STRING)
        RosNode(humble, "humble").publisher("chatter", STRING)
        assert newer.wait_for(lambda graph: len(graph.endpoints()) == 2, 30)
        with router.open() as session:
            warning = "nodes of ROS 2 Humble and of newer versions share domain 0"
            wait_until(lambda: warning in caplog.text, what="the warning")
            assert session.profile in set(Profile)


def test_a_hundred_nodes(router: Router) -> None:
    with router.open() as one, router.open() as other:
        for number in range(100):
            node = RosNode(one, f"node_{number}", f"/robot{number % 7}")
            node.publisher("pose", STRING)
            node.subscription("/all", STRING, lambda *got: None)
        complete = other.wait_for(
            lambda graph: len(graph.nodes()) == 100 and len(graph.endpoints()) == 200, 60
        )
        assert complete
        assert len(other.graph.topics()["/all"].uses) == 100
        assert len(other.graph.topics()["/robot3/pose"].offers) == 14
        assert str(other.graph.topics()["/all"].uses[0].qos) == "reliable, volatile, keep last 10"
        one.close()
        assert other.wait_for(lambda graph: not graph.nodes() and not graph.endpoints(), 60)


def test_old_and_missing_attachments(router: Router, caplog: pytest.LogCaptureFixture) -> None:
    old = b"\x0fsequence_number" + bytes(8) + b"\x10source_timestamp" + bytes(8)
    old += b"\x0asource_gid\x10" + bytes(16)
    with router.open() as one, router.open() as other:
        received = subscribe(other)
        key = f"0/chatter/{STRING.dds_name}/{STRING.hash}"
        with caplog.at_level(logging.WARNING):

            def publish() -> bool:
                one.raw.put(key, b"old", attachment=old)
                return bool(received)

            wait_until(publish, what="a message")
            one.raw.put(key, b"none")
            wait_until(lambda: received[-1][0] == b"none", what="the message without attachment")
    assert received[0][1] == Attachment(0, 0, bytes(16), old=True)
    assert received[-1] == (b"none", None)
    [warning] = [record.getMessage() for record in caplog.records]
    assert "/chatter: received a message with an attachment of rmw_zenoh 0.2.3 or older" in warning
    assert "update rmw_zenoh there to 0.2.4 or newer" in warning


def test_closing_at_any_time(router: Router) -> None:
    with router.open() as one, router.open() as other:
        node = RosNode(other, "reader")
        closed = threading.Event()

        def on_message(*_: object) -> None:
            other.close()
            closed.set()

        node.subscription("chatter", STRING, on_message)
        publisher = RosNode(one, "talker").publisher("chatter", STRING)

        def publish() -> bool:
            publisher.publish(b"close")
            return closed.is_set()

        wait_until(publish, what="the callback")
        assert one.wait_for(lambda graph: len(graph.nodes()) == 1, 30)
        with pytest.raises(SessionError, match="the node /reader is closed"):
            node.publisher("x", STRING)
        publisher.close()
        publisher.close()
        with pytest.raises(SessionError, match="the publisher of /chatter is closed"):
            publisher.publish(b"x")
        threads = [threading.Thread(target=one.close) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with pytest.raises(SessionError, match="the session is closed"):
            RosNode(one, "late")


def test_an_endpoint_that_is_announced_while_its_node_closes(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce = ZenohPublisher._announce

    def late(publisher: ZenohPublisher) -> None:
        publisher.node.close()
        announce(publisher)

    monkeypatch.setattr(ZenohPublisher, "_announce", late)
    with router.open() as one, router.open() as other:
        node = RosNode(one, "talker")
        with pytest.raises(SessionError, match="the node /talker is closed"):
            node.publisher("chatter", STRING)
        RosNode(one, "later")
        assert other.wait_for(lambda graph: [node.name for node in graph.nodes()] == ["later"], 30)


def test_a_subscription_forgets_the_publishers_of_long_ago(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "_SENDERS", 2)
    with router.open() as one, router.open() as other:
        node = RosNode(other, "reader")
        received: Received = []
        subscription = node.subscription(
            "chatter", STRING, lambda *got: received.append(got), LATCHED
        )
        assert isinstance(subscription, endpoints.Subscription)
        for _ in range(4):
            publisher = publish_on(RosNode(one, "talker"), "chatter", LATCHED)
            arrives(publisher, received)
            last = publisher.gid
            publisher.close()
        assert len(subscription._joined) == 2
        assert list(subscription._joined)[-1] == last


def test_closing_while_others_publish(router: Router) -> None:
    with router.open() as one, router.open() as other:
        received = subscribe(other)
        publisher = RosNode(one, "talker").publisher("chatter", STRING, Qos(keep_all=True))
        ended: list[str] = []

        def publish() -> None:
            try:
                while True:
                    publisher.publish(bytes(1000))
            except SessionError as error:
                ended.append(str(error))

        threads = [threading.Thread(target=publish) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_until(lambda: received, what="messages")
        one.close()
        for thread in threads:
            thread.join(30)
        assert ended == ["the publisher of /chatter is closed"] * 3


def test_an_error_in_a_callback_is_logged(router: Router, caplog: pytest.LogCaptureFixture) -> None:
    with router.open() as one, router.open() as other:
        called: list[int] = []

        def on_message(*_: object) -> None:
            called.append(1)
            raise ValueError("from the callback")

        RosNode(other, "reader").subscription("chatter", STRING, on_message)
        publisher = RosNode(one, "talker").publisher("chatter", STRING)

        def publish() -> bool:
            publisher.publish(b"x")
            return len(called) > 1

        wait_until(publish, what="two calls")
    assert "from the callback" in caplog.text


def test_invalid_names(router: Router) -> None:
    with router.open() as session:
        with pytest.raises(InvalidName):
            RosNode(session, "a/b")
        node = RosNode(session, "a")
        with pytest.raises(InvalidName):
            node.publisher("a*", STRING)
        assert node.endpoints == set()


def test_a_killed_publisher_disappears(router: Router, tmp_path: Path) -> None:
    program = tmp_path / "talker.py"
    program.write_text(
        "import sys, time\n"
        "from dora_ros2.types import Types\n"
        "from dora_ros2.connection import RosNode\n"
        "from dora_ros2.zenoh.session import ZenohSession\n"
        "session = ZenohSession(router=sys.argv[1])\n"
        "string = Types().message('std_msgs/String')\n"
        "publisher = RosNode(session, 'talker').publisher('chatter', string)\n"
        "while True:\n"
        "    publisher.publish(b'x')\n"
        "    time.sleep(0.05)\n"
    )
    with router.open() as session:
        received = subscribe(session)
        with subprocess.Popen([sys.executable, str(program), router.endpoint]) as process:
            try:
                wait_until(lambda: received, what="a message of the process")
                assert [node.name for node in session.graph.nodes()] == ["reader", "talker"]
            finally:
                os.kill(process.pid, signal.SIGKILL)
        assert session.wait_for(lambda graph: len(graph.nodes()) == 1, 30)
        assert session.graph.topics()["/chatter"].offers == []


def test_waiting_for_a_router_that_starts_and_restarts() -> None:
    with running_router() as router:
        router.stop()
        states: list[str | None] = []
        with router.open(on_state=states.append) as one, router.open() as other:
            assert one.waiting == f"waits for a Zenoh router at {router.endpoint}"
            received = subscribe(other)
            publisher = publish_on(RosNode(one, "talker"), "chatter", LATCHED)
            router.start()
            wait_until(lambda: one.waiting is None, what="the router")
            arrives(publisher, received)
            router.stop()
            wait_until(lambda: one.waiting, what="the end of the router")
            router.start()
            wait_until(lambda: one.waiting is None and other.waiting is None, what="the router")
            with router.open() as third:
                assert third.wait_for(lambda graph: len(graph.nodes()) == 2, 30)
                late = subscribe(third, LATCHED)
                wait_until(lambda: late, what="a message to a late joiner")
    assert states == [states[0], None, states[0], None]


def test_clients_have_no_port_and_wait_for_their_router() -> None:
    with running_router() as router:
        router.stop()
        started = threading.Timer(0.5, router.start)
        states: list[str | None] = []

        def on_state(state: str | None) -> None:
            states.append(state)
            if state and not started.ident:
                started.start()

        override = 'mode="client"'
        with router.open(override=override, on_state=on_state) as one, router.open() as other:
            assert states == [f"waits for a Zenoh router at {router.endpoint}", None]
            started.join()
            received = subscribe(other)
            publisher = RosNode(one, "talker").publisher("chatter", STRING)
            arrives(publisher, received)
            router.stop()
            wait_until(lambda: one.waiting, what="the end of the router")
            router.start()
            wait_until(lambda: one.waiting is None, what="the router")
            arrives(publisher, received)
