"""Order of a node's events, without sockets, pipes or clocks."""

from __future__ import annotations

import copy
import pickle
from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from dora_node_api.events import InputEvent, from_dict
from dora_node_api.frozen import replace
from dora_node_api.protocol import messages as control
from dora_node_api.protocol.messages import InputConfig, NodeConfig, OperatorConfig
from dora_node_api.protocol.session import Event, SendOffset, Session, Tick
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.shared.errors import BrokenRecord
from dora_node_api.transport.shared.layout import RecordKind

SECOND = 1_000_000_000


@dataclass
class FakeDelivery:
    value: Any = None
    kind: RecordKind = RecordKind.DATA
    sent_ns: int = 0
    timestamp_ns: int = 0
    error: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)

    def content(self) -> tuple[Any, dict[str, Any]]:
        return self.value, self.metadata


def message(value: object, sent: int = 0) -> FakeDelivery:
    return FakeDelivery(value=value, sent_ns=sent)


CLOSED = FakeDelivery(kind=RecordKind.CLOSED)
RESTARTED = FakeDelivery(kind=RecordKind.NODE_RESTARTED)
FAILED = FakeDelivery(kind=RecordKind.NODE_FAILED, error="exited with code 3")


class Bench:
    """A session whose queues are lists, and a clock that the test turns."""

    def __init__(self, **config: Any) -> None:
        self.session = Session(
            NodeConfig(dataflow_id="d", node_id="n", **config),
            wall_time=lambda ago: -ago,
        )
        self.queues: dict[str, deque[FakeDelivery]] = {}
        self.now = 0

    def input(self, name: str, source: str = "a/out", **options: Any) -> Bench:
        queue: deque[FakeDelivery] = deque()
        entry = InputConfig(id=name, source=source, source_node=source.partition("/")[0])
        self.queues[name] = queue
        self.session.add_input(
            replace(entry, **options),
            lambda: cast(Delivery, queue.popleft()) if queue else None,
            lambda: bool(queue),
            now=self.now,
        )
        return self

    def timer(self, name: str, seconds: float, **options: Any) -> Bench:
        entry = InputConfig(id=name, source="dora/timer", source_kind="timer")
        entry = replace(entry, interval_ns=int(seconds * SECOND), **options)
        self.session.add_input(entry, now=self.now)
        return self

    def put(self, name: str, *deliveries: FakeDelivery) -> Bench:
        self.queues[name].extend(deliveries)
        return self

    def event(self) -> Event | None:
        return self.session.next_event(self.now)

    def events(self) -> list[str]:
        """All events that are due, in short form: `INPUT a 1`, `STOP MANUAL`."""
        short = []
        while (event := self.event()) is not None:
            words = [event["type"], event.get("id"), event.get("value")]
            short.append(" ".join(str(word) for word in words if word is not None))
        return short


def test_a_message_is_a_dictionary_with_exactly_these_keys() -> None:
    bench = Bench().input("in").put("in", message("v"))
    assert bench.event() == {
        "type": "INPUT",
        "id": "in",
        "value": "v",
        "metadata": {},
        "kind": "dora",
    }


def test_an_input_keeps_its_order_and_closes_last() -> None:
    bench = Bench().input("in").input("other", "b/out")
    bench.put("in", message(1), message(2), CLOSED)
    assert bench.events() == ["INPUT in 1", "INPUT in 2", "INPUT_CLOSED in"]


def test_inputs_take_turns() -> None:
    bench = Bench().input("a").input("b").input("c")
    bench.put("a", *map(message, range(4))).put("b", *map(message, range(2))).put("c", message(0))
    assert [word.split()[1] for word in bench.events()] == ["a", "b", "c", "a", "b", "a", "a"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=60))
def test_no_input_starves_and_none_loses_its_order(traffic: list[tuple[str, int]]) -> None:
    bench = Bench().input("a").input("b").input("c")
    sent: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    got: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    waited = dict.fromkeys("abc", 0)
    for name, takes in traffic:
        sent[name].append(len(sent[name]))
        bench.put(name, message(sent[name][-1]))
        for _ in range(takes):
            event = bench.event()
            if event is None:
                break
            got[event["id"]].append(event["value"])
            for other in "abc":
                waits = other != event["id"] and bool(bench.queues[other])
                waited[other] = waited[other] + 1 if waits else 0
            assert max(waited.values()) <= 2
    for name, values in got.items():
        assert values == sent[name][: len(values)]


def test_stop_overtakes_data_and_ends_the_stream() -> None:
    bench = Bench().input("in").put("in", message(1))
    bench.session.handle(control.StopNode())
    bench.session.handle(control.StopNode("again"))
    assert bench.events() == ["STOP MANUAL"]
    assert bench.session.ended


