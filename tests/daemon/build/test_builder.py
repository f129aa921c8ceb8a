"""Preparing nodes: directory and environment of lines, failures, parallel builds."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from dora_config.dataflow.resolved import ResolvedDataflow
from dora_config.protocol.builds import BuiltNode, NodeBuildEvent
from dora_config.protocol.runner import NodeLocation
from dora_daemon.build.builder import BuildOptions, prepare
from dora_daemon.build.errors import BuildError
from dora_daemon.build.python_env import (
    environment_dir,
    environment_lock,
    environment_python,
    find_uv,
    unfinished_mark,
)

PLAIN = BuildOptions()


def python_line(program: str) -> str:
    """Return a build line that runs a Python program."""
    return f"python -c {shlex.quote(program)}"


def step(text: str) -> NodeBuildEvent:
    return NodeBuildEvent(node="a", what="step", text=text)


def printed(text: str) -> NodeBuildEvent:
    return NodeBuildEvent(node="a", what="output", text=text)


def build(
    base: Path,
    *nodes: Mapping[str, Any],
    options: BuildOptions = PLAIN,
    environ: Mapping[str, str] = os.environ,
) -> tuple[dict[str, NodeLocation], list[NodeBuildEvent]]:
    """Return the location of each node and all events."""
    dataflow = ResolvedDataflow.model_validate(
        {"nodes": [{"path": f"{node['id']}.py", **node} for node in nodes]}
    )
    seen: list[NodeBuildEvent] = []

    async def run() -> tuple[BuiltNode, ...]:
        return await prepare(dataflow, base, options=options, environ=environ, on_event=seen.append)

    return {built.node: built.place for built in anyio.run(run)}, seen


def test_a_node_without_build_is_ready_as_it_is(tmp_path: Path) -> None:
    result, events = build(tmp_path, {"id": "a"})
    assert events == []
    assert result["a"].working_dir == str(tmp_path)
    assert result["a"].python is None


def test_lines_run_in_order_in_the_working_dir_with_the_nodes_environment(tmp_path: Path) -> None:
    show = "import os; print(os.getcwd(), os.environ['COLOUR'], os.environ.get('DORA_AUTH_TOKEN'))"
    result, events = build(
        tmp_path,
        {"id": "a", "build": [python_line(show), "echo $HOME && echo '*'"], "env": {"COLOUR": "x"}},
        environ={**os.environ, "DORA_AUTH_TOKEN": "secret"},
    )
    assert [event for event in events if event.what == "output"] == [
        printed(f"{tmp_path} x None"),
        printed("$HOME && echo *"),
    ]
    assert events[0] == NodeBuildEvent(node="a", what="started")
    assert events[1] == step(python_line(show))
    assert events[-1].what == "built"
    assert result["a"].working_dir == str(tmp_path)


def test_python_is_the_one_that_runs_dora(tmp_path: Path) -> None:
    _, events = build(
        tmp_path, {"id": "a", "build": [python_line("import sys; print(sys.prefix)")]}
    )
    assert printed(sys.prefix) in events


def test_a_failure_names_node_line_exit_code_and_output_and_stops_that_node_only(
    tmp_path: Path,
) -> None:
    fails = python_line("import sys; print('boom'); sys.exit(4)")
    with pytest.raises(BuildError) as caught:
        build(
            tmp_path,
            {"id": "a", "build": [fails, "touch never"]},
            {"id": "b", "build": ["touch made"]},
        )
    assert str(caught.value) == f'node "a": build line {fails!r} in {tmp_path}: exit code 4'
    assert (tmp_path / "made").exists()
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no-such-tool --x", "the program 'no-such-tool' is not on PATH"),
        ("./here", "./here: Permission denied"),
        ("./setup.sh", "./setup.sh does not exist"),
        ("./script", "the interpreter in the first line of ./script does not exist"),
        ("cat a | wc", "build lines run without a shell, so '|' is an ordinary word here"),
        ("echo 'a", "no closing quotation"),
    ],
)
def test_lines_that_cannot_run(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "here").write_text("")
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    with pytest.raises(BuildError) as caught:
        build(tmp_path, {"id": "a", "build": [line]})
    assert message in str(caught.value)


def test_a_variable_that_is_not_set_on_this_machine(tmp_path: Path) -> None:
    node = {"id": "a", "build": ["true"], "env": {"PORT": {"name": "NO_SUCH"}}}
    with pytest.raises(BuildError, match="NO_SUCH"):
        build(tmp_path, node)


def test_all_failures_are_reported_in_the_order_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        build(
            tmp_path,
            *({"id": name, "build": ["false"]} for name in "cab"),
            options=BuildOptions(jobs=3),
        )
    assert [failure.node for failure in caught.value.failures] == ["c", "a", "b"]


def test_jobs_bound_how_many_nodes_are_built_at_once(tmp_path: Path) -> None:
    """Three nodes that each wait until `most` of them run; one more at once fails the assertion."""
    program = (
        "import pathlib, time\n"
        "here = pathlib.Path('running'); here.mkdir(exist_ok=True)\n"
        "mine = here / {name!r}; mine.touch()\n"
        "end = time.monotonic() + 60\n"
        "while len(list(here.iterdir())) + len(list(pathlib.Path().glob('done-*'))) < 2:\n"
        "    time.sleep(0.01); assert time.monotonic() < end\n"
        "assert len(list(here.iterdir())) <= 2\n"
        "pathlib.Path('done-' + {name!r}).touch(); mine.unlink()\n"
    )
    for name in "abc":
        (tmp_path / f"{name}_build.py").write_text(program.format(name=name))
    nodes = [{"id": name, "build": [f"python {name}_build.py"]} for name in "abc"]
    build(tmp_path, *nodes, options=BuildOptions(jobs=2))


def test_without_uv_nodes_are_built_one_after_another(tmp_path: Path) -> None:
    _, events = build(tmp_path, *({"id": name, "build": ["true"]} for name in "abc"))
    order = [(event.what, event.node) for event in events if event.what in ("started", "built")]
    assert order == [(what, n) for n in "abc" for what in ("started", "built")]


def test_deploy_working_dir_is_used_only_with_the_option(tmp_path: Path) -> None:
    node = {"id": "a", "deploy": {"working_dir": "sub"}}
    result, _ = build(tmp_path, node)
    assert result["a"].working_dir == str(tmp_path)
    result, _ = build(tmp_path, node, options=BuildOptions(apply_deploy=True))
    assert result["a"].working_dir == str(tmp_path / "sub")
    assert (tmp_path / "sub").is_dir()


def test_uv_gives_a_python_node_its_own_environment(tmp_path: Path) -> None:
    show = python_line("import sys; print(sys.prefix)")
    node = {"id": "a", "build": ["pip list --verbose", "python --version", show]}
    result, events = build(tmp_path, node, options=BuildOptions(uv=True))
    directory = environment_dir(tmp_path, "a")
    assert directory == tmp_path / ".dora" / "python-envs" / "a"
    assert result["a"].python == str(directory / "bin" / "python")
    assert printed(str(directory)) in events
    assert any(e.what == "output" and e.text.startswith("DEBUG uv ") for e in events)
    again, events = build(tmp_path, node, options=BuildOptions(uv=True))
    assert step("uv venv") not in events
    assert again["a"].python == result["a"].python


def test_an_environment_without_interpreter_is_created_again(tmp_path: Path) -> None:
    directory = environment_dir(tmp_path, "a")
    directory.mkdir(parents=True)
    (directory / "pyvenv.cfg").touch()
    result, events = build(tmp_path, {"id": "a", "build": ["true"]}, options=BuildOptions(uv=True))
    assert step("uv venv") in events
    assert result["a"].python is not None


def test_an_unfinished_environment_is_created_again(tmp_path: Path) -> None:
    node = {"id": "a", "build": ["true"]}
    build(tmp_path, node, options=BuildOptions(uv=True))
    unfinished_mark(tmp_path, "a").touch()
    assert environment_python(tmp_path, "a") is None
    _, events = build(tmp_path, node, options=BuildOptions(uv=True))
    assert step("uv venv") in events
    assert environment_python(tmp_path, "a") is not None


def test_builds_in_one_folder_create_an_environment_once(tmp_path: Path) -> None:
    node = {"id": "a", "path": "a.py", "build": ["true"]}
    dataflow = ResolvedDataflow.model_validate({"nodes": [node]})
    events: list[NodeBuildEvent] = []

    async def main() -> None:
        build = partial(
            prepare, dataflow, tmp_path, options=BuildOptions(uv=True), on_event=events.append
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(build)
            tasks.start_soon(build)

    anyio.run(main)
    assert [event.text for event in events].count("uv venv") == 1
    assert step("waiting for another build of this folder") in events


def test_a_complete_environment_is_used_without_its_lock(tmp_path: Path) -> None:
    node = {"id": "a", "build": ["true"]}
    build(tmp_path, node, options=BuildOptions(uv=True))
    environment_lock(tmp_path, "a").unlink()
    build(tmp_path, node, options=BuildOptions(uv=True))
    assert not environment_lock(tmp_path, "a").exists()


def test_an_error_of_a_disk_fails_its_node_only(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    nodes = (
        {"id": "a", "build": ["true"], "deploy": {"working_dir": "file"}},
        {"id": "b", "build": ["touch made"]},
    )
    with pytest.raises(BuildError, match=rf'^node "a": {tmp_path}/file: File exists$'):
        build(tmp_path, *nodes, options=BuildOptions(apply_deploy=True))
    assert (tmp_path / "made").exists()


def test_empty_path_is_not_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o755)
    with pytest.raises(BuildError, match="the program 'tool' is not on PATH"):
        build(tmp_path, {"id": "a", "build": ["tool"]}, environ={"PATH": ""})


def test_the_option_uv_without_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dora_daemon.build.builder.find_uv", lambda environ: None)
    with pytest.raises(BuildError, match="--uv needs the program uv"):
        build(tmp_path, {"id": "a", "build": ["true"]}, options=BuildOptions(uv=True))


def program(path: Path, script: str) -> str:
    """Create a shell script; return its path."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def outputs(events: list[NodeBuildEvent]) -> list[str]:
    return [event.text for event in events if event.what == "output"]


