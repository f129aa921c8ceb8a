"""Modules: nodes that are replaced by the nodes of a file."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from dora_config.dataflow.loader import LoadedDataflow, load_dataflow, load_module
from dora_config.errors import ConfigError

FLOW = """\
nodes:
  - {id: camera, path: camera.py, outputs: [image]}
  - id: eye
    module: parts/eye.yml
    inputs: {image: {source: camera/image, queue_size: 5}}
    params: {speed: 3, mode: "fast one"}
    env: {OUTER: o, BOTH: outer}
    build: make outer
    deploy: {machine: robot}
    cpu_affinity: [1]
    warm: false
  - {id: sink, path: sink.py, inputs: {boxes: eye/boxes, logs: dora/logs/warn/camera}}
"""

EYE = """\
module:
  name: eye
  inputs: [image]
  inputs_optional: [hint]
  outputs: [boxes]
nodes:
  - id: find
    path: find.py
    args: --speed $PARAM_SPEED ${PARAM_MODE}
    env: {BOTH: inner, SPEED: $PARAM_SPEED}
    inputs: {image: _mod/image, hint: _mod/hint, back: keep/all, logs: dora/logs/info/keep}
    outputs: [boxes]
  - id: keep
    path: python3
    build: make inner
    deploy: {machine: other}
    inputs: {image: {source: _mod/image, queue_size: 1}, boxes: find/boxes}
    outputs: [all]
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write(tmp_path, "flow.yml", FLOW)
    write(tmp_path, "parts/eye.yml", EYE)
    return tmp_path


def write(directory: Path, name: str, text: str) -> None:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))


def load(directory: Path) -> LoadedDataflow:
    return load_dataflow(directory / "flow.yml", environ={})


