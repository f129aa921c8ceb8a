"""The first cause and the timeline of events on several machines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings, strategies as st
from support.runner.histories import (
    NOW,
    connected,
    edges,
    entry,
    evidence,
    failed,
    machine,
    node_ended,
    restarting,
    spawned,
)

from dora_config.history import entries as happened
from dora_config.history.entries import HistoryEntry
from dora_config.history.explain import explain
from dora_config.history.explanation import Explanation
from dora_config.protocol.runner import NodeStatus
from dora_config.protocol.runner_events import DataflowStarted, DataflowStopping
from dora_config.protocol.snapshot import EdgeSummary

STARTED = DataflowStarted(dataflow_id="d")


def lines(explained: Explanation) -> list[tuple[str, str]]:
    """Return role and text of the timeline."""
    return [
        (one.role, f"{one.node or one.machine or '-'}: {one.text}") for one in explained.timeline
    ]


def test_the_first_failure_is_the_cause_and_the_rest_followed() -> None:
    robot = machine(
        "robot", spawned(890, "camera"), connected(891, "camera"), failed(900, "camera")
    )
    station = machine("station", failed(900.2, "detector", "lost its input"))
    explained = explain(evidence(robot, station))
    assert explained.summary == 'node "camera" on machine "robot" exited with code 1'
    assert explained.cause is not None
    assert (explained.cause.node, explained.cause.stderr) == ("camera", ("boom",))
    assert lines(explained) == [
        ("cause", "camera: failed: exited with code 1"),
        ("consequence", "detector: failed: lost its input"),
    ]


def test_clock_offsets_are_applied() -> None:
    robot = machine("robot", failed(960, "camera"), clock_offset=60.0)
    station = machine("station", failed(903, "detector"))
    explained = explain(evidence(robot, station))
    assert [one.at for one in explained.timeline] == [900.0, 903.0]
    assert explained.cause is not None
    assert explained.cause.node == "camera"


def test_within_the_error_of_the_clocks_the_upstream_node_is_the_cause() -> None:
    robot = machine("robot", failed(900.3, "camera"), node_ids=("camera",))
    station = machine("station", failed(900.0, "detector"), node_ids=("detector",))
    known = evidence(robot, station, edges=edges("camera/image>detector/image"))
    cause = explain(known).cause
    assert cause is not None
    assert cause.node == "camera"
    later = evidence(
        machine("robot", failed(900.6, "camera")),
        station,
        edges=edges("camera/image>detector/image"),
    )
    cause = explain(later).cause
    assert cause is not None
    assert cause.node == "detector"


def test_order_on_one_machine_is_that_of_its_file_even_if_its_clock_was_set_back() -> None:
    robot = machine("robot", failed(900, "camera"), failed(500, "detector"))
    explained = explain(evidence(robot))
    assert [one.node for one in explained.timeline] == ["camera", "detector"]
    assert [one.at for one in explained.timeline] == [900.0, 900.0]


def test_a_crash_loop_is_one_incident() -> None:
    events = [
        one
        for count in range(1, 5)
        for one in (
            restarting(900 + 10 * count, "camera", restarts=count),
            connected(902 + 10 * count, "camera"),
        )
    ]
    explained = explain(evidence(machine("robot", *events)))
    assert explained.cause is not None
    assert explained.cause.at == 910.0
    assert explained.cause.resolved_at == 942.0
    assert explained.summary.startswith("nothing is wrong now; the last trouble is over: node ")


def test_troubles_that_are_over_for_long_do_not_explain_later_ones() -> None:
    early = [restarting(100, "camera"), connected(102, "camera")]
    explained = explain(evidence(machine("robot", *early, failed(900, "detector"))))
    assert explained.cause is not None
    assert explained.cause.node == "detector"
    assert lines(explained)[-1] == ("cause", "detector: failed: exited with code 1")


def test_a_crash_loop_is_one_incident_although_another_node_fails_meanwhile() -> None:
    events = [
        restarting(900, "camera"),
        connected(901, "camera"),
        restarting(920, "planner"),
        connected(921, "planner"),
        restarting(931, "camera", restarts=2),
        connected(932, "camera"),
    ]
    cause = explain(evidence(machine("robot", *events))).cause
    assert cause is not None
    assert (cause.node, cause.at, cause.resolved_at) == ("camera", 900.0, 932.0)


def test_another_trouble_soon_after_the_last_one_is_an_incident_of_its_own() -> None:
    cut = happened.MachineLost(machine="robot", silent=20.0)
    rebooted = happened.PartRecovering(
        machine="station", nodes=("detector",), reason='machine "station" was rebooted', delay=0.0
    )
    known = evidence(
        machine("robot"),
        machine("station"),
        entries=[
            entry(900, cut),
            entry(902, happened.MachineReturned(machine="robot")),
            entry(915, happened.MachineLost(machine="station", silent=6.0)),
            entry(917, happened.MachineReturned(machine="station")),
            entry(917, rebooted),
        ],
    )
    cause = explain(known).cause
    assert cause is not None
    assert (cause.machine, cause.at) == ("station", 909.0)


@pytest.mark.parametrize("event", [failed(800, "extra"), restarting(800, "extra")])
def test_a_node_that_is_not_part_of_the_dataflow_is_over(event: HistoryEntry) -> None:
    running = NodeStatus(node="camera", status="Running")
    robot = machine("robot", event, node_ids=("camera",), nodes=(running,))
    explained = explain(evidence(robot))
    assert explained.waits_for == ()
    assert explained.cause is not None
    assert (explained.cause.node, explained.cause.resolved_at) == ("extra", 800.0)
    later = robot.model_copy(update={"entries": (event, failed(900, "camera"))})
    cause = explain(evidence(later)).cause
    assert cause is not None
    assert cause.node == "camera"
    unknown = robot.model_copy(update={"nodes": ()})
    assert explain(evidence(unknown)).waits_for


def test_a_machine_that_is_cut_off_is_the_cause_of_lost_links_and_silent_inputs() -> None:
    """The links notice it first, the coordinator later."""
    lost = happened.LinkPeerChanged(peer="robot", state="lost", reason="no answer")
    silent = happened.InputTimedOut(node="detector", input="image", timeout=2.0)
    station = machine("station", entry(905, silent), entry(906, lost), node_ids=("detector",))
    robot = machine("robot", node_ids=("camera",), connected=False, problem="no history of robot")
    known = evidence(
        robot,
        station,
        entries=[entry(931, happened.MachineLost(machine="robot", silent=30.0))],
        edges=edges("camera/image>detector/image"),
    )
    explained = explain(known)
    assert explained.summary == 'machine "robot" became unreachable: it sent nothing for 30 s'
    assert explained.cause is not None
    assert explained.cause.at == 901.0
    assert explained.waits_for[0] == (
        'machine "robot" must connect to the coordinator again; its nodes (camera) may still run'
    )
    assert explained.notes == ("no history of robot",)


def test_a_machine_that_does_not_answer_is_a_trouble_before_it_is_given_up() -> None:
    explained = explain(evidence(machine("robot", silent=12.0)))
    assert explained.summary == 'machine "robot" has not answered for 12 s'


def test_what_a_node_waits_for_is_shown_until_it_is_over() -> None:
    begins = entry(905, happened.NodeWaits(node="ros", text="waits for a router"))
    known = explain(evidence(machine("robot", begins, node_ids=("ros",))))
    assert known.summary == 'node "ros" on machine "robot" waits for a router'
    assert known.waits_for == (known.summary,)
    over = entry(910, happened.NodeWaits(node="ros"))
    later = explain(evidence(machine("robot", begins, over, node_ids=("ros",))))
    assert later.waits_for == ()
    assert later.summary.startswith("nothing is wrong now; the last trouble is over")
    assert later.timeline[-1].text == "over: waits for a router"


def test_what_a_node_waited_for_does_not_explain_what_it_waits_for_now() -> None:
    texts = ("no new command of human", None, "there is an emergency")
    waits = (
        entry(905 + number, happened.NodeWaits(node="gate", text=text))
        for number, text in enumerate(texts)
    )
    explained = explain(evidence(machine("robot", *waits, node_ids=("gate",))))
    assert explained.cause is not None
    assert explained.cause.text == 'node "gate" on machine "robot" there is an emergency'
    assert explained.cause.at == 907


def test_a_silent_input_is_the_cause_if_nothing_upstream_failed() -> None:
    silent = happened.InputTimedOut(node="detector", input="image", timeout=2.0)
    other = failed(904, "logger")
    known = evidence(
        machine("robot", other, entry(905, silent), node_ids=("detector", "logger")),
        edges=edges("camera/image>detector/image"),
    )
    cause = explain(known).cause
    assert cause is not None
    assert cause.text == (
        'input "image" of node "detector" on machine "robot" received nothing for 2 s '
        "(input_timeout)"
    )


@pytest.mark.parametrize(
    ("step", "text"), [("placement", "could not be placed"), ("build", "could not be built")]
)
def test_a_refused_start_names_its_reason(step: str, text: str) -> None:
    refused = happened.StartRefused.model_validate(
        {"step": step, "name": "demo", "reason": "no daemon matches"}
    )
    known = evidence(entries=[entry(900, refused)], ended=True, status="Not started")
    assert explain(known).summary == f"the dataflow {text}: no daemon matches"


def test_a_start_that_was_rolled_back_is_explained_by_the_node_that_failed() -> None:
    rolled = happened.PhaseReached(phase="rolling_back", reason='node "camera": exited')
    robot = machine("robot", spawned(899, "camera"), failed(899.9, "camera"))
    explained = explain(evidence(robot, entries=[entry(900, rolled)], ended=True))
    assert explained.cause is not None
    assert explained.cause.node == "camera"
    assert lines(explained)[-1] == (
        "consequence",
        '-: the start failed: node "camera": exited',
    )


def test_a_full_disk_is_a_cause_while_it_is_full() -> None:
    text = "cannot write the log file /out/log.jsonl: No space left on device; entries are missing"
    warned = happened.RunnerWarned(level="warn", text=text)
    robot = machine("robot", entry(900, warned), failed(905, "camera"), full_disk="/out")
    explained = explain(evidence(robot))
    assert explained.summary == f'the disk of machine "robot" is full: {text}'
    assert 'space on the disk on machine "robot": make room there' in explained.waits_for
    present = explain(evidence(machine("robot", full_disk="/out")))
    assert present.summary == 'the disk of machine "robot" is full: no space is left in /out'


def test_the_death_of_a_runner_and_its_recovery() -> None:
    lost = happened.PartRecovering(
        machine="robot", nodes=("camera",), reason="its runner ended", delay=0.0
    )
    runs = happened.PartRuns(machine="robot")
    again = happened.RunBegan(recovered="its runner ended")
    explained = explain(
        evidence(machine("robot", entry(901, again)), entries=[entry(900, lost), entry(903, runs)])
    )
    assert lines(explained) == [
        ("cause", "robot: its runner ended; its nodes (camera) are started again now"),
        ("reaction", "robot: its nodes are started again: its runner ended"),
        ("reaction", "robot: its nodes run again"),
    ]
    assert explained.cause is not None
    assert explained.cause.resolved_at == 903.0


def test_without_the_coordinator_the_next_runner_shows_that_one_was_lost() -> None:
    """The link to its machine was lost first."""
    lost = happened.LinkPeerChanged(peer="station", state="lost", reason="closed")
    linked = happened.LinkPeerChanged(peer="station", state="connected")
    again = happened.RunBegan(recovered="its runner ended")
    explained = explain(
        evidence(
            machine("robot", entry(900, lost), entry(903, linked)),
            machine("station", entry(901, again), entry(902, STARTED)),
        )
    )
    assert explained.cause is not None
    assert explained.cause.text == 'the nodes on machine "station" were lost: its runner ended'
    assert explained.cause.resolved_at == 903.0


def test_a_trouble_that_is_over_does_not_explain_the_end() -> None:
    early = [restarting(890, "camera"), connected(892, "camera")]
    stopped = [entry(900, happened.UserStop())]
    explained = explain(evidence(machine("robot", *early), entries=stopped, ended=True))
    assert explained.summary == "the dataflow ended because a user stopped it"
    assert explained.cause is not None


def test_what_nodes_wait_for() -> None:
    robot = machine(
        "robot",
        spawned(NOW - 12, "slow", pid=42),
        failed(NOW - 2, "dead"),
        restarting(NOW - 1, "camera", delay=4.0, restarts=3),
    )
    assert explain(evidence(robot)).waits_for == (
        'node "slow" on machine "robot" must create its `Node()`: process 42 has not done so for '
        "12 s",
        'node "dead" on machine "robot" stays ended: its restart policy does not start it again '
        "(`dora node restart dead` does)",
        'node "camera" on machine "robot" is started again in 3 s (restart 3)',
    )


def test_a_program_without_ports_that_runs_need_not_connect() -> None:
    status = NodeStatus(node="nap", status="Running", pid=42)
    robot = machine("robot", spawned(NOW - 12, "nap", pid=42), nodes=(status,))
    assert explain(evidence(robot)).waits_for == ()


def test_a_stopping_dataflow_waits_for_its_nodes() -> None:
    stopping = DataflowStopping(reason="stop requested", grace=10.0)
    robot = machine("robot", connected(900, "camera"), entry(950, stopping), node_ids=("camera",))
    assert explain(evidence(robot, status="Stopping")).waits_for == (
        'node "camera" on machine "robot" must end: the dataflow is being stopped (stop requested)',
    )


def test_the_last_warning_is_named_when_nothing_is_wrong() -> None:
    def warned(at: float, text: str, node: str | None = None) -> HistoryEntry:
        return entry(at, happened.RunnerWarned(level="warn", text=text, node=node))

    many = [entry(910.0 + n, happened.InputRecovered(node="plot", input=f"i{n}")) for n in range(9)]
    robot = machine("robot", warned(900, "first"), warned(901, "second", "camera"), *many)
    explained = explain(evidence(robot))
    age = f"{(NOW - 901) // 60:.0f} min"
    assert explained.summary == (
        f'nothing is wrong; last warning on machine "robot" ({age} ago): node "camera": second'
    )
    assert explained.cause is None
    assert [text for _, text in lines(explained)][:3] == [
        "robot: first",
        "camera: second",
        'plot: input "i4" receives messages again',
    ]
    alone = explain(evidence(machine("", warned(NOW - 2, "first"))))
    assert alone.summary == "nothing is wrong; last warning (2 s ago): first"


def test_a_dataflow_without_trouble() -> None:
    robot = machine("robot", connected(900, "camera"), entry(901, STARTED))
    explained = explain(evidence(robot))
    assert (explained.summary, explained.cause) == ("nothing is wrong", None)
    assert lines(explained) == [("before", "robot: started")]
    stopped = [entry(950, happened.UserStop())]
    ended = explain(
        evidence(machine("robot", node_ended(951, "camera")), entries=stopped, ended=True)
    )
    assert ended.summary == "the dataflow ended because a user stopped it"


MACHINES = ("robot", "station", "arm")
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(MACHINES),
        st.floats(0, 900, allow_nan=False),
        st.sampled_from(["spawned", "connected", "restarting", "failed", "ended"]),
        st.sampled_from(["a", "b", "c"]),
    ),
    max_size=30,
)
KINDS: dict[str, Callable[[float, str], HistoryEntry]] = {
    "spawned": spawned,
    "connected": connected,
    "restarting": restarting,
    "failed": failed,
    "ended": node_ended,
}


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.dictionaries(st.sampled_from(MACHINES), st.floats(-1e6, 1e6, allow_nan=False)))
def test_the_explanation_does_not_depend_on_the_clocks_of_the_machines(
    events: list[tuple[str, float, str, str]], offsets: dict[str, float]
) -> None:
    def known(shifted: dict[str, float]) -> Explanation:
        found = []
        for name in MACHINES:
            offset = round(shifted.get(name, 0.0))
            own = [
                KINDS[kind](float(int(at)) + offset, node)
                for one, at, kind, node in sorted(events, key=lambda event: int(event[1]))
                if one == name
            ]
            found.append(machine(name, *own, clock_offset=float(offset)))
        return explain(evidence(*found))

    assert known(offsets) == known({})


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_the_timeline_is_ordered_and_contains_its_cause(
    events: list[tuple[str, float, str, str]],
) -> None:
    found = [
        machine(name, *(KINDS[kind](at, node) for one, at, kind, node in events if one == name))
        for name in MACHINES
    ]
    explained = explain(evidence(*found))
    times = [one.at for one in explained.timeline]
    assert times == sorted(times)
    causes = [one for one in explained.timeline if one.role == "cause"]
    troubled = any(kind in ("restarting", "failed") for _, _, kind, _ in events)
    assert len(causes) == int(troubled)
    assert (explained.cause is not None) == troubled
    if explained.cause is not None:
        assert (causes[0].at, causes[0].node) == (explained.cause.at, explained.cause.node)
    assert Explanation.model_validate_json(explained.model_dump_json()) == explained


def test_nodes_that_were_stopped_on_one_machine_are_named_while_others_run() -> None:
    stopping = DataflowStopping(reason="stop requested", grace=10)
    robot = machine("robot", spawned(890, "camera"), entry(900, stopping), node_ids=("camera",))
    station = machine("station", spawned(890, "detector"), node_ids=("detector",))
    summary = explain(evidence(robot, station)).summary
    assert summary == 'a command on machine "robot" stopped its nodes 1 min ago'
    again = machine("robot", entry(900, stopping), entry(910, STARTED), node_ids=("camera",))
    assert explain(evidence(again, station)).summary == "nothing is wrong"
    whole = entry(899, happened.UserStop(force=False))
    assert explain(evidence(robot, station, entries=(whole,))).summary == "nothing is wrong"


def test_an_edge_that_crosses_uncompressed_is_named() -> None:
    why = "messages cross uncompressed (jpeg): its metadata has no `width` and `height`"
    crosses = EdgeSummary(
        dataflow="d",
        source="camera/image",
        target="policy/image",
        source_machine="robot",
        target_machine="gpu",
        policy="drop_oldest",
        uncompressed=why,
    )
    explained = explain(evidence(machine("gpu", edges=(crosses,))))
    assert explained.notes == (f"camera/image -> policy/image: {why}",)