def test_lines_of_pip_are_run_by_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uv = program(tmp_path / "uv", 'echo uv "$@"')
    monkeypatch.setattr("dora_daemon.build.builder.find_uv", lambda environ: uv)
    _, events = build(tmp_path, {"id": "a", "build": ["pip install x", "echo pip"]})
    assert outputs(events) == [f"uv pip install --python {sys.executable} x", "pip"]
    monkeypatch.setattr("dora_daemon.build.builder.find_uv", lambda environ: None)
    _, events = build(tmp_path, {"id": "a", "build": ["pip --version"]})
    assert outputs(events)[0].startswith("pip ")
    monkeypatch.setattr("dora_daemon.build.builder.find_spec", lambda name: None)
    with pytest.raises(BuildError, match="has no pip, and uv is not installed"):
        build(tmp_path, {"id": "a", "build": ["pip install x"]})


def test_pip_runs_what_uv_refuses(tmp_path: Path) -> None:
    _, events = build(tmp_path, {"id": "a", "build": ["pip install --progress-bar off pip"]})
    assert "already satisfied: pip" in outputs(events)[-1]
    assert not any("unexpected argument" in text for text in outputs(events))


def test_equal_lines_of_several_nodes_run_once(tmp_path: Path) -> None:
    line = "sh -c 'echo ran >> ran'"
    nodes: list[dict[str, Any]] = [
        {"id": name, "build": [line, line, f"touch {name}"]} for name in "abc"
    ]
    nodes.append({"id": "d", "build": [line], "env": {"COLOUR": "x"}})
    for jobs in (None, 4):
        (tmp_path / "ran").unlink(missing_ok=True)
        _, events = build(tmp_path, *nodes, options=BuildOptions(jobs=jobs))
        assert (tmp_path / "ran").read_text() == "ran\n" * 3
        skipped = [event.text for event in events if event.what == "skipped"]
        assert len(skipped) == 4
        assert skipped[0].startswith(f"{line}: done for node ")