def test_parameters_and_reload_come_first() -> None:
    bench = Bench().input("in").put("in", message(1))
    bench.session.handle(control.SetParam("speed", 0.4))
    bench.session.handle(control.DeleteParam("speed"))
    bench.session.handle(control.ReloadOperator("op"))
    bench.session.handle(control.ReloadOperator())
    bench.session.handle(control.UnknownMessage("dance"))
    assert bench.events() == [
        "PARAM_UPDATE speed 0.4",
        "PARAM_DELETED speed",
        "RELOAD op",
        "RELOAD",
        "UNKNOWN",
        "INPUT in 1",
    ]


# --- what ends ---------------------------------------------------------------------------------


def test_the_last_input_brings_stop() -> None:
    bench = Bench().input("a").input("b", "b/out")
    bench.put("a", message(1), CLOSED)
    assert bench.events() == ["INPUT a 1", "INPUT_CLOSED a"]
    bench.put("b", CLOSED)
    assert bench.events() == ["INPUT_CLOSED b", "STOP ALL_INPUTS_CLOSED"]


@pytest.mark.parametrize("finish", [False, True])
def test_an_open_timer_keeps_a_node_unless_only_data_counts(finish: bool) -> None:
    bench = Bench(exit_when_nodes_finish=finish).input("a").timer("tick", 1)
    bench.put("a", CLOSED)
    expected = ["STOP ALL_INPUTS_CLOSED"] if finish else []
    assert bench.events() == ["INPUT_CLOSED a", *expected]


def test_a_node_with_only_timers_gets_no_stop() -> None:
    bench = Bench(exit_when_nodes_finish=True).timer("tick", 1)
    bench.session.start(0)
    assert bench.events() == ["INPUT tick 0 nulls"]
    assert bench.session.stopping is None


def test_a_removed_input_closes() -> None:
    bench = Bench().input("a").input("b")
    bench.session.handle(control.RemoveInput("a"))
    bench.session.handle(control.RemoveInput("a"))
    assert bench.events() == ["INPUT_CLOSED a"]
    bench.session.handle(control.RemoveInput("b"))
    assert bench.events() == ["INPUT_CLOSED b", "STOP ALL_INPUTS_CLOSED"]


# --- upstream nodes ----------------------------------------------------------------------------


def test_a_failure_is_one_event_for_all_inputs() -> None:
    bench = Bench().input("x", "lidar/scan").input("y", "lidar/points").input("z", "b/out")
    bench.put("x", FAILED, CLOSED).put("y", message(1), FAILED, CLOSED)
    first = bench.event()
    assert first == {
        "type": "NODE_FAILED",
        "id": "lidar",
        "value": {
            "source_node_id": "lidar",
            "error": "exited with code 3",
            "affected_input_ids": ["x", "y"],
        },
        "kind": "dora",
    }
    assert bench.events() == ["INPUT y 1", "INPUT_CLOSED x", "INPUT_CLOSED y"]


def test_each_restart_is_one_event() -> None:
    bench = Bench().input("x", "lidar/scan").input("y", "lidar/points")
    bench.put("x", RESTARTED, message(1), RESTARTED).put("y", RESTARTED, RESTARTED, message(2))
    assert sorted(bench.events()) == [
        "INPUT x 1",
        "INPUT y 2",
        "NODE_RESTARTED lidar",
        "NODE_RESTARTED lidar",
    ]


# --- input_timeout -----------------------------------------------------------------------------


def test_a_silent_input_closes_and_recovers() -> None:
    bench = Bench().input("in", input_timeout=2.0).input("other", "b/out")
    bench.now = 100 * SECOND
    assert bench.events() == []  # armed by the first message only
    assert bench.session.deadline() is None
    bench.put("in", message(1, sent=bench.now))
    assert bench.events() == ["INPUT in 1"]
    assert bench.session.deadline() == 102 * SECOND
    bench.now = 102 * SECOND
    assert bench.events() == ["INPUT_CLOSED in"]
    assert bench.session.deadline() is None
    bench.put("in", message(2, sent=bench.now), message(3, sent=bench.now))
    assert bench.events() == ["INPUT_RECOVERED in", "INPUT in 2", "INPUT in 3"]


def test_time_that_a_message_waits_is_not_silence() -> None:
    bench = Bench().input("in", input_timeout=2.0)
    bench.put("in", message(1, sent=0))
    bench.event()
    bench.now = 9 * SECOND
    bench.put("in", message(2, sent=8 * SECOND))
    assert bench.events() == ["INPUT in 2"]


