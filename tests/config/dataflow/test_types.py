"""Types of messages and their compatibility."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from config.parsing import errors, parse, warnings

from dora_config.dataflow import loader
from dora_config.dataflow.loader import load_dataflow
from dora_config.dataflow.types import STANDARD_TYPES, parse_type
from dora_config.errors import ConfigError

STD = {
    "core": "Float32 Float64 Int32 Int64 UInt8 UInt32 UInt64 String Bytes Bool",
    "math": "Vector3 Quaternion Pose Transform",
    "control": "Twist JointState Odometry",
    "media": "Image CompressedImage PointCloud AudioFrame",
    "vision": "BoundingBox Detection Segmentation",
}


def flow(sent: str | None, expected: str | None, rules: str = "[]", strict: str = "false") -> str:
    output = f"output_types: {{o: '{sent}'}}" if sent else ""
    line = f"input_types: {{i: '{expected}'}}" if expected else ""
    return (
        f"strict_types: {strict}\ntype_rules: {rules}\nnodes:\n"
        f"  - id: a\n    path: p\n    outputs: [o]\n    {output}\n"
        f"  - id: b\n    path: p\n    inputs: {{i: a/o}}\n    {line}\n"
    )


def test_the_standard_library() -> None:
    names = {f"std/{category}/v1/{name}" for category, all_ in STD.items() for name in all_.split()}
    assert names == set(STANDARD_TYPES)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("std/core/v1/UInt8", "std/core/v1/UInt8"),
        ("std/core/v1/UInt8", "std/core/v1/UInt32"),
        ("std/core/v1/UInt8", "std/core/v1/UInt64"),
        ("std/core/v1/Int32", "std/core/v1/Int64"),
        ("std/core/v1/Float32", "std/core/v1/Float64"),
        ("std/media/v1/Image", "std/core/v1/Bytes"),
        ("std/media/v1/Image[encoding=rgb8]", "std/media/v1/Image"),
        ("std/media/v1/Image", "std/media/v1/Image[encoding=rgb8]"),
        (
            "std/media/v1/AudioFrame[sample_type=f32,channels=2]",
            "std/media/v1/AudioFrame[channels=2]",
        ),
    ],
)
def test_matching_types(sent: str, expected: str) -> None:
    assert warnings(flow(sent, expected)) == []


@pytest.mark.parametrize(
    ("sent", "expected", "reason"),
    [
        ("std/core/v1/UInt64", "std/core/v1/UInt8", ""),
        ("std/core/v1/Int32", "std/core/v1/UInt64", ""),
        ("std/core/v1/Bytes", "std/media/v1/Image", ""),
        ("std/media/v1/Image[encoding=rgb8]", "std/media/v1/Image[encoding=bgr8]", ""),
        ("std/math/v1/Vector3", "std/math/v1/Quaternion", " (missing w)"),
        ("std/math/v1/Pose", "std/math/v1/Transform", " (missing translation, rotation)"),
    ],
)
def test_mismatch_is_a_warning(sent: str, expected: str, reason: str) -> None:
    assert warnings(flow(sent, expected)) == [
        f'11:22: warning: node "b": type mismatch on input "i": a/o sends "{sent}", '
        f'but expected "{expected}"{reason}'
    ]


def test_mismatch_is_an_error_with_strict_types() -> None:
    text = flow("std/core/v1/UInt64", "std/core/v1/UInt8", strict="true")
    assert len(errors(text)) == 1
    assert errors(text, strict_types=False) == []
    text = flow("std/core/v1/UInt64", "std/core/v1/UInt8")
    assert errors(text) == []
    assert len(errors(text, strict_types=True)) == 1


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            "std/media/v1/Imag",
            'unknown type "std/media/v1/Imag" (did you mean "std/media/v1/Image"?)',
        ),
        ("Float32", 'unknown type "Float32" (did you mean "std/core/v1/Float32"?)'),
        ("std/media/v1/Image[", "invalid type 'std/media/v1/Image['"),
        ("std/media/v1/Image[x]", "expected parameter=value, found 'x'"),
        ("std/media/v1/Image[enc=x]", 'has no parameter "enc", expected encoding'),
        ("std/core/v1/Bool[x=1]", 'has no parameter "x", expected none'),
    ],
)
def test_mistakes_in_a_type(written: str, expected: str) -> None:
    (warning,) = warnings(flow(written, None))
    assert warning.startswith('7:23: warning: node "a": output "o": ')
    assert expected in warning


def test_types_of_missing_ports() -> None:
    found = warnings("""\
        nodes:
          - {id: a, path: p, outputs: [image], output_types: {imag: std/core/v1/Bool}}
          - {id: b, path: p, inputs: {x: a/image}, input_types: {y: std/core/v1/Bool}}
        """)
    assert 'contains "imag", which is not among its outputs (did you mean "image"?)' in found[0]
    assert 'contains "y", which is not among its inputs' in found[1]


def test_rules_add_conversions_and_join_with_widening() -> None:
    rules = "[{from: std/core/v1/UInt64, to: std/core/v1/Float64}]"
    assert warnings(flow("std/core/v1/UInt8", "std/core/v1/Float64", rules)) == []
    assert warnings(flow("std/core/v1/Float64", "std/core/v1/UInt8", rules)) != []


def test_chains_of_conversions_are_limited() -> None:
    rules = (
        "[{from: std/core/v1/UInt64, to: std/core/v1/String}, "
        "{from: std/core/v1/String, to: std/core/v1/Bool}]"
    )
    assert warnings(flow("std/core/v1/UInt8", "std/core/v1/String", rules)) == []
    assert len(warnings(flow("std/core/v1/UInt8", "std/core/v1/Bool", rules))) == 1


def test_rules_name_known_types() -> None:
    found = warnings(flow("std/core/v1/Bool", None, "[{from: std/core/v1/Bol, to: x/y}]"))
    assert (
        'type rule 1: unknown type "std/core/v1/Bol" (did you mean "std/core/v1/Bool"?)' in found[0]
    )
    assert found[0].startswith("2:21:")


def test_the_untyped_side_is_inferred() -> None:
    loaded = parse(flow("std/core/v1/Bool", None))
    assert [remark.message for remark in loaded.remarks] == [
        "inferred type std/core/v1/Bool of input b/i from output a/o"
    ]
    assert loaded.resolved.node("b").inputs["i"].data_type == "std/core/v1/Bool"
    loaded = parse(flow(None, "std/core/v1/Bool"))
    assert [remark.message for remark in loaded.remarks] == [
        "inferred type std/core/v1/Bool of output a/o from input b/i"
    ]


@pytest.mark.parametrize(
    ("source", "kind", "fits"),
    [
        ("dora/timer/secs/1", "UInt64", True),
        ("dora/timer/secs/1", "Float32", False),
        ("dora/logs", "String", True),
        ("dora/logs", "Bool", False),
    ],
)
def test_timers_and_logs_have_types(source: str, kind: str, fits: bool) -> None:
    found = warnings(
        f"nodes:\n  - {{id: a, path: p, inputs: {{i: {source}}}, "
        f"input_types: {{i: std/core/v1/{kind}}}}}\n"
    )
    assert (found == []) == fits


def test_operators_have_types() -> None:
    (warning,) = warnings("""\
        nodes:
          - id: a
            operators:
              - id: one
                python: one.py
                outputs: [o]
                output_types: {o: std/core/v1/Bool}
              - id: two
                python: two.py
                inputs: {i: a/one/o}
                input_types: {i: std/core/v1/String}
        """)
    assert warning.startswith('11:26: warning: node "a": type mismatch on input "two/i"')


def test_parsing() -> None:
    parsed = parse_type("a/b[x=1, y=z]")
    assert (parsed.base, dict(parsed.parameters)) == ("a/b", {"x": "1", "y": "z"})


USER = """\
types:
  Reading:
    arrow: Struct
    description: one reading
    parameters: [unit]
    fields: [{name: value, type: Float32}, {name: at, type: UInt64}]
  Other:
    arrow: Struct
    fields: [{name: value, type: Float64}]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "types/lab/sensors").mkdir(parents=True)
    (tmp_path / "types/lab/sensors/v1.yml").write_text(USER)
    return tmp_path


