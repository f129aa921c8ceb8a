"""Numbers and booleans in text fields keep their text, also in the schemas."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import jsonschema
import pytest
from config.parsing import errors, node, parse, with_node

from dora_config.cluster.loader import parse_cluster
from dora_config.dataflow.expand import expand_dataflow
from dora_config.dataflow.fields import OLD_NAMES, SCALAR_TYPES
from dora_config.dataflow.loader import load_dataflow, load_module
from dora_config.errors import ConfigError
from dora_config.render.schema import FileKind, json_schema
from dora_config.yaml.reader import read_document

SPELLINGS = ["7", "0", "1.0", "1.10", "0x10", "0o17", "1e3", "true", "false", "007", "-1"]


@pytest.mark.parametrize("written", SPELLINGS)
def test_scalar_is_the_text_of_the_file(written: str) -> None:
    found = parse(f"""\
        nodes:
          - id: {written}
            name: {written}
            description: {written}
            path: {written}
            args: {written}
            build: {written}
            git: {written}
            tag: {written}
            outputs: [{written}]
            output_types: {{{written}: {written}}}
            output_metadata: {{{written}: [{written}]}}
            send_stdout_as: {written}
            inputs: {{{written}: {written}/{written}}}
            deploy: {{labels: {{{written.lstrip("-")}: {written}}}, working_dir: {written}}}
        """).resolved
    (one,) = found.nodes
    assert {one.id, one.name, one.description, one.path, *one.args, *one.build} == {written}
    assert one.git is not None
    assert {one.git.url, one.git.tag, *one.outputs, one.send_stdout_as} == {written}
    assert (one.output_types, one.output_metadata) == ({written: written}, {written: (written,)})
    assert list(one.inputs) == [written]
    assert str(one.inputs[written].source) == f"{written}/{written}"
    assert one.deploy.labels == {written.lstrip("-"): written}
    assert one.deploy.working_dir == written
    assert parse(expand_dataflow(found)).resolved == found


@pytest.mark.parametrize("written", ["7", "1.0", "true", "0x10"])
def test_scalars_in_operators_and_their_files(written: str) -> None:
    one = node(f"operators: [{{id: {written}, python: {written}, outputs: [{written}]}}]")
    assert (one.operators[0].id, one.operators[0].python) == (written, written)
    assert one.outputs == (f"{written}/{written}",)
    one = node(f"operator: {{python: {{source: {written}}}}}")
    assert one.operators[0].python == written


def test_tagged_and_merged_scalars_keep_their_text() -> None:
    loaded = parse("""\
        nodes:
          - &base {id: 1.50, path: !!float 2, args: &count 0x0A}
          - {<<: *base, id: 2, name: *count}
        """)
    first, second = loaded.resolved.nodes
    assert (first.id, first.path, first.args) == ("1.50", "2", ("0x0A",))
    assert (second.id, second.path, second.args, second.name) == ("2", "2", ("0x0A",), "0x0A")


def test_ids_of_numbers_follow_the_rules_of_ids() -> None:
    assert "contains invalid character '+'" in errors("nodes: [{id: 1e+3, path: p}]")[0]
    assert "must not start with '.'" in errors("nodes: [{id: .5, path: p}]")[0]
    assert "must not start with '-'" in errors(with_node("path: p\ndeploy: {machine: -1}"))[0]


def test_the_same_id_in_quotes_and_without_is_a_duplicate() -> None:
    (error,) = errors("nodes: [{id: 7, path: p}, {id: '7', path: p}]")
    assert 'duplicate node ID "7"' in error
    with pytest.raises(ConfigError, match='duplicate machine id "7"'):
        cluster("machines: [{id: 7, host: a}, {id: '7', host: b}]")


@pytest.mark.parametrize("written", ["null", "~", ""])
def test_null_is_not_a_text(written: str) -> None:
    assert "field `id` is required" in errors(f"nodes: [{{id: {written}, path: p}}]")[0]
    assert "found nothing" in errors(with_node(f"path: p\noutputs:\n  - {written}"))[0]
    assert node(f"path: p\nname: {written}") == node("path: p")


def test_scalars_of_a_module_and_of_types(tmp_path: Path) -> None:
    (tmp_path / "7").write_text(
        dedent("""\
        module: {name: 1.0, description: 2, inputs: [1], inputs_optional: [2], outputs: [0x3]}
        build: 5
        nodes:
          - {id: 4, path: 5, inputs: {a: _mod/1, b: _mod/2}, outputs: [0x3]}
        """)
    )
    (tmp_path / "types/lab").mkdir(parents=True)
    (tmp_path / "types/lab/v1.yml").write_text(
        "types:\n  8: {arrow: Struct, fields: [{name: 1, type: 2}], parameters: [1.10]}\n"
    )
    flow = tmp_path / "flow.yml"
    flow.write_text(
        dedent("""\
        strict_types: true
        nodes:
          - {id: 6, module: 7, inputs: {1: 9/1}}
          - {id: 9, path: p, outputs: [1], output_types: {1: lab/v1/8}, inputs: {i: 6/0x3}}
        """)
    )
    loaded = load_dataflow(flow).resolved
    assert [one.id for one in loaded.nodes] == ["6.4", "9"]
    assert str(loaded.node("9").inputs["i"].source) == "6.4/0x3"
    assert loaded.node("6.4").build == ("5",)
    assert load_module(tmp_path / "7").interface.name == "1.0"


def cluster(rest: str) -> Any:
    return parse_cluster(f"coordinator: {{addr: 192.0.2.1}}\n{rest}\n").cluster


@pytest.mark.parametrize("written", ["7", "1.0", "true", "0x10"])
def test_scalars_in_a_cluster_file(written: str) -> None:
    (machine,) = cluster(
        f"machines: [{{id: {written}, host: {written}, user: {written}, "
        f"identity_file: {written}, labels: {{{written}: {written}}}}}]"
    ).machines
    assert machine.id == machine.host == machine.user == machine.identity_file == written
    assert machine.labels == {written: written}


# A file for each text of each model, with VALUE in its place.
BRIDGE = "nodes: [{id: n, ros2: {%s}, inputs: {i: n/x}, outputs: [x]}]"
NODE = "nodes: [{id: n, path: p, outputs: [o], %s}]"
OPERATOR = "nodes: [{id: n, operator: {id: x, python: p, outputs: [o], %s}}]"
MODULE = "module: {name: m, %s}\nnodes: [{id: n, path: p, outputs: [o], inputs: {a: _mod/i}}]"
COORDINATOR = "coordinator: {addr: 192.0.2.1, %s}\nmachines: [{id: m, host: h}]"
MACHINE = "coordinator: {addr: 192.0.2.1}\nmachines: [{id: m, host: h, %s}]"
CLUSTER = MACHINE % "user: u"
FLEET = f"{CLUSTER}\ndataflows: {{d: {{file: %s}}}}"
PORTS = {
    "name": "name: VALUE",
    "description": "description: VALUE",
    "build": "build: VALUE",
    "outputs": "outputs: [o, VALUE]",
    "input_types": "inputs: {i: dora/logs}, input_types: {i: VALUE}",
    "output_types": "output_types: {o: VALUE}",
    "output_metadata": "output_metadata: {o: [VALUE]}",
    "send_stdout_as": "outputs: [VALUE], send_stdout_as: VALUE",
    "send_logs_as": "outputs: [VALUE], send_logs_as: VALUE",
}
FILES: dict[tuple[str, str], str] = {
    **{("Node", name): NODE.replace("outputs: [o], ", "") % f"outputs: [o], {text}"
       if "outputs: [" not in text else NODE.replace("outputs: [o], ", "") % text
       for name, text in PORTS.items()},
    **{("Operator", name): OPERATOR.replace("outputs: [o], ", "") % f"outputs: [o], {text}"
       if "outputs: [" not in text else OPERATOR.replace("outputs: [o], ", "") % text
       for name, text in PORTS.items()},
    ("Node", "id"): "nodes: [{id: VALUE, path: p}]",
    ("Node", "path"): "nodes: [{id: n, path: VALUE}]",
    ("Node", "args"): NODE % "args: VALUE",
    ("Node", "git"): NODE % "git: VALUE",
    ("Node", "branch"): NODE % "git: g, branch: VALUE",
    ("Node", "tag"): NODE % "git: g, tag: VALUE",
    ("Node", "rev"): NODE % "git: g, rev: VALUE",
    ("Node", "module"): "nodes: [{id: n, module: m.yml}]",
    ("Node", "params"): "nodes: [{id: n, module: m.yml, params: {a: VALUE}}]",
    ("Operator", "id"): "nodes: [{id: n, operator: {id: VALUE, python: p}}]",
    ("Operator", "python"): "nodes: [{id: n, operator: {python: VALUE}}]",
    ("PythonSource", "source"): "nodes: [{id: n, operator: {python: {source: VALUE}}}]",
    ("Deploy", "machine"): NODE % "deploy: {machine: VALUE}",
    ("Deploy", "labels"): NODE % "deploy: {labels: {a: VALUE}}",
    ("Deploy", "working_dir"): NODE % "deploy: {working_dir: VALUE}",
    ("TypeRule", "from"): "nodes: []\ntype_rules: [{from: VALUE, to: std/core/v1/Bool}]",
    ("TypeRule", "to"): "nodes: []\ntype_rules: [{from: std/core/v1/Bool, to: VALUE}]",
    ("Module", "build"): MODULE % "inputs: [i]" + "\nbuild: VALUE",
    ("ModuleInterface", "name"): MODULE.replace("name: m, ", "") % "name: VALUE, inputs: [i]",
    ("ModuleInterface", "description"): MODULE % "inputs: [i], description: VALUE",
    ("ModuleInterface", "inputs"): MODULE % "inputs: [i, VALUE]",
    ("ModuleInterface", "inputs_optional"): MODULE % "inputs: [i], inputs_optional: [VALUE]",
    ("ModuleInterface", "outputs"): (MODULE % "inputs: [i], outputs: [VALUE]").replace(
        "[o]", "[VALUE]"
    ),
    ("Coordinator", "host"): COORDINATOR % "host: VALUE",
    ("Coordinator", "user"): COORDINATOR % "host: h, user: VALUE",
    ("Coordinator", "identity_file"): COORDINATOR % "host: h, identity_file: VALUE",
    ("Coordinator", "dora"): COORDINATOR % "host: h, dora: VALUE",
    ("Machine", "id"): MACHINE.replace("id: m, ", "") % "id: VALUE",
    ("Machine", "host"): MACHINE.replace("host: h, ", "") % "host: VALUE",
    ("Machine", "user"): MACHINE % "user: VALUE",
    ("Machine", "identity_file"): MACHINE % "identity_file: VALUE",
    ("Machine", "env"): MACHINE % "env: {A: VALUE}",
    ("Machine", "labels"): MACHINE % "labels: {a: VALUE}",
    # texts that no number can be, and those with a value of any kind
    ("Input", "source"): NODE % "inputs: {i: VALUE}",
    ("Node", "inputs"): NODE % "inputs: {i: VALUE}",
    ("Node", "min_log_level"): NODE % "min_log_level: VALUE",
    ("Node", "env"): NODE % "env: {A: VALUE}",
    ("Descriptor", "env"): "env: {A: VALUE}\nnodes: []",
    ("Ros2", "topic"): BRIDGE % "topic: VALUE",
    ("Ros2", "message_type"): BRIDGE % "topic: x, message_type: VALUE",
    ("Ros2", "service"): BRIDGE % "service: VALUE, service_type: a/B, role: client",
    ("Ros2", "service_type"): BRIDGE % "service: x, service_type: VALUE, role: client",
    ("Ros2", "action"): BRIDGE % "action: VALUE, action_type: a/B, role: client",
    ("Ros2", "action_type"): BRIDGE % "action: x, action_type: VALUE, role: client",
    ("Ros2", "namespace"): BRIDGE % "topic: x, namespace: VALUE",
    ("Ros2", "node_name"): BRIDGE % "topic: x, node_name: VALUE",
    ("Ros2BridgeTopic", "topic"): BRIDGE % "topics: [{topic: VALUE, output: x}]",
    ("Ros2BridgeTopic", "message_type"): BRIDGE % "topics: [{topic: x, message_type: VALUE}]",
    ("Ros2BridgeTopic", "output"): BRIDGE % "topics: [{topic: x, output: x, input: VALUE}]",
    ("Ros2BridgeTopic", "input"): BRIDGE % "topics: [{topic: x, output: x, input: VALUE}]",
    ("Ros2BridgeTransport", "config_uri"): BRIDGE % "topic: x, transport: {config_uri: VALUE}",
    ("Coordinator", "addr"): "coordinator: {addr: VALUE}\nmachines: [{id: m, host: h}]",
    ("Cluster", "zenoh_peer"): MACHINE % "" + "\nzenoh_peer: VALUE",
    ("Machine", "dora"): MACHINE % "dora: VALUE",
    ("Machine", "prefix"): MACHINE % "prefix: VALUE",
    ("Machine", "zenoh_addr"): MACHINE % "zenoh_addr: VALUE",
    ("FleetDataflow", "file"): FLEET % "VALUE",
    ("FleetDataflow", "env"): FLEET % "f, env: {A: VALUE}",
    ("FleetMachines", "labels"): FLEET % "f, machines: {labels: {k: VALUE}}",
    ("WrittenRollout", "check"): f"{CLUSTER}\nrollout: {{check: VALUE}}",
}  # fmt: skip


OLD_KEYS = tuple(OLD_NAMES.values())


def kind_of(model: str) -> FileKind:
    if model in ("Cluster", "Coordinator", "Machine", "WrittenRollout") or model.startswith(
        "Fleet"
    ):
        return "cluster"
    return "module" if model.startswith("Module") else "dataflow"


def loads(kind: FileKind, text: str, folder: Path) -> bool:
    file = folder / "file.yml"
    file.write_text(text)
    (folder / "m.yml").write_text("module: {name: m}\nnodes: []\n")
    try:
        if kind == "cluster":
            parse_cluster(text)
        elif kind == "module":
            load_module(file)
        else:
            load_dataflow(file)
    except ConfigError:
        return False
    return True


KINDS: tuple[FileKind, ...] = ("dataflow", "module", "cluster")
VALIDATORS = {
    kind: jsonschema.Draft202012Validator(
        json_schema(kind), format_checker=jsonschema.FormatChecker()
    )
    for kind in KINDS
}
SCALARS = (
    *("-3", "0", "1", "2", "1000000", "1.000", "1.500", "999999.999"),
    *("true", "false", "True", "0x10", "1e3", "word", "[1]", "{}"),
)


@pytest.mark.parametrize("place", FILES, ids=[".".join(place) for place in FILES])
def test_the_schema_accepts_a_scalar_if_and_only_if_it_loads(
    tmp_path: Path, place: tuple[str, str]
) -> None:
    kind = kind_of(place[0])
    for value in SCALARS:
        text = FILES[place].replace("VALUE", value)
        valid = VALIDATORS[kind].is_valid(read_document(text, "f").data)
        assert valid == loads(kind, text, tmp_path), text


def test_every_text_of_the_schemas_is_among_these_files() -> None:
    roots = {"dataflow": "Descriptor", "module": "Module", "cluster": "Cluster"}
    for kind in KINDS:
        schema = json_schema(kind)
        for model, definition in {roots[kind]: schema, **schema["$defs"]}.items():
            for name, field in definition.get("properties", {}).items():
                # of a checksum, the schema cannot limit the digits of a number; the others name
                # machines of the file
                other = ("path_sha256", "first", "standby", "machines", "ids", *OLD_KEYS)
                if str(SCALAR_TYPES) in str(field) and name not in other:
                    assert (model, name) in FILES


def test_a_checksum_of_digits_needs_no_quotes() -> None:
    digits = "1" * 64
    assert node(f"path: https://x/y\npath_sha256: {digits}").path_sha256 == digits


def test_long_number_is_a_text() -> None:
    digits = "9" * 1000
    assert node(f"path: x.py\nargs: {digits}").args == (digits,)
    assert node(f"path: x.py\nenv: {{A: {digits}}}").env["A"] == digits
    (problem,) = errors(with_node(f"path: x.py\nmax_restarts: {digits}"))
    assert 'max_restarts: expected a whole number, found "999' in problem