def test_a_timed_out_input_is_not_closed_for_good() -> None:
    bench = Bench().input("in", input_timeout=1.0).input("other", "b/out")
    bench.put("in", message(1))
    bench.event()
    bench.now = SECOND
    bench.put("other", CLOSED)
    # Both closed in the user's eyes, but one may come back.
    assert bench.events() == ["INPUT_CLOSED other", "INPUT_CLOSED in"]
    bench.put("in", CLOSED)
    assert bench.events() == ["STOP ALL_INPUTS_CLOSED"]  # `in` was reported before


def test_the_host_of_operators_gets_the_end_of_an_input_that_timed_out() -> None:
    bench = Bench(operators=(OperatorConfig(id="op", python="op.py"),))
    bench.input("op/in", input_timeout=1.0).input("op/other", "b/out")
    bench.put("op/in", message(1))
    assert bench.events() == ["INPUT op/in 1"]
    bench.now = 2 * SECOND
    assert bench.events() == ["INPUT_CLOSED op/in"]
    bench.put("op/in", CLOSED)
    assert bench.events() == ["INPUT_ENDED op/in"]
    bench.put("op/other", CLOSED)
    last = ["INPUT_CLOSED op/other", "INPUT_ENDED op/other", "STOP ALL_INPUTS_CLOSED"]
    assert bench.events() == last


# --- timers ------------------------------------------------------------------------------------


def test_the_first_tick_comes_at_once_and_the_next_after_the_interval() -> None:
    bench = Bench().timer("tick", 0.5)
    assert bench.event() is None
    assert bench.session.deadline() is None
    bench.now = bench_start = 7 * SECOND
    bench.session.start(bench_start)
    assert bench.event() == {
        "type": "INPUT",
        "id": "tick",
        "value": pa.nulls(0),
        "metadata": {"timestamp": 0},
        "kind": "dora",
    }
    assert bench.event() is None
    assert bench.session.deadline() == bench_start + SECOND // 2


def test_a_tick_is_a_dictionary_whose_value_is_made_when_it_is_read() -> None:
    bench = Bench().timer("tick", 1, queue_size=100)
    bench.session.start(0)
    bench.now = 100 * SECOND
    nothing = pa.nulls(0)

    def tick() -> Event:
        event = bench.event()
        assert event is not None
        assert not dict.__contains__(event, "value")
        return event

    event = tick()
    assert "value" in event
    assert "other" not in event
    assert event.get("id") == "tick"
    assert event.get("other", 3) == 3
    with pytest.raises(KeyError):
        event["other"]
    assert not dict.__contains__(event.copy(), "value")
    assert not dict.__contains__(event, "value")
    keys = {"type", "id", "metadata", "kind", "value"}
    assert tick()["value"] is tick()["value"]
    assert {**tick()}.keys() == dict(tick()).keys() == tick().keys() == keys
    assert len(tick()) == len(keys)
    assert "NullArray" in repr(tick())
    assert list(tick().values())[-1] == tick().get("value") == tick().pop("value") == nothing
    for same in (tick() | {}, copy.deepcopy(event), pickle.loads(pickle.dumps(event))):
        assert same.keys() == keys
        assert same["value"] == nothing
    match event.copy():
        case {"id": "tick", "value": value}:
            assert value == nothing
        case _:
            pytest.fail("a tick has no value in a pattern")


