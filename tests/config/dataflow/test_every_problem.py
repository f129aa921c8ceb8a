"""One run reports every problem of fields in a file and its modules, or every one of the graph."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from config.parsing import errors

from dora_config.cluster.loader import parse_cluster
from dora_config.dataflow.loader import load_dataflow
from dora_config.errors import ConfigError

FLOW = """\
env: {A: $NOPE}
dbug: {}
deploy: {machine: "a b"}
nodes:
  - id: cam
    path: cam.py
    outputs: [image, image2]
  - id: cam
    path: cam2.py
    inputs: {x: nosuch/out, y: cam/imagee}
  - id: my node
    path: n.py
    inputs: {b: {source: dora/timer/millis/0, queue_size: -1}}
  - path: noid.py
    outputs: [bar]
  - id: rd
    path: rd.py
    inputs: {d: noid/bar}
    bogus: 1
  - id: op
    operator: {shared-library: libx, inputs: {a: cam/imagx}}
  - id: mod
    module: parts/m.yml
  - id: gone
    module: parts/none.yml
    params: {p: [1]}
  - just-a-name
  - 5
  - id: last
    path: l.py
    path: m.py
    inputs: {b: cam/*, c: cam/none}
"""
MODULE = """\
module: {nam: x, inputs: [in, in2]}
nodes:
  - id: inner
    path: i.py
    max_restarts: many
  - id: inner
    path: j.py
    args: $PARAM_X
  - id: deeper
    module: n.yml
"""
DEEPER = """\
module: {name: n}
node: []
"""
EXPECTED = """\
flow.yml:2: unknown field `dbug`
flow.yml:3: machine id 'a b' contains
flow.yml:8: duplicate node ID "cam"
flow.yml:11: node id 'my node' contains
flow.yml:13: 'dora/timer/millis/0' must be non-zero
flow.yml:13: queue_size: must not be negative
flow.yml:14: node 4: field `id` is required
flow.yml:19: unknown field `bogus`
flow.yml:21: `shared-library` operators are not supported
flow.yml:25: module "parts/none.yml" cannot be read
flow.yml:27: node 9: expected a mapping
flow.yml:28: node 10: expected a mapping
flow.yml:31: duplicate key "path"
flow.yml:32: output '*' contains invalid character
m.yml:1: field `name` is required
m.yml:1: unknown field `nam`
m.yml:5: max_restarts: expected a whole number
n.yml:1: field `nodes` is required
n.yml:2: unknown field `node`
"""
GRAPH = """\
env: {A: $NOPE}
type_rules: [{from: std/core/v1/Nix, to: std/core/v1/Bool}]
strict_types: true
nodes:
  - id: cam
    path: cam.py
    outputs: [image, image2]
    output_types: {image: std/core/v1/Strng, nothere: std/core/v1/Nope}
    inputs: {x: nosuch/out, y: cam/imagee}
    pattern: service-server
    output_framing: {x: arrow-ipc}
  - id: rd
    path: rd.py
    inputs: {b: really/nothing}
    env: {X: $UNDEF}
  - id: op
    operator: {python: op.py, inputs: {a: cam/imagx}}
  - id: mod
    module: parts/m.yml
    inputs: {q: cam/image, in: nope/x}
    params: {p: [1]}
  - id: use
    path: u.py
    inputs: {a: mod/out, b: mod/nix, c: mod.inner/zip, d: mod.inner/o}
  - id: mod.inner
    path: k.py
"""
GRAPH_MODULE = """\
module: {name: m, inputs: [in, in2], outputs: [out, two]}
nodes:
  - id: inner
    path: i.py
    inputs: {a: _mod/in, b: _mod/inn, c: other/z}
    outputs: [out, o]
  - id: second
    path: j.py
    args: $PARAM_X
    inputs: {a: inner/zzz}
"""
EXPECTED_OF_GRAPH = """\
flow.yml:1: $NOPE is not defined
flow.yml:2: unknown type "std/core/v1/Nix"
flow.yml:8: unknown type "std/core/v1/Strng"
flow.yml:8: `output_types` contains "nothere"
flow.yml:8: unknown type "std/core/v1/Nope"
flow.yml:9: output `nosuch/out` mapped to input `cam/x` does not exist
flow.yml:9: output `cam/imagee` mapped to input `cam/y` does not exist
flow.yml:11: `output_framing` contains "x"
flow.yml:14: output `really/nothing` mapped to input `rd/b` does not exist
flow.yml:15: $UNDEF is not defined
flow.yml:17: output `cam/imagx` mapped to input `op/op/a` does not exist
flow.yml:20: requires input "in2"
flow.yml:20: has no input "q"
flow.yml:20: output `nope/x` mapped to input `mod.inner/a` does not exist
flow.yml:21: param "p": expected a text, number or boolean
flow.yml:24: output `mod/nix` does not exist
flow.yml:24: output `mod.inner/zip` mapped to input `use/c` does not exist
flow.yml:25: duplicate node ID "mod.inner"
m.yml:1: output "two" of module
m.yml:5: the module has no input "inn"
m.yml:5: output `other/z` mapped to input `mod.inner/c` does not exist
m.yml:9: args contain $PARAM_X
m.yml:10: output `inner/zzz` mapped to input `mod.second/a` does not exist
"""


@pytest.mark.parametrize(
    ("flow", "module", "lines"),
    [(FLOW, MODULE, EXPECTED), (GRAPH, GRAPH_MODULE, EXPECTED_OF_GRAPH)],
    ids=["shape", "graph"],
)
def test_every_problem_of_a_dataflow_and_its_modules_at_once(
    tmp_path: Path, flow: str, module: str, lines: str
) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/m.yml").write_text(module)
    (tmp_path / "parts/n.yml").write_text(DEEPER)
    (tmp_path / "flow.yml").write_text(flow)
    with pytest.raises(ConfigError) as caught:
        load_dataflow(tmp_path / "flow.yml", environ={})
    found = [(Path(one.file).name, one.line, one.message) for one in caught.value.errors]
    for line in lines.splitlines():
        place, _, expected = line.partition(": ")
        here = [one for one in found if f"{one[0]}:{one[1]}" == place and expected in one[2]]
        assert len(here) == 1, (line, found)
        found.remove(here[0])
    assert found == []


def test_every_problem_of_types_at_once(tmp_path: Path) -> None:
    (tmp_path / "types/std").mkdir(parents=True)
    (tmp_path / "types/std/mine.yml").write_text("types: {A: {arow: Struct}}")
    (tmp_path / "types/lab.yml").write_text(
        "types:\n  A: {arrow: [5], fields: [{name: x}]}\n  A: {}\n  B: {parameters: 3}\n"
    )
    (tmp_path / "flow.yml").write_text(
        "strict_types: true\nnodes:\n  - {id: a, path: p, outputs: [o], output_types: {o: lab/C}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_dataflow(tmp_path / "flow.yml")
    text = str(caught.value)
    for expected in (
        "names std/... are reserved",
        "unknown field `arow`",
        "arrow: expected a text, found a list",
        "fields item 1: field `type` is required",
        'duplicate key "A"',
        "types B: field `arrow` is required",
        "expected a list of parameter names",
    ):
        assert text.count(expected) == 1, (expected, text)


def test_every_problem_of_a_cluster_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_cluster(
            dedent("""\
            coordinator: {adr: 192.0.2.1, port: 0}
            zenoh_peer: nowhere
            machines:
              - 5
              - {id: a b, host: x}
              - {id: "7", port: 99999}
              - {id: 7, host: "-o", dora: dora, prefix: /opt/x, zenoh_addr: one}
              - {host: h, labels: {"a b": [1]}, env: {HOME: x}, zenoh_port: 7450}
            machine: []
            """)
        )
    found = [f"{one.line}: {one.message}" for one in caught.value.errors]
    expected = """\
        1: coordinator: field `addr` is required
        1: coordinator: unknown field `adr`
        1: coordinator port: must be at least 1, found 0
        2: zenoh_peer: expected an endpoint
        4: machine 1: expected a mapping
        5: machine "a b": id: machine id 'a b' contains
        6: machine "7": field `host` is required
        6: machine "7": port: must not exceed 65535
        7: machine "7": host: host '-o' must not start with '-'
        7: machine "7": dora: expected an absolute path
        7: machine "7": zenoh_addr: expected an IP address
        8: machine 5: field `id` is required
        8: machine 5: labels a b: label key 'a b' contains
        8: machine 5: labels a b: expected a text, found a list
        8: machine 5: environment variable "HOME": `HOME` is used
        9: unknown field `machine`
    """
    lines = [line.strip() for line in expected.strip().splitlines()]
    for line in lines:
        here = [one for one in found if one.startswith(line)]
        assert len(here) == 1, (line, found)
        found.remove(here[0])
    assert found == []


def test_every_problem_between_the_fields_of_a_cluster_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_cluster(
            dedent("""\
            coordinator: {addr: 192.0.2.1, port: 1, user: op, former: ["a:1"]}
            zenoh_peer: tcp/b:1
            machines:
              - {id: "7", host: a, zenoh_addr: 192.0.2.2}
              - {id: 7, host: b, dora: /opt/y, prefix: /opt/x, zenoh_port: 7450}
            dataflows: {d: {file: f, machines: [gone]}}
            rollout: {deadline: 1}
            """)
        )
    found = [f"{one.line}: {one.message}" for one in caught.value.errors]
    expected = """\
        1: `user` of the coordinator needs `host`
        1: unknown field `former`
        4: `zenoh_addr` of a machine and `zenoh_peer` are mutually exclusive
        5: duplicate machine id "7"
        5: `prefix` is the folder to install dora in
        5: `zenoh_port` of a machine and `zenoh_peer` are mutually exclusive
        5: `zenoh_port` requires an address to listen on
        6: no machine "gone"
        7: `deadline` (1 s) must be longer than `healthy` (10 s)
    """
    lines = [line.strip() for line in expected.strip().splitlines()]
    assert len(found) == len(lines)
    for line in lines:
        assert sum(one.startswith(line) for one in found) == 1, (line, found)


def test_problems_of_the_root_are_reported_without_nodes() -> None:
    found = errors("dbug: {}\nnodes: 5\nxyz: 1")
    assert [error.split(":")[0] for error in found] == ["1", "2", "3"]


def test_an_unknown_alias_is_one_problem() -> None:
    (found,) = errors("nodes: [{<<: *x, id: a, path: p}]")
    assert "unknown alias *x" in found


@pytest.mark.parametrize("fault", ["outputs: [x]\n    outputs: [y]", "outputs: *no", "ouputs: [y]"])
def test_edges_are_not_checked_beside_other_errors(fault: str) -> None:
    text = f"""\
nodes:
  - id: a
    path: p
    {fault}
  - {{id: b, path: p, inputs: {{x: a/y, z: c/y}}}}
"""
    assert len(errors(text)) == 1
