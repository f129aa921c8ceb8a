"""One run reports every problem of a file and its modules."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from config.parsing import errors

from dora_config import ConfigError, load_dataflow
from dora_config.cluster.loader import parse_cluster

FLOW = """\
env: {A: $NOPE}
dbug: {}
deploy: {machine: "a b"}
type_rules: [{from: std/core/v1/Nix, to: std/core/v1/Bool}]
strict_types: true
nodes:
  - id: cam
    path: cam.py
    outputs: [image, image2]
    output_types: {image: std/core/v1/Strng, nothere: std/core/v1/Nope}
  - id: cam
    path: cam2.py
    inputs: {x: nosuch/out, y: cam/imagee}
    send_stdout_as: lines
  - id: my node
    path: n.py
    outputs: [foo]
    inputs: {a: cam/imge, b: {source: dora/timer/millis/0, queue_size: -1}}
  - path: noid.py
    inputs: {a: nowhere/x}
    outputs: [bar]
  - id: rd
    path: rd.py
    inputs: {a: lost/foo, b: really/nothing, d: noid/bar}
    bogus: 1
    branch: main
    env: {X: $UNDEF}
  - id: op
    operator: {shared-library: libx, inputs: {a: cam/imagx}}
  - id: mod
    module: parts/m.yml
    inputs: {q: cam/image, in: nope/x}
  - id: gone
    module: parts/none.yml
    inputs: {i: nada/x}
    params: {p: [1]}
    env: {E: $MISSING}
  - id: use
    path: u.py
    inputs: {a: mod/out, b: mod/nix, c: mod.inner/zip, d: mod.inner/o, e: gone/x, f: gone.deep/x}
  - just-a-name
  - 5
  - id: last
    path: l.py
    path: m.py
    inputs: {a: just-a-name/o, b: cam/*, c: cam/none}
  - id: alias
    path: *unknown
    inputs: {a: cam/no}
"""
MODULE = """\
module: {nam: x, inputs: [in, in2], outputs: [out, two]}
nodes:
  - id: inner
    path: i.py
    inputs: {a: _mod/in, b: _mod/inn, c: other/z}
    outputs: [out, o]
    max_restarts: many
  - id: inner
    path: j.py
    args: $PARAM_X
    inputs: {a: inner/zzz}
"""
EXPECTED = """\
flow.yml:1: $NOPE is not defined
flow.yml:2: unknown field `dbug`
flow.yml:3: machine id 'a b' contains
flow.yml:4: unknown type "std/core/v1/Nix"
flow.yml:10: unknown type "std/core/v1/Strng"
flow.yml:10: `output_types` contains "nothere"
flow.yml:10: unknown type "std/core/v1/Nope"
flow.yml:11: duplicate node ID "cam"
flow.yml:13: output `nosuch/out` mapped to input `cam/x` does not exist
flow.yml:13: output `cam/imagee` mapped to input `cam/y` does not exist
flow.yml:14: `send_stdout_as` is "lines"
flow.yml:15: node id 'my node' contains
flow.yml:18: output `cam/imge` mapped to input `my node/a` does not exist
flow.yml:18: 'dora/timer/millis/0' must be non-zero
flow.yml:18: queue_size: must not be negative
flow.yml:19: node 4: field `id` is required
flow.yml:20: output `nowhere/x` mapped to input `#4/a` does not exist
flow.yml:24: output `really/nothing` mapped to input `rd/b` does not exist
flow.yml:25: unknown field `bogus`
flow.yml:26: `branch` needs a repository
flow.yml:27: $UNDEF is not defined
flow.yml:29: `shared-library` operators are not supported
flow.yml:29: output `cam/imagx` mapped to input `op/op/a` does not exist
flow.yml:32: requires input "in2"
flow.yml:32: has no input "q"
flow.yml:32: output `nope/x` mapped to input `mod.inner/a` does not exist
flow.yml:34: module "parts/none.yml" cannot be read
flow.yml:35: output `nada/x` mapped to input `gone/i` does not exist
flow.yml:36: param "p": expected a text, number or boolean
flow.yml:37: $MISSING is not defined
flow.yml:40: output `mod/nix` does not exist
flow.yml:40: output `mod.inner/zip` mapped to input `use/c` does not exist
flow.yml:41: node 10: expected a mapping
flow.yml:42: node 11: expected a mapping
flow.yml:45: duplicate key "path"
flow.yml:46: output '*' contains invalid character
flow.yml:46: output `cam/none` mapped to input `last/c` does not exist
flow.yml:48: unknown alias *unknown
flow.yml:49: output `cam/no` mapped to input `alias/a` does not exist
m.yml:1: field `name` is required
m.yml:1: unknown field `nam`
m.yml:1: output "two" of module
m.yml:5: the module has no input "inn"
m.yml:5: output `other/z` mapped to input `mod.inner/c` does not exist
m.yml:7: max_restarts: expected a whole number
m.yml:8: duplicate node ID "inner"
m.yml:10: args contain $PARAM_X
m.yml:11: output `inner/zzz` mapped to input `mod.inner/a` does not exist
"""


def test_every_problem_of_a_dataflow_and_its_modules_at_once(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/m.yml").write_text(MODULE)
    (tmp_path / "flow.yml").write_text(FLOW)
    with pytest.raises(ConfigError) as caught:
        load_dataflow(tmp_path / "flow.yml", environ={})
    found = [(Path(one.file).name, one.line, one.message) for one in caught.value.errors]
    for line in EXPECTED.splitlines():
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
        'unknown type "lab/C"',
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
              - {id: c, host: *nothing}
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
        7: duplicate machine id "7"
        7: machine "7": host: host '-o' must not start with '-'
        7: machine "7": dora: expected an absolute path
        7: machine "7": zenoh_addr: expected an IP address
        7: `prefix` is the folder to install dora in
        7: `zenoh_addr` of a machine and `zenoh_peer` are mutually exclusive
        8: machine 5: field `id` is required
        8: machine 5: labels a b: label key 'a b' contains
        8: machine 5: labels a b: expected a text, found a list
        8: machine 5: environment variable "HOME": `HOME` is used
        8: `zenoh_port` of a machine and `zenoh_peer` are mutually exclusive
        8: `zenoh_port` requires an address to listen on
        9: unknown alias *nothing
        10: unknown field `machine`
    """
    lines = [line.strip() for line in expected.strip().splitlines()]
    for line in lines:
        here = [one for one in found if one.startswith(line)]
        assert len(here) == 1, (line, found)
        found.remove(here[0])
    assert found == []


def test_problems_of_the_root_are_reported_without_nodes() -> None:
    found = errors("env: {A: $NO}\nnodes: [{id: a b, path: p}]\nxyz: 1")
    assert [error.split(":")[0] for error in found] == ["1", "2", "3"]
    found = errors("env: {A: $NO}\nnodes: 5")
    assert [error.split(":")[0] for error in found] == ["1", "2"]


def test_second_document_hides_no_problem_of_the_first() -> None:
    found = errors("nodes: [{id: a, path: p, inputs: {x: b/c}}]\n---\nnodes: []")
    assert len(found) == 2
    assert "more than one YAML document" in found[1]


def test_an_unknown_alias_is_one_problem() -> None:
    (found,) = errors("nodes: [{<<: *x, id: a, path: p}]")
    assert "unknown alias *x" in found


@pytest.mark.parametrize("fault", ["outputs: [x]\n    outputs: [y]", "outputs: *no", "ouputs: [y]"])
def test_unreadable_outputs_cause_no_further_errors(fault: str) -> None:
    text = f"""\
nodes:
  - id: a
    path: p
    {fault}
  - {{id: b, path: p, inputs: {{x: a/y, z: c/y}}}}
"""
    found = errors(text)
    assert len(found) == 2, found
    assert "`c/y`" in found[1]


def test_type_of_an_unreadable_input_is_not_reported() -> None:
    found = errors("""\
        strict_types: true
        nodes:
          - {id: a, path: p, inputs: {x: nothing}, input_types: {x: std/core/v1/Bool}}
        """)
    assert len(found) == 1
    assert "input must start with" in found[0]


@pytest.mark.parametrize("second", ["id: a, ", ""])
def test_operator_without_id_hides_no_unknown_source(second: str) -> None:
    text = f"""\
nodes:
  - id: n
    operators:
      - {{id: a, python: a.py, inputs: {{x: none/o}}}}
      - {{{second}python: b.py, inputs: {{x: none/p}}, outputs: [q]}}
  - {{path: p, inputs: {{x: n/a/q}}}}
"""
    found = errors(text)
    assert len(found) == 4, found
    assert all("known nodes: n" in found[index] for index in (0, 2)), found
    assert "`none/o`" in found[0]
    assert "`none/p`" in found[2]