def test_typed_ticks_have_a_value_when_it_is_read() -> None:
    typed = from_dict(Tick(type="INPUT", id="tick", metadata={}, kind="dora"))
    assert isinstance(typed, InputEvent)
    assert typed.id == "tick"
    assert typed.value == pa.nulls(0)
    assert typed == InputEvent("tick", typed.value, {})
    with pytest.raises(AttributeError, match="nothing"):
        typed.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_a_late_reader_gets_the_newest_ticks_only() -> None:
    bench = Bench().timer("tick", 1, queue_size=3)
    bench.session.start(0)
    bench.now = 100 * SECOND + SECOND // 4
    ticks = []
    while (event := bench.event()) is not None:
        ticks.append(event["metadata"]["timestamp"])
    assert ticks == [-(2 * SECOND + SECOND // 4), -(SECOND + SECOND // 4), -SECOND // 4]


def test_an_added_timer_begins_with_its_next_tick() -> None:
    bench = Bench().input("in")
    bench.session.start(0)
    bench.now = int(10.2 * SECOND)
    bench.timer("tick", 0.5)
    assert not bench.session.waiting(bench.now)
    assert bench.session.deadline() == int(10.5 * SECOND)
    assert bench.events() == []
    bench.now = int(10.6 * SECOND)
    assert len(bench.events()) == 1


def test_a_busy_timer_does_not_starve_an_input() -> None:
    bench = Bench().timer("tick", 0.001, queue_size=1).input("in")
    bench.session.start(0)
    bench.put("in", message(1), message(2))
    seen = []
    for _ in range(4):
        bench.now += SECOND
        event = bench.event()
        assert event is not None
        seen.append(event["id"])
    assert seen == ["tick", "in", "tick", "in"]


def test_an_input_that_ended_a_wait_alone_is_read_alone() -> None:
    bench = Bench().input("a").input("b").put("b", message(1), CLOSED)
    session = bench.session
    assert session.next_of("a", bench.now) is None
    assert session.next_of("gone", bench.now) is None
    event = session.next_of("b", bench.now)
    assert event is not None
    assert (event["id"], event["value"]) == ("b", 1)
    assert session.next_of("b", bench.now) is None, "its end is an event of `next_event`"
    bench.put("a", message(3))
    assert session.next_of("a", bench.now) is None, "events that came before are first"
    assert bench.events() == ["INPUT_CLOSED b", "INPUT a 3"]


# --- what is broken ----------------------------------------------------------------------------


class Undecodable(FakeDelivery):
    @property
    def value(self) -> Any:
        raise BrokenRecord("a/out -> n/in", "no such type")

    @value.setter
    def value(self, value: Any) -> None: ...


def test_an_undecodable_message_is_an_error_event() -> None:
    bench = Bench().input("in").put("in", Undecodable(), message(2))
    event = bench.event()
    assert event is not None
    assert event["type"] == "ERROR"
    assert "no such type" in event["error"]
    assert bench.events() == ["INPUT in 2"]


def test_a_reconnected_input_takes_the_new_source() -> None:
    bench = Bench().input("in", "old/out").input("other")
    bench.put("in", CLOSED)
    assert bench.events() == ["INPUT_CLOSED in"]
    bench.input("in", "new/out").put("in", message(5))
    assert bench.events() == ["INPUT in 5"]


# --- times of captures --------------------------------------------------------------------------


def captured(bench: Bench, sent: int, wall: int, **metadata: Any) -> int:
    """When a message was captured that its sender sent at `wall` by its own clock."""
    bench.put("in", FakeDelivery(sent_ns=sent, timestamp_ns=wall, metadata=metadata))
    event = bench.event()
    assert event is not None
    found: int = event["captured_ns"]
    return found


@pytest.mark.parametrize("wall", [5, 1_800_000_000 * SECOND], ids=["1970", "2027"])
def test_the_capture_is_as_long_before_the_send_as_the_sender_measured(wall: int) -> None:
    bench = Bench().input("in")
    bench.session.correct_times(["in"])
    assert captured(bench, 70 * SECOND, wall, stamp=wall - SECOND) == 69 * SECOND
    assert captured(bench, 71 * SECOND, wall + SECOND) == 71 * SECOND
    assert captured(bench, 72 * SECOND, wall + 2 * SECOND, stamp=0) == 72 * SECOND
    bench.input("in")  # connected again
    assert captured(bench, 75 * SECOND, wall, stamp=wall - SECOND) == 74 * SECOND


def test_only_the_events_of_named_inputs_have_it() -> None:
    bench = Bench().input("in").input("other").timer("tick", 1)
    bench.session.start(0)
    bench.session.correct_times(["in", "tick"])
    bench.put("in", message(1)).put("other", message(1))
    bench.now = SECOND + 7
    events = [bench.event() for _ in range(3)]
    assert {event["id"]: "captured_ns" in event for event in events if event} == {
        "in": True,
        "other": False,
        "tick": True,
    }


def test_a_sender_that_waited_for_room_has_captured_before() -> None:
    """The time of its record is that after the wait, the time of its clock the one before."""
    bench = Bench().input("in")
    bench.session.correct_times(["in"])
    assert captured(bench, 10 * SECOND, 100 * SECOND) == 10 * SECOND
    assert captured(bench, 14 * SECOND, 101 * SECOND) == 11 * SECOND


def test_the_offset_of_a_clock_follows_it() -> None:
    offset = SendOffset()
    assert offset.add(1000, now=0) == 1000
    assert offset.add(900, now=1) == 900  # the clock was set forward, or fewer interruptions
    assert offset.add(950, now=2 * SECOND) == 900
    assert offset.add(960, now=4 * SECOND) == 950
    assert offset.add(970, now=6 * SECOND) == 960
    back = 3600 * SECOND  # it was set back, or a message comes late over a link that began anew
    assert [offset.add(back, now=one * SECOND) for one in (6, 8, 10)] == [960, 970, back]
    offset.reset()
    assert offset.add(5000, now=7 * SECOND) == 5000
