"""Which inputs are open, and who has nothing more to expect."""

from __future__ import annotations

from daemon.runner.dataflows import node

from dora_config.dataflow.resolved import ResolvedNode
from dora_daemon.runner.machine.wiring import Edge, Wiring, waiting_cycles


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


def test_edges_come_and_go() -> None:
    wiring = Wiring([node("a", outputs="x"), node("b")])
    edge = Edge("a", "x", "b", "in")
    wiring.add_edge(edge)
    assert wiring.edges_from("a") == [edge]
    assert wiring.edges_to("b") == [edge]
    assert str(edge) == "a/x -> b/in"
    wiring.close("a")
    wiring.remove_edge(Edge("other", "x", "b", "in"))
    assert wiring.all_inputs_closed("b")
    wiring.remove_edge(edge)
    assert not wiring.all_inputs_closed("b")


def test_a_node_takes_its_edges_with_it() -> None:
    wiring = Wiring([node("a", outputs="x"), node("b", reads="a/x", outputs="y"), node("c")])
    wiring.add_edge(Edge("b", "y", "c", "in"))
    gone = wiring.remove_node("b")
    assert {str(edge) for edge in gone} == {"a/x -> b/a_x", "b/y -> c/in"}
    assert wiring.edges_from("a") == []
    assert wiring.edges_to("c") == []


def test_cycles_of_nodes_that_can_wait_for_each_other() -> None:
    def waiting(node_id: str, reads: str) -> ResolvedNode:
        spec = node(node_id, reads=reads, outputs="x")
        inputs = {
            name: wanted.model_copy(update={"queue_policy": "backpressure"})
            for name, wanted in spec.inputs.items()
        }
        return spec.model_copy(update={"inputs": inputs})

    line = [node("a", outputs="x"), waiting("b", "a/x"), waiting("c", "b/x")]
    assert waiting_cycles(line) == ()
    assert waiting_cycles([node("a", reads="b/x", outputs="x"), node("b", reads="a/x")]) == ()
    (cycle,) = waiting_cycles([*line[:1], waiting("b", "a/x c/x"), line[2]])
    assert set(cycle) == {"b", "c"}
