"""Open and ended inputs."""

from __future__ import annotations

from support.runner.nodes import node

from dora_daemon.runner.machine.edges import Edge
from dora_daemon.runner.machine.events import EdgeAdded, EdgeRemoved
from dora_daemon.runner.machine.wiring import Wiring


def test_a_consumer_has_ended_inputs_once_all_producers_closed() -> None:
    wiring = Wiring([node("a", outputs="x"), node("b", outputs="y"), node("c", reads="a/x b/y")])
    assert wiring.close("a") == ["c"]
    assert not wiring.all_inputs_closed("c")
    assert wiring.close("b") == ["c"]
    assert wiring.all_inputs_closed("c")
    assert wiring.close("b") == []


def test_a_timer_or_log_input_counts_as_open() -> None:
    nodes = [node("a", outputs="x"), node("t", reads="a/x", timer=True)]
    nodes.append(node("l", reads="a/x", logs=True))
    wiring = Wiring(nodes)
    wiring.close("a")
    assert not wiring.all_inputs_closed("t")
    assert not wiring.all_inputs_closed("l")
    only_data = Wiring(nodes, only_data_counts=True)
    only_data.close("a")
    assert only_data.all_inputs_closed("t")
    assert only_data.all_inputs_closed("l")


def test_sources_never_have_all_inputs_closed() -> None:
    wiring = Wiring([node("a", outputs="x"), node("t", timer=True)], only_data_counts=True)
    assert not wiring.all_inputs_closed("a")
    assert not wiring.all_inputs_closed("t")
    assert wiring.reads_only_virtual("t")
    assert not wiring.reads_only_virtual("a")


def test_closing_one_output_leaves_the_others() -> None:
    wiring = Wiring([node("a", outputs="x y"), node("b", reads="a/x a/y")])
    assert wiring.close("a", ("x",)) == ["b"]
    assert wiring.closed_inputs("b") == ("a_x",)
    wiring.reopen("a")
    assert wiring.closed_inputs("b") == ()


def test_edges_are_added_and_removed() -> None:
    wiring = Wiring([node("a", outputs="x"), node("b")])
    edge = Edge("a", "x", "b", "in")
    assert wiring.handle(EdgeAdded(edge)) == ([], [])
    wiring.close("a")
    wiring.handle(EdgeRemoved(Edge("other", "x", "b", "in")))
    assert wiring.all_inputs_closed("b")
    assert wiring.handle(EdgeRemoved(edge)) == ([], ["b"])
    assert not wiring.all_inputs_closed("b")


def test_removing_a_node_removes_its_edges() -> None:
    wiring = Wiring([node("a", outputs="x"), node("b", reads="a/x", outputs="y"), node("c")])
    wiring.handle(EdgeAdded(Edge("b", "y", "c", "in")))
    assert wiring.remove_node("b") == ["c"]
    assert wiring.close("a") == []
    assert wiring.close("b") == []


def test_a_timer_is_added_and_removed() -> None:
    wiring = Wiring([node("a", outputs="x"), node("b", reads="a/x")])
    timer = Edge("dora", "timer/millis/10", "b", "tick")
    assert wiring.handle(EdgeAdded(timer)) == ([], [])
    wiring.close("a")
    assert not wiring.all_inputs_closed("b")
    assert wiring.handle(EdgeRemoved(timer)) == ([], ["b"])
    assert wiring.all_inputs_closed("b")
