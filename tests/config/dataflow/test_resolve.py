"""Defaults, variables and operators of a resolved dataflow."""

from __future__ import annotations

import pytest
from config.parsing import node, parse, with_node

from dora_config.dataflow.resolved import (
    FromMachine,
    GitSource,
    ResolvedDataflow,
    ResolvedDeploy,
    ResolvedNode,
    RestartSettings,
)
from dora_config.dataflow.sources import OutputSource, TimerSource


def test_defaults() -> None:
    assert node("path: p") == ResolvedNode(id="n", path="p")


def test_defaults_of_the_root() -> None:
    flow = parse("nodes: []").resolved
    assert flow == ResolvedDataflow(nodes=())
    assert flow.health_check_interval == 5.0


def test_a_node_with_everything() -> None:
    resolved = node("""\
        name: A node
        description: does things
        path: p.py
        args: --rate 20 'a b' "c"
        build: |
          pip install x

          make all
        git: https://example.invalid/x.git
        rev: abc
        inputs:
          x: source/out
          y: {source: dora/timer/hz/20, queue_size: 3, input_timeout: 2}
          z: {source: source/other, queue_policy: backpressure}
        outputs: [a, b, lines]
        output_framing: {a: arrow-ipc}
        output_metadata: {a: [k]}
        send_stdout_as: lines
        min_log_level: WARN
        max_log_size: 5MB
        max_rotated_files: 7
        restart_policy: on-failure
        max_restarts: 5
        restart_delay: 0.5
        max_restart_delay: 8
        restart_window: 60
        health_check_timeout: 3
        finish_grace_secs: 4
        startup_timeout: 9
        shared_memory_pool_size: 1G
        cpu_affinity: [3, 1, 3]
        warm: [numpy]
        deploy: {machine: m, working_dir: w}
        """)
    assert resolved.args == ("--rate", "20", "a b", "c")
    assert resolved.build == ("pip install x", "make all")
    assert resolved.git == GitSource(url="https://example.invalid/x.git", rev="abc")
    assert resolved.inputs["x"].source == OutputSource(node="source", output="out")
    assert resolved.inputs["y"].source == TimerSource(interval_ns=50_000_000)
    assert (resolved.inputs["y"].queue_size, resolved.inputs["y"].input_timeout) == (3, 2.0)
    assert resolved.inputs["z"].queue_policy == "backpressure"
    assert resolved.outputs == ("a", "b", "lines")
    assert resolved.output_framing == {"a": "arrow-ipc"}
    assert resolved.output_metadata == {"a": ("k",)}
    assert (resolved.send_stdout_as, resolved.min_log_level) == ("lines", "warn")
    assert (resolved.max_log_size, resolved.max_rotated_files) == (5 << 20, 7)
    assert resolved.restart == RestartSettings(
        policy="on-failure", max_restarts=5, delay=0.5, max_delay=8.0, window=60.0
    )
    assert resolved.health_check_timeout == 3.0
    assert (resolved.finish_grace, resolved.startup_timeout) == (4.0, 9.0)
    assert resolved.shared_memory_pool_size == 1 << 30
    assert resolved.cpu_affinity == (1, 3)
    assert resolved.warm == ("numpy",)
    assert resolved.deploy == ResolvedDeploy(machine="m", working_dir="w")


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ("path: p.py", "standard"),
        ("path: dynamic", "dynamic"),
        ("path: shell\nargs: echo 'a b' | cat", "shell"),
        ("path: https://example.invalid/x", "url"),
        ("path: HTTP://example.invalid/x", "standard"),
        ("operator: {python: a.py}", "runtime"),
    ],
)
def test_kinds(fields: str, kind: str) -> None:
    assert node(fields).kind == kind


def test_a_shell_node_keeps_its_command_line_whole() -> None:
    assert node("path: shell\nargs: echo 'a b' | cat").args == ("echo 'a b' | cat",)


def test_values_of_variables_keep_their_text() -> None:
    resolved = node("path: p\nenv: {A: 1.10, B: 0123, C: true, D: 1e3, E: x, F: '01', G: '0x1F'}")
    assert resolved.env == {
        "A": "1.10",
        "B": "0123",
        "C": "true",
        "D": "1e3",
        "E": "x",
        "F": "01",
        "G": "0x1F",
    }


def test_prefixed_integers_are_decimal_in_variables() -> None:
    resolved = node("path: p\nenv: {MASK: 0x1F, MODE: 0o17}")
    assert {name: int(str(text)) for name, text in resolved.env.items()} == {"MASK": 31, "MODE": 15}


def test_variables_expand_in_the_environment_given() -> None:
    resolved = node(
        "path: p\nenv: {A: '$X/${Y:-y}', B: {__dora_env: HOSTNAME}, C: $$X}", {"X": "x"}
    )
    assert resolved.env == {"A": "x/y", "B": FromMachine(name="HOSTNAME"), "C": "$X"}


