"""Slow, stuck and silent nodes, from the counters of edges."""

from __future__ import annotations

from typing import Any

from support.runner.histories import entry, evidence, machine

from dora_config.history.entries import LinkPeerChanged
from dora_config.history.evidence import MachineEvidence
from dora_config.history.flow import FlowGraph
from dora_config.protocol.runner import NodeStatus
from dora_config.protocol.snapshot import EdgeSummary


def flow(source: str, target: str, **fields: Any) -> EdgeSummary:
    facts: dict[str, Any] = {
        **dict.fromkeys(("dataflow", "source_machine", "target_machine"), ""),
        "policy": "drop_oldest",
        "bound": 10,
        "idle_seconds": 0.1,
        "sent": 100,
    }
    return EdgeSummary.model_validate({"source": source, "target": target, **facts, **fields})


def status(node: str, **fields: Any) -> NodeStatus:
    return NodeStatus.model_validate({"node": node, "status": "Running", **fields})


def robot(*edges: EdgeSummary, **fields: Any) -> MachineEvidence:
    nodes = fields.pop("nodes", ())
    ids = {port.partition("/")[0] for edge in edges for port in (edge.source, edge.target)}
    return machine("robot", edges=edges, nodes=nodes, node_ids=tuple(sorted(ids)), **fields)


def found(*machines: MachineEvidence, running_for: float = 60.0) -> list[tuple[str, str]]:
    known = FlowGraph(evidence(*machines), running_for)
    return [(one.kind, one.text) for one in known.findings()]


def test_a_full_queue_leads_to_the_last_node_of_a_chain() -> None:
    chain = robot(
        flow("camera/image", "detector/image", blocked=True),
        flow("detector/boxes", "plot/boxes", blocked=True, idle_seconds=0.5),
        nodes=(status("plot", cpu_percent=99.0),),
    )
    assert found(chain) == [
        (
            "slow",
            'node "plot" on machine "robot" is too slow (it uses 99 % of a core): its input '
            '"plot/boxes" is full, and node "detector" waits for it',
        )
    ]


def test_a_node_that_reads_nothing_is_stuck() -> None:
    assert found(robot(flow("camera/image", "plot/image", blocked=True, idle_seconds=30.0))) == [
        (
            "stuck",
            'node "plot" on machine "robot" reads no messages: its input "plot/image" is full, and '
            'node "camera" waits for it',
        )
    ]
    never = flow("camera/image", "plot/image", received=0, dropped=90, full=True)
    assert found(robot(never))[0][0] == "stuck"


def test_nodes_that_wait_for_each_other() -> None:
    cycle = robot(flow("a/x", "b/x", blocked=True), flow("b/y", "a/y", blocked=True))
    assert [kind for kind, _ in found(cycle)] == ["slow", "slow"]


def test_messages_that_were_dropped_earlier_do_not_make_a_reader_slow() -> None:
    assert found(robot(flow("camera/image", "plot/image", dropped=50, queued=1))) == []


def test_dropped_messages_name_the_slow_reader() -> None:
    edge = flow("camera/image", "plot/image", received=40, dropped=50, full=True)
    assert found(robot(edge)) == [
        (
            "slow",
            'node "plot" on machine "robot" is too slow: its input "plot/image" dropped 50 of 100 '
            "messages (50 %)",
        )
    ]


def test_drops_between_two_looks_name_the_reader_whose_queue_is_not_full_now() -> None:
    recent = {"recent_sent": 4000, "recent_dropped": 3760}
    edge = flow(
        "camera/image", "plot/image", sent=10**7, received=9 * 10**6, dropped=9000, **recent
    )
    assert found(robot(edge)) == [
        (
            "slow",
            'node "plot" on machine "robot" is too slow: its input "plot/image" dropped 9000 of '
            "10000000 messages (0 %), now 1,880/s",
        )
    ]
    rare = flow("camera/image", "plot/image", recent_sent=4000, recent_dropped=1)
    assert found(robot(rare)) == []


def test_silent_logs_are_no_problem() -> None:
    logs = flow("dora/logs", "sink/logs", idle_seconds=None, sent=0)
    ticks = flow("sink/report", "plot/report")
    assert found(robot(logs, ticks)) == []


