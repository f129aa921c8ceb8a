"""Checks between nodes: cycles and long graphs."""

from __future__ import annotations

import pytest
from config.parsing import errors, parse, warnings
from hypothesis import given, strategies as st

CYCLE = """\
nodes:
  - id: a
    path: p
    inputs: {x: {source: c/out, queue_policy: backpressure}}
    outputs: [out]
  - id: b
    path: p
    inputs: {x: {source: a/out, queue_policy: backpressure}}
    outputs: [out]
  - id: c
    path: p
    inputs: {x: {source: b/out, queue_policy: POLICY}}
    outputs: [out]
"""


def test_a_cycle_of_backpressure_is_a_warning() -> None:
    (warning,) = warnings(CYCLE.replace("POLICY", "backpressure"))
    assert "8:47: warning: backpressure cycle a -> b -> c -> a" in warning
    assert "queue_policy: drop_oldest" in warning


def test_cycle_with_a_dropping_queue_causes_no_warning() -> None:
    assert warnings(CYCLE.replace("POLICY", "drop_oldest")) == []


def test_nodes_that_only_wait_for_each_other_are_a_remark() -> None:
    """No warning, since one of them may send first, as clients of services do."""
    flow = CYCLE.replace("POLICY", "drop_oldest")
    assert [str(one) for one in parse(flow).remarks] == [
        'flow.yml:4:5: info: nodes "a", "b", "c" receive messages only of each other (one of'
        " them must send before it receives, or have another input, such as a timer)"
    ]
    reader = "  - id: d\n    path: p\n    inputs: {x: c/out}\n"
    assert '"a", "b", "c", "d" receive' in str(parse(flow + reader).remarks[0])
    for beginning in ("x: dora/timer/millis/10", "x: camera/out"):
        camera = "  - id: camera\n    path: p\n    outputs: [out]\n"
        begun = flow.replace(
            "{x: {source: a/out", f"{{{beginning.replace('x', 'y')}, x: {{source: a/out"
        )
        assert parse(begun + camera).remarks == ()
    assert parse(flow.replace("id: a\n    path: p", "id: a\n    path: dynamic")).remarks == ()


def test_variables_in_arguments_are_a_warning() -> None:
    node = "nodes: [{id: a, path: PATH, args: 'ARGS'}]"
    (warning,) = warnings(node.replace("PATH", "p").replace("ARGS", "--model ${HOME}/m"))
    assert '1:32: warning: node "a": $HOME in `args` is not expanded' in warning
    for path, args in (("shell", "echo $HOME"), ("p", "costs $$5"), ("p", "a $ b")):
        assert warnings(node.replace("PATH", path).replace("ARGS", args)) == []


def test_node_in_a_cycle_with_itself_is_a_warning() -> None:
    (warning,) = warnings("""\
        nodes:
          - id: a
            path: p
            inputs: {x: {source: a/out, queue_policy: backpressure}}
            outputs: [out]
        """)
    assert "backpressure cycle a -> a" in warning


@pytest.mark.parametrize("setting", ["send_stdout_as", "send_logs_as"])
def test_printed_lines_do_not_block(setting: str) -> None:
    (warning,) = warnings(f"""\
        nodes:
          - id: a
            path: p
            inputs: {{x: {{source: b/out, queue_policy: backpressure}}}}
            outputs: [out, lines]
            {setting}: lines
          - id: b
            path: p
            inputs: {{x: {{source: a/lines, queue_policy: backpressure}}}}
            outputs: [out]
        """)
    assert "input `b/x`: queue_policy backpressure has no effect" in warning


def test_a_cycle_beside_printed_lines_names_the_input_that_blocks() -> None:
    (cycle, lines) = warnings("""\
        nodes:
          - id: a
            path: p
            inputs: {x: {source: b/out, queue_policy: backpressure}}
            outputs: [out, lines]
            send_stdout_as: lines
          - id: b
            path: p
            inputs:
              real: {source: a/out, queue_policy: backpressure}
              said: {source: a/lines, queue_policy: backpressure}
            outputs: [out]
        """)
    assert "10:43: warning: backpressure cycle a -> b -> a" in cycle
    assert "input `b/said`: queue_policy backpressure has no effect" in lines


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_a_cycle_through_an_id_that_occurs_twice(order: tuple[int, ...]) -> None:
    nodes = (
        "{id: b, path: p, outputs: [o], inputs: {x: {source: a/o, queue_policy: backpressure}}}",
        "{id: a, path: p, outputs: [o]}",
        "{id: a, path: p, outputs: [o], inputs: {y: {source: b/o, queue_policy: backpressure}}}",
    )
    found = errors("nodes:\n" + "".join(f"  - {nodes[index]}\n" for index in order))
    assert any('duplicate node ID "a"' in error for error in found)


def test_long_lists_of_names_are_shortened() -> None:
    outputs = ", ".join(f"output{n}" for n in range(20))
    (error,) = errors(f"nodes:\n  - {{id: a, path: p, outputs: [{outputs}]}}\n"
                      "  - {id: b, path: p, inputs: {x: a/zzz}}\n")  # fmt: skip
    assert "and 12 more" in error


def test_a_long_chain_is_walked_without_recursion() -> None:
    lines = ["nodes:"]
    for n in range(1100):  # above the limit of recursion
        source = f"n{n - 1}/o" if n else "dora/timer/secs/1"
        lines.append(
            f"  - {{id: n{n}, path: p, outputs: [o], "
            f"inputs: {{i: {{source: {source}, queue_policy: backpressure}}}}}}"
        )
    assert parse("\n".join(lines)).warnings == ()


@given(
    st.integers(1, 6).flatmap(
        lambda count: st.sets(
            st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=12
        )
    )
)
def test_cycle_is_found_if_and_only_if_it_exists(edges: set[tuple[int, int]]) -> None:
    found = warnings(_dataflow(edges))
    assert bool(found) == _has_cycle(edges)
    assert all("backpressure cycle" in one for one in found)


def _dataflow(edges: set[tuple[int, int]]) -> str:
    lines = ["nodes:"]
    for n in range(6):
        inputs = ", ".join(
            f"i{start}: {{source: n{start}/o, queue_policy: backpressure}}"
            for start, end in edges
            if end == n
        )
        lines.append(f"  - {{id: n{n}, path: p, outputs: [o], inputs: {{{inputs}}}}}")
    return "\n".join(lines)


def _has_cycle(edges: set[tuple[int, int]]) -> bool:
    """Remove nodes without predecessors until only cycles are left."""
    left = set(edges)
    while left:
        ends = {end for _, end in left}
        kept = {(start, end) for start, end in left if start in ends}
        if kept == left:
            return True
        left = kept
    return False


def test_outputs_to_add_to_an_operator() -> None:
    (error,) = errors("""\
        nodes:
          - id: o
            operators: [{id: op, python: op.py}]
          - id: n
            path: p
            inputs: {x: o/op/logs}
        """)
    assert 'node "o" has no outputs (add `outputs: [logs]` to operator "op" of "o")' in error