def test_logs_from_before_the_project_are_named(tmp_path: Path) -> None:
    text = "error: Multiple top-level packages discovered in a flat-layout: ['out', 'pk']."
    fails = python_line(f"import sys; sys.exit({text!r})")
    (tmp_path / "out").mkdir()
    with pytest.raises(BuildError, match=r"exit code 1$"):
        build(tmp_path, {"id": "a", "build": [fails]})
    (tmp_path / "pyproject.toml").touch()
    with pytest.raises(BuildError, match=r"mkdir -p \.dora && mv out \.dora/"):
        build(tmp_path, {"id": "a", "build": [fails]})


def test_a_line_that_failed_for_another_node_is_printed_once(tmp_path: Path) -> None:
    line = "sh -c 'echo boom; exit 1'"
    seen: list[NodeBuildEvent] = []
    dataflow = ResolvedDataflow.model_validate(
        {"nodes": [{"id": name, "path": "x.py", "build": [line]} for name in "ab"]}
    )
    with pytest.raises(BuildError) as caught:
        anyio.run(partial(prepare, dataflow, tmp_path, on_event=seen.append))
    assert outputs(seen) == ["boom"]
    assert str(caught.value) == (
        f'node "a": build line {line!r} in {tmp_path}: exit code 1\n'
        f'node "b": build line {line!r} failed for node "a"'
    )