def errors(directory: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(directory)
    return [str(problem).replace(f"{directory}/", "") for problem in caught.value.errors]


def test_module_is_replaced_by_its_nodes(files: Path) -> None:
    flow = load(files).resolved
    assert [node.id for node in flow.nodes] == ["camera", "eye.find", "eye.keep", "sink"]
    find, keep, sink = flow.nodes[1:]
    assert find.path == "parts/find.py"
    assert keep.path == "python3"
    assert find.args == ("--speed", "3", "fast", "one")
    assert {name: str(one.source) for name, one in find.inputs.items()} == {
        "image": "camera/image",
        "back": "eye.keep/all",
        "logs": "dora/logs/info/eye.keep",
    }
    assert (find.inputs["image"].queue_size, keep.inputs["image"].queue_size) == (5, 1)
    assert str(keep.inputs["boxes"].source) == "eye.find/boxes"
    assert str(sink.inputs["boxes"].source) == "eye.find/boxes"


def test_settings_of_the_user_apply_to_inner_nodes_without_their_own(files: Path) -> None:
    find, keep = load(files).resolved.nodes[1:3]
    assert find.env == {
        "PARAM_SPEED": "3",
        "PARAM_MODE": "fast one",
        "OUTER": "o",
        "BOTH": "inner",
        "SPEED": "3",
    }
    assert (find.build, keep.build) == (("make outer",), ("make inner",))
    assert (find.deploy.machine, keep.deploy.machine) == ("robot", "other")
    assert (find.cpu_affinity, keep.cpu_affinity) == ((1,), (1,))
    assert (find.warm, keep.warm) == (False, False)


def test_build_of_the_module_precedes_build_of_its_user(files: Path) -> None:
    write(files, "parts/eye.yml", EYE + "build: make module\n")
    find, keep = load(files).resolved.nodes[1:3]
    assert (find.build, keep.build) == (("make module",), ("make inner",))


def test_modules_in_modules(files: Path) -> None:
    write(files, "flow.yml", FLOW.replace("parts/eye.yml", "outer.yml"))
    write(
        files,
        "outer.yml",
        """\
        module: {name: outer, inputs: [image], outputs: [boxes]}
        nodes:
          - {id: eye, module: parts/eye.yml, inputs: {image: _mod/image},
             params: {speed: $PARAM_SPEED}}
        """,
    )
    flow = load(files).resolved
    assert [node.id for node in flow.nodes][1:3] == ["eye.eye.find", "eye.eye.keep"]
    assert flow.nodes[1].args == ("--speed", "3", "fast", "one")
    assert str(flow.nodes[1].inputs["image"].source) == "camera/image"
    assert flow.nodes[1].inputs["image"].queue_size == 5
    assert str(flow.nodes[3].inputs["boxes"].source) == "eye.eye.find/boxes"


def test_operator_has_the_output_of_a_module(files: Path) -> None:
    write(
        files,
        "parts/eye.yml",
        """\
        module: {name: eye, inputs: [image], outputs: [boxes]}
        nodes:
          - id: find
            operators:
              - {id: a, python: a.py, inputs: {image: _mod/image}, outputs: [x]}
              - {id: b, python: b.py, inputs: {x: find/a/x}, outputs: [boxes]}
        """,
    )
    flow = load(files).resolved
    assert str(flow.node("sink").inputs["boxes"].source) == "eye.find/b/boxes"
    assert str(flow.node("eye.find").inputs["b/x"].source) == "eye.find/a/x"
    assert flow.node("eye.find").operators[0].python == "parts/a.py"


MISTAKES = [
    ("flow", "boxes: eye/boxes", "boxes: eye/boxs", 'flow.yml:12:47: node "sink": input "boxes": '),
    ("flow", "boxes: eye/boxes", "boxes: eye/boxs", 'module node "eye" has outputs boxes; did you'),
    ("flow", "image: {source", "imag: {source", 'module "eye" requires input "image"'),
    ("flow", "image: {source", "imag: {source", 'no input "imag", expected image, hint; did you'),
    ("flow", "speed: 3, ", "", "args contain $PARAM_SPEED, but the module has no such param"),
    (
        "flow",
        "speed: 3",
        "speed: [3]",
        'param "speed": expected a text, number or boolean, found a list',
    ),
    ("flow", "speed: 3", "sp eed: 3", 'param "sp eed": expected a name of letters, digits'),
    (
        "flow",
        "camera/image",
        "camera/imag",
        "output `camera/imag` mapped to input `eye.find/image`",
    ),
    ("flow", "module: parts/eye.yml", "module: no.yml", "cannot be read: no such file"),
    ("flow", "module: parts/eye.yml", "module: ../eye.yml", "lies outside the directory of the"),
    ("flow", "module: parts/eye.yml", "module: /eye.yml", "must be a relative path"),
    ("flow", "module: parts/eye.yml", "module: parts", "cannot be read: is a directory"),
    (
        "flow",
        "cpu_affinity: [1]",
        "args: x",
        "not allowed on module nodes (module nodes accept only",
    ),
    ("flow", "cpu_affinity: [1]", "outputs: [x]", "not allowed on module nodes"),
    ("eye", "outputs: [boxes]\nnodes", "outputs: [boxs]\nnodes", "found none of its nodes"),
    ("eye", "outputs: [all]", "outputs: [boxes]", "exactly one inner node, found find, keep"),
    ("eye", "hint: _mod/hint", "hint: _mod/hnt", 'the module has no input "hnt"'),
    ("eye", "hint: _mod/hint", "hint: unknown/x", 'node "eye.unknown" does not exist'),
    ("eye", "name: eye", "nam: eye", "unknown field `nam`"),
    ("eye", "name: eye", "nam: eye", "field `name` is required"),
    ("eye", "nodes:", "env: {}\nnodes:", "unknown field `env`"),
    ("eye", "id: keep", "id: find", 'parts/eye.yml:13:9: duplicate node ID "find"'),
    ("eye", EYE, "nodes: []", "field `module` is required"),
    ("eye", EYE, "[", "parts/eye.yml:2:1: invalid YAML"),
    ("eye", EYE, "", "parts/eye.yml:1:1: the file is empty"),
]


@pytest.mark.parametrize(("file", "old", "new", "message"), MISTAKES)
def test_mistakes(files: Path, file: str, old: str, new: str, message: str) -> None:
    name, text = ("flow.yml", FLOW) if file == "flow" else ("parts/eye.yml", EYE)
    assert old in text
    write(files, name, text.replace(old, new, 1))
    found = errors(files)
    assert any(message in error for error in found), found


@pytest.mark.parametrize("nested", [False, True])
def test_sources_of_inputs_without_inner_readers_are_checked(files: Path, nested: bool) -> None:
    read = "inputs: {image: _mod/image}"
    write(
        files,
        "parts/eye.yml",
        "module: {name: eye, inputs: [image]}\nnodes:\n"
        + ("  - {id: in, module: in.yml, " if nested else "  - {id: in, path: in.py, ")
        + (f"{read}}}\n" if nested else "}\n"),
    )
    inner = "module: {name: in, inputs: [image]}\nnodes: [{id: x, path: x.py}]\n"
    write(files, "parts/in.yml", inner)
    flow = """\
        nodes:
          - {id: camera, path: camera.py, outputs: [image]}
          - {id: eye, module: parts/eye.yml, inputs: {image: camera/imgae}}
        """
    write(files, "flow.yml", flow)
    with pytest.raises(ConfigError) as caught:
        load_dataflow(files / "flow.yml")
    (problem,) = caught.value.errors
    assert (problem.line, problem.column) == (3, 54)
    user = "eye.in" if nested else "eye"
    assert f"output `camera/imgae` mapped to input `{user}/image` does not exist" in str(problem)
    assert 'did you mean "camera/image"?' in str(problem)
    write(files, "flow.yml", flow.replace("imgae", "image"))
    loaded = load_dataflow(files / "flow.yml")
    assert [node.inputs for node in loaded.resolved.nodes] == [{}, {}]


def test_a_module_must_not_use_itself(files: Path) -> None:
    write(files, "parts/eye.yml", "module: {name: eye}\nnodes: [{id: again, module: eye.yml}]\n")
    assert any("uses itself" in error for error in errors(files))


def test_depth_of_modules_is_limited(files: Path) -> None:
    write(files, "flow.yml", "nodes: [{id: m, module: m0.yml}]\n")
    for n in range(12):
        write(
            files, f"m{n}.yml", f"module: {{name: m}}\nnodes: [{{id: m, module: m{n + 1}.yml}}]\n"
        )
    assert errors(files) == [
        'm7.yml:2:25: node "m": module "m8.yml" is nested deeper than 8 levels'
    ]


def test_number_of_modules_is_limited(files: Path) -> None:
    for name, inner in (("flow", "a"), ("a", "b"), ("b", "c")):
        users = "".join(f"  - {{id: u{n}, module: {inner}.yml}}\n" for n in range(40))
        face = "" if name == "flow" else f"module: {{name: {name}}}\n"
        write(files, f"{name}.yml", f"{face}nodes:\n{users}")
    write(files, "c.yml", "module: {name: c}\nnodes: [{id: n, path: p}]\n")
    (error,) = errors(files)
    assert "exceeds the limit of 1000 modules" in error


def test_size_of_a_module_is_limited(files: Path) -> None:
    write(files, "parts/eye.yml", "#" * ((1 << 20) + 1))
    assert any("is larger than 1 MiB" in error for error in errors(files))


def test_link_out_of_the_directory_is_refused(files: Path, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside.yml"
    outside.write_text(EYE)
    (files / "parts/eye.yml").unlink()
    (files / "parts/eye.yml").symlink_to(outside)
    assert any("lies outside the directory" in error for error in errors(files))
    outside.unlink()


def test_links_in_a_circle(files: Path) -> None:
    (files / "parts/eye.yml").unlink()
    (files / "parts/eye.yml").symlink_to("eye.yml")
    assert any("cannot be read" in error for error in errors(files))


def test_duplicate_ids_after_modules_are_applied(files: Path) -> None:
    write(files, "flow.yml", FLOW + "  - {id: eye.find, path: p}\n")
    assert any('duplicate node ID "eye.find"' in error for error in errors(files))


def test_a_module_by_itself(files: Path) -> None:
    module = load_module(files / "parts/eye.yml")
    ports = module.interface
    assert (ports.name, ports.inputs, ports.inputs_optional) == ("eye", ["image"], ["hint"])
    assert (ports.outputs, module.node_ids) == (["boxes"], ("find", "keep"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hint: _mod/hint", "hint: _mod/hnt", 'the module has no input "hnt"'),
        ("find/boxes", "find/boxs", "does not exist"),
        ("outputs: [all]", "outputs: [boxes]", "exactly one inner node"),
        ("path: find.py", "pth: find.py", "unknown field `pth`"),
        (EYE, "nodes: []", "field `module` is required"),
    ],
)
def test_mistakes_in_a_module_by_itself(files: Path, old: str, new: str, message: str) -> None:
    write(files, "parts/eye.yml", EYE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        load_module(files / "parts/eye.yml")
