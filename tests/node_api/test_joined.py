"""`Node.joined`: samples in the stream of a node, of operators and inside asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import pyarrow as pa
import pytest
from support.fake_runner import FakeRunner

from dora import Join, Sample
from dora_node_api import Node, events
from dora_node_api.errors import OperatorError
from dora_node_api.joined import NothingYet, SampleQueue
from dora_node_api.operators import OperatorHost, construct
from dora_node_api.protocol.messages import InputConfig, NodeConfig, OperatorConfig
from dora_node_api.testing import MockNode

Open = Callable[[str], Node]
SECOND = 1_000_000_000
NOON = 1_800_000_000 * SECOND


def message(name: str, value: Any, milliseconds: float, **metadata: Any) -> dict[str, Any]:
    """An event whose message was captured so long after noon."""
    stamp = NOON + round(milliseconds * 1e6)
    return {"type": "INPUT", "id": name, "value": value, "metadata": {"stamp": stamp, **metadata}}


def shown(found: Any) -> Any:
    """A sample as the values of its messages, another event as its type and id."""
    if isinstance(found, Sample):
        return {name: one.value for name, one in found.inputs.items()}
    return f"{found['type']} {found.get('id')}"


TWO_CAMERAS = [
    message("state", "s0", -5),
    message("front", "f0", 0),
    message("state", "s1", 4),
    message("wrist", "w0", 7),
    {"type": "PARAM_UPDATE", "id": "speed", "value": 2},
    {"type": "INPUT", "id": "chat", "value": "hello", "metadata": {}},
    message("state", "s2", 30),
    message("front", "f1", 33),
    message("wrist", "w1", 80),
    message("state", "s3", 90),
    message("front", "f2", 85),
]
SAMPLES = [
    {"front": "f0", "wrist": "w0", "state": "s1"},
    "PARAM_UPDATE speed",
    "INPUT chat",
    {"front": "f2", "wrist": "w1", "state": "s3"},
    "STOP ALL_INPUTS_CLOSED",
]


def test_two_cameras_and_joints() -> None:
    node = MockNode(TWO_CAMERAS)
    found = list(node.joined("front", "wrist", "state", within=0.02))
    assert [shown(one) for one in found] == SAMPLES
    sample = found[0]
    assert isinstance(sample, Sample)
    assert sample["type"] == "SAMPLE"
    assert sample["front"].value == "f0"
    assert sample["state"].metadata["stamp"] == NOON + 4_000_000
    assert sample.time == datetime.fromtimestamp(NOON / SECOND, UTC)
    assert sample.spread == pytest.approx(0.007)


def test_the_same_inside_asyncio_and_as_typed_events() -> None:
    async def main() -> list[Any]:
        node = MockNode(TWO_CAMERAS)
        return [shown(one) async for one in node.joined("front", "wrist", "state", within=0.02)]

    assert asyncio.run(main()) == SAMPLES
    stream = MockNode(TWO_CAMERAS).joined("front", "wrist", "state", within=0.02).events()
    typed = list(stream)
    assert [type(one) for one in typed] == [
        Sample,
        events.ParamUpdated,
        events.InputEvent,
        Sample,
        events.Stop,
    ]


def test_a_test_without_times_is_told_what_is_missing() -> None:
    node = MockNode([("front", 1)])
    with pytest.raises(ValueError, match="message of input `front` has no time; give it a `stamp`"):
        next(node.joined("front", "wrist", within=0.02))


@pytest.mark.parametrize(
    "stamp",
    [
        NOON,
        NOON / SECOND,
        datetime.fromtimestamp(NOON / SECOND, UTC),
        datetime.fromtimestamp(NOON / SECOND),
    ],
)
def test_forms_of_stamps(stamp: object) -> None:
    other = message("wrist", "w", 3)
    node = MockNode([message("front", "f", 0, stamp=stamp), other])
    sample = next(node.joined("front", "wrist", within=0.02))
    assert shown(sample) == {"front": "f", "wrist": "w"}


def test_a_stamp_that_is_not_a_time_is_as_none() -> None:
    noon = datetime.fromtimestamp(NOON / SECOND, UTC)
    unset = [message("front", one, 0, stamp=one, timestamp=noon) for one in (0, 0.0, "noon")]
    node = MockNode([*unset, message("wrist", "w", 0)])
    samples = node.joined("front", "wrist", within=0.02)
    with pytest.warns(UserWarning, match="is 'noon', which is not a time"):
        assert [shown(next(samples))["front"] for _ in unset] == [0, 0.0, "noon"]


@pytest.mark.parametrize(
    "stamp", ["yesterday", "2027-01-15T08:00:00Z", True, [1, 2], float("nan"), 1e300]
)
def test_a_stamp_that_is_no_time_is_named_once(
    monkeypatch: pytest.MonkeyPatch, stamp: object
) -> None:
    inputs = Inputs(monkeypatch)
    noon = datetime.fromtimestamp(NOON / SECOND, UTC)
    for value in (stamp, stamp, 0, 0.0, None):
        inputs.put(message("front", 0, 0, stamp=value, timestamp=noon))
    (warning,) = inputs.warnings
    assert warning == (
        f"joined: the `stamp` of a message of input `front` is {stamp!r}, which is not a time; send"
        " nanoseconds, seconds or a datetime; until then the time of the send counts"
    )


def test_an_input_that_ends_is_not_waited_for() -> None:
    ended = {"type": "INPUT_CLOSED", "id": "wrist"}
    later = [message("front", f"f{number}", number) for number in range(5)]
    node = MockNode([message("wrist", "w", 2), message("front", "f", 0), ended, *later])
    found = [shown(one) for one in node.joined("front", "wrist", within=0.002)]
    assert found == [
        {"front": "f", "wrist": "w"},
        "INPUT_CLOSED wrist",
        *({"front": f"f{number}", "wrist": "w"} for number in range(5)),
        "STOP ALL_INPUTS_CLOSED",
    ]


def test_the_arguments_are_checked(runner: FakeRunner, open_node: Open) -> None:
    runner.connect("a/out", "b/front")
    node = open_node("b")
    with pytest.raises(ValueError, match=r"`wrist` does not exist; inputs: front"):
        node.joined("front", "wrist", within=0.02)
    with pytest.raises(ValueError, match="different inputs"):
        node.joined("front", "front", within=0.02)
    with pytest.raises(ValueError, match="invalid `within` of -1 seconds"):
        node.joined("front", within=-1)
    with pytest.raises(TypeError, match=r"`within` must be a number of seconds, not '0\.02'"):
        node.joined("front", within="0.02")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`wait` must be a number of seconds, not None"):
        node.joined("front", within=1, wait=None)  # type: ignore[arg-type]


def test_a_fault_of_the_stamps_is_named_once() -> None:
    hour = 3_600_000
    wrong = [
        one
        for number in range(0, 3000, 33)
        for one in (message("front", 0, number), message("wrist", 0, number + hour))
    ]
    with pytest.warns(UserWarning, match="joined") as warned:
        assert len(list(MockNode(wrong).joined("front", "wrist", within=0.02))) == 1
    (one,) = warned
    assert str(one.message) == (
        "joined: 20 messages of input `front` have no message of input `wrist` within 0.02 s: the"
        " nearest one was captured 3.6e+03 s after it; raise `within`, or correct the `stamp` in"
        " the metadata of one of them"
    )


class Inputs:
    """Two joined inputs, whose messages arrive when they are captured."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0
        self.warnings: list[str] = []
        backend = MockNode()._backend
        monkeypatch.setattr(backend, "clock_ns", lambda: self.now)
        monkeypatch.setattr(backend, "warn", self.warnings.append)
        self.queue = SampleQueue(Join("front", "wrist", within=0.02), backend)

    def put(self, event: dict[str, Any] | None) -> None:
        self.queue.put(event)
        with contextlib.suppress(NothingYet):
            while True:
                self.queue.take()

    def capture(self, milliseconds: int, *names: str) -> None:
        self.now = milliseconds * 1_000_000
        for name in names:
            self.put(message(name, 0, milliseconds))


