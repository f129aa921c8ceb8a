"""`dora validate`: all problems, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from cli.conftest import HELLO
from support.command_line import Dora


def test_a_good_file(dora: Dora, hello: Path) -> None:
    shown = dora("validate", hello.name)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out == "hello.yml: 2 nodes, 2 edges, no problems\n"


def test_every_problem_has_a_position(dora: Dora, hello: Path) -> None:
    wrong_edge = HELLO.replace("camera/image\n", "camera/imgae\n")
    for text, place, hint in (
        (wrong_edge.replace("path: p", "pth: p"), "hello.yml:8:5", "did you mean `path`?"),
        (wrong_edge, "hello.yml:10:16", 'did you mean "camera/image"?'),
    ):
        hello.write_text(text)
        shown = dora("validate", "hello.yml")
        assert (shown.code, shown.err) == (1, "")
        assert shown.out.startswith(f"{place}: ")
        assert hint in shown.out


def test_json_for_editors(dora: Dora, hello: Path) -> None:
    hello.write_text(HELLO.replace("camera/image\n", "camera/imgae\n"))
    shown = dora("validate", "hello.yml", "--format", "json")
    assert shown.code == 1
    (problem,) = [json.loads(line) for line in shown.out.splitlines()]
    assert (problem["file"], problem["line"], problem["severity"]) == ("hello.yml", 10, "error")


def test_json_of_a_good_file_is_empty(dora: Dora, hello: Path) -> None:
    shown = dora("validate", "hello.yml", "--format", "json")
    assert (shown.code, shown.out, shown.err) == (0, "", "")


TYPED = HELLO.replace("outputs: [image]", "outputs: [image]\n    output_types: {image: TYPE}")


def test_a_missing_program_is_a_warning_and_an_error_when_strict(dora: Dora, hello: Path) -> None:
    hello.write_text("nodes: [{id: a, path: gone.py}]\n")
    shown = dora("validate", "hello.yml")
    assert shown.code == 0
    assert 'hello.yml:1:23: warning: node "a": could not find source path "gone.py"' in shown.out
    assert shown.out.endswith("hello.yml: 1 node, 0 edges, 1 warning, no errors\n")
    shown = dora("validate", "hello.yml", "--strict")
    assert shown.code == 1
    assert shown.out.startswith('hello.yml:1:23: node "a": could not find source path "gone.py"')
    shown = dora("validate", "hello.yml", "--strict", "--format", "json")
    assert shown.code == 1
    assert json.loads(shown.out)["severity"] == "error"


def test_a_good_file_is_good_when_strict(dora: Dora, hello: Path) -> None:
    shown = dora("validate", "hello.yml", "--strict")
    assert (shown.code, shown.out) == (0, "hello.yml: 2 nodes, 2 edges, no problems\n")


def test_inferred_types_are_shown(dora: Dora, hello: Path) -> None:
    hello.write_text(TYPED.replace("TYPE", "std/core/v1/UInt8"))
    shown = dora("validate", "hello.yml")
    assert shown.code == 0
    assert "std/core/v1/UInt8" in shown.out
    assert shown.out.endswith("hello.yml: 2 nodes, 2 edges, no problems\n")


def test_a_type_warning_is_an_error_when_strict(dora: Dora, hello: Path) -> None:
    hello.write_text(TYPED.replace("TYPE", "std/core/v1/UInt9"))
    shown = dora("validate", "hello.yml")
    assert shown.code == 0
    assert "warning" in shown.out
    assert shown.out.endswith("hello.yml: 2 nodes, 2 edges, 1 warning, no errors\n")
    assert dora("validate", "hello.yml", "--strict-types").code == 1