def test_reserved_variables_are_ignored() -> None:
    assert node("path: p\nenv: {DORA_NODE_CONFIG: x, A: 1}").env == {"A": "1"}


def test_variables_of_the_node_override_those_of_the_root() -> None:
    flow = parse("env: {A: 1, B: 1}\nnodes:\n  - {id: n, path: p, env: {B: 2, C: 2}}").resolved
    resolved = flow.node("n")
    assert resolved.env == {"A": "1", "B": "2", "C": "2"}
    assert resolved.inherited_env == ("A",)
    assert flow.env == {"A": "1", "B": "1"}


def test_the_placement_of_a_node_replaces_that_of_the_root() -> None:
    flow = parse("""\
        deploy: {machine: m, working_dir: w}
        nodes:
          - {id: a, path: p}
          - {id: b, path: p, deploy: {labels: {gpu: "1"}}}
          - {id: c, path: p, deploy: {}}
        """).resolved
    assert flow.node("a").deploy == ResolvedDeploy(machine="m", working_dir="w")
    assert flow.node("b").deploy == ResolvedDeploy(labels={"gpu": "1"})
    assert flow.node("c").deploy == ResolvedDeploy()
    assert flow.uses_deploy
    assert not parse("nodes: [{id: a, path: p}]").resolved.uses_deploy


def test_pattern_adds_its_metadata_keys() -> None:
    resolved = node(
        "path: p\npattern: action-server\noutputs: [a, b]\noutput_metadata: {a: [k, goal_id]}"
    )
    assert resolved.output_metadata == {
        "a": ("k", "goal_id", "goal_status"),
        "b": ("goal_id", "goal_status"),
    }


def test_operators_have_fields_of_outputs() -> None:
    fields = "pattern: service-server, output_framing: {a: arrow-ipc}, output_metadata: {a: [k]}"
    resolved = node(f"operators: [{{id: o, python: o.py, outputs: [a, b], {fields}}}]")
    assert resolved.output_framing == {"o/a": "arrow-ipc"}
    assert resolved.output_metadata == {"o/a": ("k", "request_id"), "o/b": ("request_id",)}
    assert resolved.operators[0].pattern == "service-server"


def test_queue_size_zero_means_one() -> None:
    assert (
        node("path: p\ninputs: {x: {source: source/out, queue_size: 0}}").inputs["x"].queue_size
        == 1
    )


def test_strict_types_may_be_overridden() -> None:
    assert parse("nodes: []", strict_types=True).resolved.strict_types
    assert not parse("strict_types: true\nnodes: []", strict_types=False).resolved.strict_types


OPERATORS = """\
nodes:
  - id: single
    operator:
      python: {source: single.py}
      build: make single
      inputs: {tick: dora/timer/secs/1}
      outputs: [out]
      send_stdout_as: out
      max_log_size: 1K
  - id: several
    operators:
      - {id: a, python: a.py, inputs: {x: single/out}, outputs: [y]}
      - id: b
        python: b.py
        inputs: {y: {source: several/a/y, queue_size: 2}}
        outputs: [z]
        min_log_level: info
  - id: reader
    path: p
    inputs: {one: single/out, two: single/op/out, three: several/b/z}
"""


def test_operators() -> None:
    flow = parse(OPERATORS).resolved
    single, several, reader = flow.nodes
    assert single.kind == "runtime"
    assert [operator.id for operator in single.operators] == ["op"]
    assert single.operators[0].python == "single.py"
    assert (single.build, single.operators[0].build) == (("make single",), ("make single",))
    assert list(single.inputs) == ["op/tick"]
    assert single.outputs == ("op/out",)
    assert (single.send_stdout_as, single.operators[0].send_stdout_as) == ("op/out", "out")
    assert (single.max_log_size, several.min_log_level) == (1024, "info")
    assert several.outputs == ("a/y", "b/z")
    assert several.inputs["a/x"].source == OutputSource(node="single", output="op/out")
    assert several.inputs["b/y"].queue_size == 2
    assert several.operators[1].inputs["y"] == several.inputs["b/y"]
    assert [str(one.source) for one in reader.inputs.values()] == [
        "single/op/out",
        "single/op/out",
        "several/b/z",
    ]


def test_resolved_dataflows_survive_json() -> None:
    flow = parse(OPERATORS + "env: {A: {__dora_env: B}}\n").resolved
    assert ResolvedDataflow.model_validate_json(flow.model_dump_json()) == flow
    assert ResolvedDataflow.model_validate(flow.model_dump(mode="json")) == flow


def test_edges_are_those_between_nodes() -> None:
    flow = parse(with_node("path: p\ninputs: {x: source/out, t: dora/timer/secs/1}")).resolved
    assert [(str(source), reader, name) for source, reader, name in flow.edges()] == [
        ("source/out", "n", "x")
    ]


def test_an_unknown_node_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        parse("nodes: []").resolved.node("x")