def load_text(project: Path, text: str) -> list[str]:
    path = project / "flow.yml"
    path.write_text(text)
    try:
        found = load_dataflow(path, environ={}).warnings
    except ConfigError as error:
        found = error.errors
    return [str(problem).replace(f"{project}/", "") for problem in found]


def test_user_defined_types(project: Path) -> None:
    ours = "lab/sensors/v1/Reading"
    assert load_text(project, flow(ours, f"{ours}[unit=K]")) == []
    (warning,) = load_text(project, flow(ours, "lab/sensors/v1/Other"))
    assert warning.endswith("(value is Float32, not Float64)")
    (warning,) = load_text(project, flow("lab/sensors/v1/Readin", None))
    assert warning.endswith(f'(did you mean "{ours}"?)')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "types: {A: {arow: Struct}}",
            "types/lab/sensors/v1.yml:1:13: types A: unknown field `arow`",
        ),
        ("types: 5", "types: expected a mapping"),
        ("[", "invalid YAML"),
        ("types: {A: {arrow: Struct, parameters: 5}}", "expected a list of parameter names"),
    ],
)
def test_mistakes_in_files_of_types(project: Path, text: str, expected: str) -> None:
    (project / "types/lab/sensors/v1.yml").write_text(text)
    found = load_text(project, flow("std/core/v1/Bool", None))
    assert any(expected in problem for problem in found), found


def test_more_files_of_types_than_allowed_are_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "types/more.yml").write_text(USER)
    text = flow("lab/sensors/v1/Reading", None)
    monkeypatch.setattr(loader, "MAX_TYPE_FILES", 2)
    assert load_text(project, text) == []
    monkeypatch.setattr(loader, "MAX_TYPE_FILES", 1)
    assert load_text(project, text) == ["types: exceeds the limit of 1 files of types"]


def test_a_file_of_types_that_cannot_be_accessed_is_left_out(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied, look = project / "types/lab/sensors/v1.yml", os.stat

    def stat(path: object, *rest: object, **options: object) -> os.stat_result:
        if str(path) == str(denied):
            raise PermissionError(13, "Permission denied", str(path))
        return look(path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("os.stat", stat)
    (warning,) = load_text(project, flow("lab/sensors/v1/Reading", None))
    assert 'unknown type "lab/sensors/v1/Reading"' in warning


@pytest.mark.parametrize("file", ["std/v1.yml", "std.yml"])
def test_std_is_reserved(project: Path, file: str) -> None:
    (project / "types" / file).parent.mkdir(exist_ok=True)
    (project / "types" / file).write_text(USER)
    assert (
        "are reserved for dora's own types" in load_text(project, flow("std/core/v1/Bool", None))[0]
    )


def test_type_files_are_read_only_if_a_port_has_a_type(project: Path) -> None:
    (project / "types/lab/sensors/v1.yml").write_text("[")
    assert load_text(project, flow(None, None)) == []