NO_NETWORK = """error: Request failed after 3 retries
  cause: client error (Connect)
  cause: dns error: failed to lookup address"""


def test_without_a_network_uv_uses_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        f"echo $3 >> runs\n[ -n \"$UV_OFFLINE\" ] || {{ echo '{NO_NETWORK}'; exit 2; }}\necho found"
    )
    uv = program(tmp_path / "uv", script)
    monkeypatch.setattr("dora_daemon.build.builder.find_uv", lambda environ: uv)
    monkeypatch.delenv("UV_OFFLINE", raising=False)
    _, events = build(tmp_path, {"id": "a", "build": ["pip install x", "pip install y"]})
    assert outputs(events) == ["found", "found"]
    assert len((tmp_path / "runs").read_text().splitlines()) == 3


def test_a_network_that_returns_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uv = program(
        tmp_path / "uv",
        'if [ -n "$UV_OFFLINE" ]; then\n'
        "  [ -e first ] || { touch first; exit 0; }\n"
        "  echo 'error: y was not found in the cache'; exit 1\nfi\n"
        f"[ -e first ] || {{ echo '{NO_NETWORK}'; exit 2; }}\necho downloaded",
    )
    monkeypatch.setattr("dora_daemon.build.builder.find_uv", lambda environ: uv)
    monkeypatch.delenv("UV_OFFLINE", raising=False)
    _, events = build(tmp_path, {"id": "a", "build": ["pip install x", "pip install y"]})
    assert outputs(events) == ["downloaded"]


def test_a_missing_network_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = "echo 'error: x was not found in the cache'; exit 1"
    uv = program(
        tmp_path / "uv", f"[ -z \"$UV_OFFLINE\" ] || {{ {offline}; }}\necho '{NO_NETWORK}'; exit 2"
    )
    monkeypatch.setattr("dora_daemon.build.builder.find_uv", lambda environ: uv)
    monkeypatch.delenv("UV_OFFLINE", raising=False)
    seen: list[NodeBuildEvent] = []
    dataflow = ResolvedDataflow.model_validate(
        {"nodes": [{"id": "a", "path": "x.py", "build": ["pip install x"]}]}
    )
    with pytest.raises(BuildError) as caught:
        anyio.run(partial(prepare, dataflow, tmp_path, on_event=seen.append))
    assert outputs(seen) == []
    assert str(caught.value) == (
        f"node \"a\": build line 'pip install x' in {tmp_path}: no network "
        "(dns error: failed to lookup address)"
    )


def test_uv_of_the_interpreter_is_found_without_path() -> None:
    assert find_uv({"PATH": ""}) == str(Path(sys.executable).with_name("uv"))


def test_cancellation_leaves_nothing_incomplete(tmp_path: Path) -> None:
    seen: list[NodeBuildEvent] = []
    dataflow = ResolvedDataflow.model_validate(
        {
            "nodes": [
                {
                    "id": "a",
                    "path": "a.py",
                    "build": [python_line("import signal; print(1, flush=True); signal.pause()")],
                },
                {"id": "b", "path": "b.py", "build": ["touch never"]},
            ]
        }
    )

    async def run() -> None:
        async with anyio.create_task_group() as tasks:

            def stop_at_output(event: NodeBuildEvent) -> None:
                seen.append(event)
                if event.what == "output":
                    tasks.cancel_scope.cancel()

            await prepare(dataflow, tmp_path, on_event=stop_at_output)

    anyio.run(run)
    assert not (tmp_path / "never").exists()
    assert not any(event.what in ("built", "failed") for event in seen)
