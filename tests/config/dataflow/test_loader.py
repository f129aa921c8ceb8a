"""Unreadable files, missing programs and the duration of loading."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from dora_config import plugins
from dora_config.dataflow.loader import load_dataflow, parse_dataflow
from dora_config.errors import ConfigError

REPOSITORY = Path(__file__).parents[3]


def problems(path: Path, **options: bool) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_dataflow(path, environ={"PATH": os.environ["PATH"]}, **options)
    return [str(problem).replace(f"{path.parent}/", "") for problem in caught.value.problems]


def warnings(path: Path) -> list[str]:
    loaded = load_dataflow(path, check_paths=True)
    return [str(problem).replace(f"{path.parent}/", "") for problem in loaded.warnings]


def test_missing_file(tmp_path: Path) -> None:
    assert problems(tmp_path / "f.yml") == ["f.yml: cannot be read: no such file or directory"]


def test_a_directory(tmp_path: Path) -> None:
    (tmp_path / "f.yml").mkdir()
    assert problems(tmp_path / "f.yml") == ["f.yml: cannot be read: is a directory"]


def test_a_name_with_a_nul_character() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_dataflow("a\0b")


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "f.yml").write_bytes("a: 1\nb: é\n".encode("latin-1"))
    assert problems(tmp_path / "f.yml") == ["f.yml:2:4: is not UTF-8 text: byte 0xe9"]


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "f.yml"
    with path.open("wb") as stream:
        stream.truncate((16 << 20) + 1)
    assert problems(path) == ["f.yml: is larger than 16 MiB"]


def test_device_is_an_empty_file() -> None:
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_dataflow("/dev/null")


@pytest.mark.timeout(20)
def test_pipe_without_writers_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yml")
    path = tmp_path / "f.yml"
    path.write_text("nodes:\n  - {id: a, module: pipe.yml}\n")
    assert problems(path) == [
        "pipe.yml:1:1: the file is empty: expected a mapping with a list of `nodes`"
    ]


def test_problems_contain_the_given_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.yml").write_text("nodes: 5\n")
    with pytest.raises(ConfigError, match=r"^f\.yml:1:8: nodes: expected a list"):
        load_dataflow("f.yml")


def test_syntax_error_is_the_only_problem(tmp_path: Path) -> None:
    path = tmp_path / "f.yml"
    path.write_text("nodes:\n  - {id: a, path: [\n")
    assert len(problems(path)) == 1


def test_duplicate_keys_do_not_hide_other_problems(tmp_path: Path) -> None:
    path = tmp_path / "f.yml"
    path.write_text("nodes:\n  - {id: a, path: p, path: q, xyzzy: 1}\n")
    assert ["duplicate key" in problems(path)[0], "xyzzy" in problems(path)[1]] == [True, True]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("gone.py", 'could not find source path "gone.py"'),
        ("./gone", 'could not find source path "./gone"'),
        ("no-such-program-here", "and in PATH"),
        ("$HOME/gone.py", "gone.py"),
        ("x" * 300, "could not find source path"),
    ],
)
def test_a_missing_program_is_a_warning(tmp_path: Path, program: str, message: str) -> None:
    path = tmp_path / "f.yml"
    path.write_text(f"nodes:\n  - {{id: a, path: {program}}}\n")
    (found,) = warnings(path)
    assert found.startswith('f.yml:2:19: warning: node "a": ')
    assert message in found


def test_a_missing_node_of_this_project_names_its_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "known_names", lambda group: {"dora-absent": "dora-gate"})
    path = tmp_path / "f.yml"
    path.write_text("nodes:\n  - {id: a, path: dora-absent}\n")
    (found,) = warnings(path)
    assert "install it with: " in found


@pytest.mark.parametrize(
    "fields",
    [
        "path: here.py",
        "path: ./here.py",
        "path: sh",
        "path: dynamic",
        "path: gone.py\n    build: make",
        "path: gone.py\n    git: https://example.invalid/x",
        "path: gone.py\n    deploy: {machine: far}",
        "path: https://example.invalid/x",
        "operator: {python: here.py}",
    ],
)
def test_programs_without_warning(tmp_path: Path, fields: str) -> None:
    (tmp_path / "here.py").touch()
    path = tmp_path / "f.yml"
    path.write_text(f"nodes:\n  - id: a\n    {fields}\n")
    assert warnings(path) == []


def test_a_missing_operator_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "f.yml"
    path.write_text("nodes:\n  - id: a\n    operators:\n      - {id: o, python: gone.py}\n")
    assert warnings(path) == ['f.yml:4:25: warning: node "a": could not find source path "gone.py"']


@pytest.mark.parametrize("block", ["operator: {CODE}", "operators: [{id: o, CODE}]"])
@pytest.mark.parametrize("code", ["shared-library: x", "shared-library: x, python: ", "build: x"])
def test_an_operator_without_python_gives_one_problem(
    tmp_path: Path, block: str, code: str
) -> None:
    path = tmp_path / "f.yml"
    path.write_text(f"nodes:\n  - id: a\n    {block.replace('CODE', code)}\n")
    assert len(problems(path, check_paths=True)) == 1


def test_paths_of_a_linked_file_start_in_the_folder_of_the_link(tmp_path: Path) -> None:
    real, folder = tmp_path / "real", tmp_path / "folder"
    (folder / "types").mkdir(parents=True)
    real.mkdir()
    (real / "f.yml").write_text(
        "nodes:\n  - {id: m, module: m.yml}\n"
        "  - {id: a, path: a.py, inputs: {x: m/o}, input_types: {x: lab/X}}\n"
    )
    (folder / "m.yml").write_text(
        "module: {name: m, outputs: [o]}\nnodes: [{id: n, path: n.py, outputs: [o]}]\n"
    )
    (folder / "types/lab.yml").write_text("types: {X: {arrow: Int8}}\n")
    (folder / "a.py").touch()
    (folder / "n.py").touch()
    (folder / "f.yml").symlink_to(real / "f.yml")
    (tmp_path / "other").symlink_to(folder)
    for path in (folder / "f.yml", tmp_path / "other/f.yml"):
        assert warnings(path) == []
        assert load_dataflow(path).directory == folder


def test_the_loaded_dataflow_keeps_its_path(tmp_path: Path) -> None:
    path = tmp_path / "f.yml"
    path.write_text("nodes:\n  - {id: a, path: p}\n")
    loaded = load_dataflow(path)
    assert loaded.path == path
    assert loaded.warnings == ()
    assert loaded.remarks == ()


def test_the_environment_is_that_of_the_process_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_VARIABLE", "x")
    loaded = parse_dataflow("nodes:\n  - {id: a, path: p, env: {A: $A_VARIABLE}}\n")
    assert loaded.resolved.node("a").env == {"A": "x"}


EXAMPLES = sorted(
    path
    for path in (REPOSITORY / "examples").glob("*/*.yml")
    if path.parent.name not in ("plugin", "ros2", "two_cameras")
)
"""Those without plug-ins."""


@pytest.mark.parametrize("path", EXAMPLES, ids=[f"{p.parent.name}/{p.name}" for p in EXAMPLES])
def test_the_examples_load_without_a_warning(path: Path) -> None:
    loaded = load_dataflow(path, check_paths=True)
    assert loaded.warnings == ()
    assert loaded.resolved.nodes


def test_fifty_nodes_load_fast() -> None:
    """In a fresh process, imports included; the bound is generous for a busy machine."""
    lines = ["nodes:"]
    for n in range(50):
        lines += [
            f"  - id: node{n}",
            "    path: node.py",
            "    args: --rate 20 --name x",
            "    env: {A: 1, B: two}",
            "    inputs:",
            f"      a: node{(n + 1) % 50}/out",
            f"      b: {{source: node{(n + 2) % 50}/out, queue_size: 1}}",
            "      tick: dora/timer/millis/20",
            "    outputs: [out, more]",
            "    restart_policy: on-failure",
        ]
    code = (
        "import sys, time; text = sys.stdin.read(); start = time.process_time();"
        "from dora_config.dataflow.loader import parse_dataflow; parse_dataflow(text);"
        "print(time.process_time() - start)"
    )
    times = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input="\n".join(lines),
            capture_output=True,
            text=True,
            check=True,
        )
        times.append(float(done.stdout))
    assert min(times) < 0.5


@pytest.mark.parametrize(
    "source", ["nothing-{}/x{}", "n0/wrong-{}", "dora/logs/info/nothing-{}"], ids=str
)
def test_wrong_sources_take_little_longer_than_right_ones(source: str) -> None:
    def duration(source: str) -> float:
        lines = [
            f"- {{id: n{number}, path: p, outputs: [o], inputs: {{x: {source}}}}}".replace(
                "{}", str(number)
            )
            for number in range(1500)
        ]
        start = time.process_time()
        with suppress(ConfigError):
            parse_dataflow("nodes:\n" + "\n".join(lines))
        return time.process_time() - start

    right = duration("n0/o")
    assert min(duration(source) for _ in range(2)) < 3 * right