def test_a_queue_for_the_newest_message_drops_the_others_as_intended() -> None:
    options: dict[str, Any] = {"received": 40, "dropped": 50, "full": True, "bound": 1}
    edge = flow("camera/image", "plot/image", **options, idle_seconds=1.0)
    assert found(robot(edge)) == []
    unread = flow("camera/image", "plot/image", **options, idle_seconds=30.0)
    assert found(robot(unread)) == [
        (
            "stuck",
            'node "plot" on machine "robot" reads no messages: its input "plot/image" dropped 50 '
            "of 100 messages (50 %)",
        )
    ]
    assert found(robot(unread), running_for=5.0) == []


def test_silence_leads_upstream_to_its_source() -> None:
    silent = {"sent": 0, "idle_seconds": None}
    path = robot(
        flow("camera/image", "detector/image", **silent),
        flow("detector/boxes", "plot/boxes", **silent),
    )
    (finding,) = FlowGraph(evidence(path), 60.0).findings()
    assert (finding.kind, finding.node) == ("silent", "camera")
    assert finding.text == 'node "camera" on machine "robot" has sent nothing on output "image"'
    assert finding.inputs == ("detector/image", "plot/boxes")


def test_a_node_that_receives_but_does_not_send() -> None:
    path = robot(
        flow("camera/image", "detector/image"),
        flow("detector/boxes", "plot/boxes", idle_seconds=40.0),
    )
    assert found(path) == [
        (
            "silent",
            'node "detector" on machine "robot" has sent nothing for 40 s on output "boxes", '
            "although it receives messages",
        )
    ]


def test_a_node_that_does_not_run_sends_nothing() -> None:
    edge = flow("camera/image", "plot/image", idle_seconds=40.0)
    restarting = robot(edge, nodes=(status("camera", status="Restarting"),))
    assert found(restarting) == [
        ("silent", 'node "camera" on machine "robot" sends nothing because it is restarting')
    ]
    lost = machine("arm", node_ids=("camera",), connected=False)
    here = machine("robot", edges=(edge,), node_ids=("plot",))
    assert found(lost, here) == [("silent", 'machine "arm" with node "camera" is unreachable')]


def test_a_lost_link_is_not_the_fault_of_its_nodes() -> None:
    ends = {"source_machine": "robot", "target_machine": "gpu", "idle_seconds": 40.0}
    over = [
        flow("camera/image", "plot/image", bound=1, dropped=90, recent_dropped=90, **ends),
        flow("state/joints", "plot/state", received=10, dropped=90, full=True, **ends),
        flow("plan/path", "plot/path", blocked=True, **ends),
    ]
    state = LinkPeerChanged(peer="robot", state="lost")
    here = machine("robot", node_ids=("camera", "state", "plan"))
    there = machine("gpu", entry(900.0, state), edges=(*over,), node_ids=("plot",))
    lost = 'machine "robot" and machine "gpu" have lost each other'
    assert found(here, there) == [
        ("stuck", f'{lost}: input "plot/path" is full, and node "plan" waits for it'),
        ("silent", lost),
    ]
    again = entry(901.0, state.model_copy(update={"state": "connected"}))
    mended = machine("gpu", entry(900.0, state), again, edges=(*over,), node_ids=("plot",))
    assert all(lost not in text for _, text in found(here, mended))


def test_inputs_are_not_silent_just_after_the_start() -> None:
    edge = flow("camera/image", "plot/image", sent=0, idle_seconds=None)
    assert found(robot(edge), running_for=2.0) == []


def test_silence_along_a_long_chain_leads_to_its_source() -> None:
    edges = [flow(f"n{i}/out", f"n{i + 1}/in", idle_seconds=None) for i in range(1500)]
    ((kind, text),) = found(robot(*edges))
    assert (kind, text) == (
        "silent",
        'node "n0" on machine "robot" has sent nothing on output "out"',
    )


def test_silence_in_a_cycle_names_a_node_of_it() -> None:
    cycle = robot(
        flow("a/x", "b/x", idle_seconds=None),
        flow("b/y", "a/y", idle_seconds=None),
    )
    assert {kind for kind, _ in found(cycle)} == {"silent"}
