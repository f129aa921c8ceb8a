"""Topics and services with zenoh-ros2-sdk, both ways, over a router of our own."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ros2.conftest import ZENOH_SDK
from ros2.routers import Router, running_router
from support.waiting import wait_until

from dora_ros2.connection import RosNode
from dora_ros2.types import Types
from dora_ros2.zenoh.endpoints import ServiceRequest
from dora_ros2.zenoh.graph import Profile
from dora_ros2.zenoh.session import ZenohSession
from dora_ros2.zenoh.tokens import Attachment

WORKER = Path(__file__).with_name("sdk_worker.py")
STRING = Types().message("std_msgs/msg/String")
ADD = Types().service("example_interfaces/srv/AddTwoInts")


@contextmanager
def worker(router: Router, word: str) -> Iterator[subprocess.Popen[str]]:
    """The worker in one of its roles."""
    command = [os.environ[ZENOH_SDK], str(WORKER), str(router.port), word]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def beside(word: str) -> Iterator[tuple[ZenohSession, subprocess.Popen[str]]]:
    """A session of ours, and the worker in one of its roles."""
    with (
        running_router() as router,
        router.open() as session,
        worker(router, word) as process,
    ):
        yield session, process


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def test_messages_from_the_sdk() -> None:
    with beside("talk") as (session, _):
        received: list[tuple[bytes, Attachment | None]] = []
        node = RosNode(session, "reader")
        node.subscription("from_sdk", STRING, lambda *got: received.append(got))
        wait_until(lambda: len(received) >= 40, what="messages of the SDK")
        texts = [STRING.decode(payload).to_pylist()[0]["data"] for payload, _ in received]
        first = int(texts[0].split()[0])
        assert texts == [f"{number} ü" for number in range(first, first + len(texts))]
        attachments = [attachment for _, attachment in received if attachment]
        assert len(attachments) == len(received)
        assert not any(attachment.old for attachment in attachments)
        topic = session.graph.topics()["/from_sdk"]
        assert (topic.types, [offer.node.name for offer in topic.offers]) == (
            ["std_msgs/msg/String"],
            ["sdk"],
        )
        assert topic.offers[0].hash == STRING.hash
        assert session.profile is Profile.REP2016


def test_messages_to_the_sdk() -> None:
    with beside("listen") as (session, process):
        assert line(process) == "ready"
        publisher = RosNode(session, "talker").publisher("to_sdk", STRING)
        assert session.wait_for(lambda graph: graph.topics()["/to_sdk"].uses, 30)
        printed = process.stdout
        assert printed is not None

        def arrives() -> bool:
            """The SDK announces a subscription before its messages reach it."""
            publisher.publish(STRING.encode({"data": "first"}))
            return bool(select.select([printed], [], [], 0.1)[0])

        wait_until(arrives, what="the first message")
        for number in range(40):
            publisher.publish(STRING.encode({"data": f"{number} ü"}))
        later = iter(lambda: line(process), "39 ü")
        texts = [text for text in later if text != "first"]
        assert texts == [f"{number} ü" for number in range(39)]


def test_requests_to_the_sdk() -> None:
    with beside("serve") as (session, _):
        client = RosNode(session, "client").service_client("/robot/add", ADD)
        assert client.wait_for_server(60)
        futures = [client.call(ADD.request.encode({"a": n, "b": 40})) for n in range(5)]
        sums = [ADD.response.decode(future.result(30)).to_pylist()[0]["sum"] for future in futures]
        assert sums == [40, 41, 42, 43, 44]


def test_requests_from_the_sdk() -> None:
    def add(request: ServiceRequest) -> None:
        numbers = ADD.request.decode(request.payload).to_pylist()[0]
        request.reply(ADD.response.encode({"sum": numbers["a"] + numbers["b"]}))

    with running_router() as router, router.open() as session:
        RosNode(session, "server").service_server("/robot/add", ADD, add)
        with worker(router, "call") as process:
            assert [line(process) for _ in range(6)] == ["ready", "40", "41", "42", "43", "44"]