PERIODS = range(0, 5000, 33)


def test_a_sender_that_stops_sending_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = Inputs(monkeypatch)
    inputs.capture(0, "wrist")
    for number in PERIODS:
        inputs.capture(number, "front")
    (warning,) = inputs.warnings
    assert "input `wrist` within 0.02 s: it has received nothing for 1." in warning
    assert "`dora why`" in warning


def test_a_sender_that_stops_is_named_after_another_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = Inputs(monkeypatch)
    for number in PERIODS:
        inputs.capture(number, "front")
        inputs.put(message("wrist", 0, number - 100_000))
    for number in PERIODS:
        inputs.capture(5000 + number, "front")
    inputs.put({"type": "INPUT_CLOSED", "id": "wrist"})
    for number in PERIODS:
        inputs.capture(10000 + number, "front")
    near, silent, closed = inputs.warnings
    assert "raise `within`" in near
    assert "it has received nothing for" in silent
    assert "it is closed; look" in closed


def test_the_stop_of_the_node_is_no_fault_of_an_input(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = Inputs(monkeypatch)
    for number in range(30):
        inputs.capture(number, "front")
    inputs.put({"type": "STOP", "id": "MANUAL"})
    assert inputs.warnings == []


# --- over shared memory -------------------------------------------------------------------------


@pytest.fixture
def cameras(runner: FakeRunner, open_node: Open) -> tuple[Node, Node, Node]:
    """Two cameras and their reader."""
    runner.connect("front/image", "policy/front")
    runner.connect("wrist/image", "policy/wrist")
    return open_node("front"), open_node("wrist"), open_node("policy")


def test_a_better_message_is_waited_for_no_longer_than_within(
    cameras: tuple[Node, Node, Node],
) -> None:
    front, wrist, policy = cameras
    stamp = {"stamp": time.time_ns()}
    wrist.send_output("image", pa.array([1]), {"stamp": stamp["stamp"] - 1000})
    front.send_output("image", pa.array([2]), stamp)
    joined = policy.joined("front", "wrist", within=0.2)
    begin = time.monotonic()
    sample = joined.next(timeout=60)
    assert isinstance(sample, Sample)
    assert sample["wrist"].value[0].as_py() == 1
    assert time.monotonic() - begin > 0.1
    assert abs(datetime.now(UTC) - sample.time) < timedelta(seconds=60)
    timed_out = joined.next(timeout=0.01)
    assert timed_out is not None
    assert "timed out after 0.01 s" in timed_out["error"]


def test_cancelling_loses_no_sample(cameras: tuple[Node, Node, Node]) -> None:
    front, wrist, policy = cameras
    joined = policy.joined("front", "wrist", within=0.3)
    now = time.time_ns()

    async def main() -> list[int]:
        found: list[int] = []
        for number in range(20):
            waiting = asyncio.create_task(joined.recv_async())
            await asyncio.sleep(0)
            metadata = {"stamp": now + number * SECOND}
            front.send_output("image", pa.array([number]), metadata)
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            wrist.send_output("image", pa.array([number]), metadata)
            sample = await joined.recv_async(timeout=60)
            assert isinstance(sample, Sample)
            found += [one.value[0].as_py() for one in sample.inputs.values()]
        return found

    assert asyncio.run(main()) == [number for number in range(20) for _ in ("front", "wrist")]


@pytest.mark.parametrize("wrong_by", [-(10**15), 10**18], ids=["behind", "ahead"])
def test_the_clock_of_the_sender_may_be_wrong(
    cameras: tuple[Node, Node, Node], monkeypatch: pytest.MonkeyPatch, wrong_by: int
) -> None:
    """Its stamps are from the same clock as the times of its sends."""
    front, _, policy = cameras
    policy.correct_times("front")
    wrong = time.time_ns() + wrong_by
    monkeypatch.setattr("dora_node_api.transport.producer.sending._time_ns", lambda: wrong)
    front.send_output("image", pa.array([1]), {"stamp": wrong - 100 * SECOND})
    sent = time.monotonic_ns()
    event = policy.next(timeout=60)
    assert event is not None
    assert sent - event["captured_ns"] == pytest.approx(100 * SECOND, abs=50 * SECOND)


def test_unmatched_messages_are_counted(
    runner: FakeRunner, open_node: Open, cameras: tuple[Node, Node, Node]
) -> None:
    front, wrist, policy = cameras
    joined = policy.joined("front", "wrist", within=0.2)
    now = time.time_ns()
    for number in range(3):
        front.send_output("image", pa.array([number]), {"stamp": now + number * SECOND})
        wrist.send_output("image", pa.array([number]), {"stamp": now + number * SECOND // 2})
    assert isinstance(joined.next(timeout=60), Sample)
    assert isinstance(joined.next(timeout=60), Sample)
    front.close_outputs("image")
    wrist.close_outputs("image")
    edges = {edge.spec.input: edge.keeper.statistics() for edge in runner.edges}
    assert (edges["front"].received, edges["front"].unmatched) == (3, 0)
    assert (edges["wrist"].received, edges["wrist"].unmatched) == (3, 1)


# --- operators ----------------------------------------------------------------------------------

OPERATOR = """
    from dora import DoraStatus, Join

    class Operator:
        joined = Join("front", "wrist", within=0.02)

        def __init__(self):
            self.seen = []

        def on_event(self, dora_event, send_output):
            self.seen.append(dora_event)
            return DoraStatus.CONTINUE
"""


def operator_host(node: MockNode, folder: Path, text: str = OPERATOR) -> OperatorHost:
    path = folder / "policy.py"
    path.write_text(dedent(text))
    names = ("front", "wrist", "chat")
    config = NodeConfig(
        dataflow_id="d",
        node_id="n",
        inputs=tuple(InputConfig(id=f"policy/{name}", source=f"{name}/image") for name in names),
        operators=(OperatorConfig(id="policy", python=str(path)),),
    )
    node._backend.config = config
    return OperatorHost(node, config, construct(config.operators))


def test_an_operator_gets_samples(tmp_path: Path) -> None:
    host = operator_host(MockNode(), tmp_path)
    for event in [
        message("policy/front", "f", 0),
        message("policy/chat", "hello", 0),
        message("policy/wrist", "w", 3),
        {"type": "INPUT_ENDED", "id": "policy/front"},
        {"type": "INPUT_ENDED", "id": "policy/wrist"},
        {"type": "INPUT_ENDED", "id": "policy/chat"},
    ]:
        host.handle(event)
    (operator,) = host.operators
    found = [shown(event) for event in operator.object.seen]
    assert found == ["INPUT chat", {"front": "f", "wrist": "w"}, "STOP ALL_INPUTS_CLOSED"]
    assert host.ended


def test_the_wait_of_an_operator_for_a_sample(tmp_path: Path) -> None:
    node = MockNode()
    host = operator_host(node, tmp_path)
    assert host.seconds_left() is None
    host.handle(message("policy/wrist", "w", -3))
    host.handle(message("policy/front", "f", 0))
    assert host.seconds_left() == pytest.approx(0.02)
    node._backend.clock_ns = lambda: SECOND  # type: ignore[method-assign]
    host.handle_samples()
    (operator,) = host.operators
    assert [shown(event) for event in operator.object.seen] == [{"front": "f", "wrist": "w"}]


def test_a_reload_keeps_the_waiting_messages(tmp_path: Path) -> None:
    host = operator_host(MockNode(), tmp_path)
    host.handle(message("policy/front", "f", 0))
    host.handle({"type": "RELOAD"})
    host.handle(message("policy/wrist", "w", 3))
    (operator,) = host.operators
    assert [shown(event) for event in operator.object.seen] == [{"front": "f", "wrist": "w"}]
    assert operator.object.joined == Join("front", "wrist", within=0.02)


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ('"front"', r"operator `policy`: `joined` is 'front'; expected dora\.Join"),
        ('Join("left", within=1)', r"operator `policy`: joined input `left` does not exist"),
    ],
)
def test_what_an_operator_joins_is_checked(tmp_path: Path, written: str, problem: str) -> None:
    text = OPERATOR.replace('Join("front", "wrist", within=0.02)', written)
    with pytest.raises(OperatorError, match=problem):
        operator_host(MockNode(), tmp_path, text)
