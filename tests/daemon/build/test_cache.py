"""Caching of builds: an unchanged build is skipped, and any change of its inputs is noticed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import anyio
import pytest

from dora_config import ResolvedDataflow
from dora_config.protocol.builds import NodeBuildEvent
from dora_daemon.build.builder import BuildOptions, prepare
from dora_daemon.build.errors import BuildError
from dora_daemon.build.inputs import inputs_of
from dora_daemon.build.plan import BuildLine

PLAIN = BuildOptions()
COUNT = "sh -c 'cat source.txt >> made.txt'"


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a source file and its own site-packages."""
    site = tmp_path / "site"
    site.mkdir()
    for module in ("cache", "snapshot"):
        monkeypatch.setattr(f"dora_daemon.build.{module}.site_directories", lambda python: [site])
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "source.txt").write_text("x\n")
    return tmp_path / "project"


def install(base: Path, name: str, *, requires: str = "", version: str = "1.0") -> None:
    """Create the files of an installed distribution."""
    remove(base, name)
    info = base.parent / "site" / f"{name}-{version}.dist-info"
    info.mkdir()
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (info / "METADATA").write_text(text + (f"Requires-Dist: {requires}\n" if requires else ""))
    (info / "RECORD").write_text(f"{name}/module.py,,\n{name}/__pycache__/module.pyc,,\n")
    (base.parent / "site" / name).mkdir()
    (base.parent / "site" / name / "module.py").write_text("")


def remove(base: Path, name: str) -> None:
    for path in (base.parent / "site").glob(f"{name}*"):
        shutil.rmtree(path)


def ran(
    base: Path,
    *lines: str,
    options: BuildOptions = PLAIN,
    environ: Mapping[str, str] = os.environ,
    nodes: Mapping[str, str] | None = None,
    during: Callable[[NodeBuildEvent], None] = lambda event: None,
) -> list[str]:
    """Build one node, or `nodes` (build line by id); return the nodes whose lines were run."""
    described = {n: [line] for n, line in nodes.items()} if nodes else {"n": list(lines)}
    dataflow = ResolvedDataflow.model_validate(
        {"nodes": [{"id": n, "path": f"{n}.py", "build": b} for n, b in described.items()]}
    )
    seen: list[str] = []

    def note(event: NodeBuildEvent) -> None:
        if event.what == "step" and event.node not in seen:
            seen.append(event.node)
        during(event)

    async def run() -> None:
        await prepare(dataflow, base, options=options, environ=environ, on_event=note)

    anyio.run(run)
    return seen


def test_a_build_runs_once_while_nothing_changes(base: Path) -> None:
    assert ran(base, COUNT) == ["n"]
    assert ran(base, COUNT) == []
    assert (base / "made.txt").read_text() == "x\n"


def test_rebuild_runs_it_all_the_same(base: Path) -> None:
    ran(base, COUNT)
    assert ran(base, COUNT, options=BuildOptions(rebuild=True)) == ["n"]
    assert ran(base, COUNT) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda base: (base / "source.txt").write_text("y\n"),
        lambda base: (base / "other.txt").write_text("new"),
        lambda base: (base / "made.txt").unlink(),
        lambda base: (base / "made.txt").write_text("z\n"),
        lambda base: install(base, "tool"),
    ],
)
def test_a_change_of_anything_it_could_read_or_has_made_runs_it(
    base: Path, change: Callable[[Path], object]
) -> None:
    ran(base, COUNT)
    change(base)
    assert ran(base, COUNT) == ["n"]
    assert ran(base, COUNT) == []


@pytest.mark.parametrize(
    "lose",
    [
        lambda base: shutil.rmtree(base / ".dora"),
        lambda base: [path.write_text("{") for path in (base / ".dora/builds").iterdir()],
    ],
)
def test_without_a_record_it_runs_until_its_outputs_are_known(
    base: Path, lose: Callable[[Path], object]
) -> None:
    ran(base, COUNT)
    lose(base)
    assert ran(base, COUNT) == ["n"]
    assert ran(base, COUNT) == ["n"]  # the first time made.txt may have been edited meanwhile
    assert ran(base, COUNT) == []


def test_same_size_and_time_do_not_hide_a_change(base: Path) -> None:
    source = base / "source.txt"
    before = source.stat()
    ran(base, COUNT)
    source.write_text("y\n")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert ran(base, COUNT) == ["n"]


def test_the_environment_counts_but_not_that_of_the_terminal(base: Path) -> None:
    ran(base, COUNT, environ={**os.environ, "CFLAGS": "-O1", "TERM": "xterm"})
    assert ran(base, COUNT, environ={**os.environ, "CFLAGS": "-O1", "TERM": "dumb"}) == []
    assert ran(base, COUNT, environ={**os.environ, "CFLAGS": "-O2", "TERM": "dumb"}) == ["n"]


def test_offline_skips_what_was_built_online(base: Path) -> None:
    ran(base, COUNT)
    assert ran(base, COUNT, options=BuildOptions(offline=True)) == []


def test_logs_and_clones_of_dora_do_not_count(base: Path) -> None:
    ran(base, COUNT)
    for folder in ("out/id", "git/host", "__pycache__"):
        (base / folder).mkdir(parents=True)
        (base / folder / "file").write_text("x")
    assert ran(base, COUNT) == []


def test_a_failed_build_is_run_again_and_the_others_are_not(base: Path) -> None:
    nodes = {"good": "touch good.made", "bad": "sh -c 'exit 3'"}
    with pytest.raises(BuildError):
        ran(base, nodes=nodes)
    seen: list[str] = []

    def note(event: NodeBuildEvent) -> None:
        if event.what == "step":
            seen.append(event.node)

    with pytest.raises(BuildError):
        ran(base, nodes=nodes, during=note)
    assert seen == ["bad"]


def test_a_build_that_fails_after_a_success_is_not_skipped(base: Path) -> None:
    line = "sh -c '! grep -q bad source.txt'"
    ran(base, line)
    (base / "source.txt").write_text("bad\n")
    for _ in range(2):
        with pytest.raises(BuildError):
            ran(base, line)


def test_a_file_that_is_edited_during_the_build_is_built_again(base: Path) -> None:
    def edit(event: NodeBuildEvent) -> None:
        if event.what == "step":
            (base / "source.txt").write_text("edited\n")

    ran(base, COUNT, during=edit)
    assert ran(base, COUNT) == ["n"]
    assert ran(base, COUNT) == []


def test_nodes_that_share_a_folder_are_skipped_together(base: Path) -> None:
    nodes = {"a": "touch a.made", "b": "touch b.made"}
    assert ran(base, nodes=nodes) == ["a", "b"]
    assert ran(base, nodes=nodes) == []


@pytest.fixture
def pip(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`pip install ...` installs the distribution `mine`; other nodes install their own name."""
    program = base.parent / "pip.py"
    program.write_text("")
    words = lambda words, python: (sys.executable, str(program))  # noqa: E731
    monkeypatch.setattr("dora_daemon.build.plan.rewrite_pip", words)
    return base


def installing(base: Path, *names: str) -> Callable[[NodeBuildEvent], None]:
    def at_once(event: NodeBuildEvent) -> None:
        if event.what == "step" and event.node in names:
            install(base, event.node)

    return at_once


@pytest.fixture
def two(pip: Path) -> Mapping[str, str]:
    """Two nodes, each with its own folder of packages."""
    for name in ("first", "second"):
        (pip / f"pkg-{name}").mkdir()
        (pip / f"pkg-{name}" / "pyproject.toml").write_text(f"[project]\nname = '{name}'\n")
    nodes = {name: f"pip install ./pkg-{name}" for name in ("first", "second")}
    assert ran(pip, nodes=nodes, during=installing(pip, *nodes)) == ["first", "second"]
    assert ran(pip, nodes=nodes) == []
    return nodes


def test_only_the_package_whose_files_changed_is_installed_again(
    pip: Path, two: Mapping[str, str]
) -> None:
    (pip / "unrelated.txt").write_text("x")
    assert ran(pip, nodes=two) == []
    (pip / "pkg-first" / "module.py").write_text("x")
    assert ran(pip, nodes=two, during=installing(pip, *two)) == ["first"]
    assert ran(pip, nodes=two) == []


def test_a_package_that_was_uninstalled_is_installed_again(
    pip: Path, two: Mapping[str, str]
) -> None:
    remove(pip, "second")
    assert ran(pip, nodes=two, during=installing(pip, *two)) == ["second"]
    assert ran(pip, nodes=two) == []


def test_a_package_that_lost_a_file_is_installed_again(pip: Path, two: Mapping[str, str]) -> None:
    (pip.parent / "site" / "second" / "module.py").unlink()
    assert ran(pip, nodes=two, during=installing(pip, *two)) == ["second"]
    assert ran(pip, nodes=two) == []


def test_packages_that_no_build_needs_may_come_and_go(pip: Path, two: Mapping[str, str]) -> None:
    install(pip, "unrelated", requires="another>=1")
    install(pip, "another")
    assert ran(pip, nodes=two) == []
    remove(pip, "another")
    assert ran(pip, nodes=two) == ["first", "second"]  # another node needs it


def test_a_dependency_that_was_changed_runs_the_builds(pip: Path, two: Mapping[str, str]) -> None:
    install(pip, "second", requires="shared>=1")
    ran(pip, nodes=two, options=BuildOptions(rebuild=True))
    assert ran(pip, nodes=two) == []
    install(pip, "shared", version="0.1")
    assert ran(pip, nodes=two) == ["first", "second"]


def reads(base: Path, *words: str) -> tuple[set[str], bool] | None:
    found = inputs_of((BuildLine(" ".join(words), words),), base)
    if found is None:
        return None
    return {str(root.relative_to(base.resolve())) for root in found.roots}, found.installs_only


def test_what_install_lines_read(base: Path) -> None:
    (base / "pkg").mkdir()
    (base / "pkg" / "pyproject.toml").write_text('x = { path = "../lib" }')
    (base / "lib").mkdir()
    (base / "more.txt").write_text("numpy\n")
    (base / "requirements.txt").write_text("# comment\n-r more.txt\n./pkg\nscipy>=1 # why\n")
    assert reads(base, "pip", "install", "numpy") == (set(), True)
    assert reads(base, "pip", "install", "-e", "./pkg[extra]") == ({"pkg", "lib"}, True)
    everything = {"requirements.txt", "more.txt", "pkg", "lib"}
    assert reads(base, "pip", "install", "-r", "requirements.txt") == (everything, True)
    assert reads(base, "pip", "install", "-rrequirements.txt") == (everything, True)
    assert reads(base, "uv", "pip", "install", "--requirement=more.txt") == ({"more.txt"}, True)
    assert reads(base, "python", "-m", "pip", "install", "./lib") == ({"lib"}, True)
    url = "https://example.org/simple"
    assert reads(base, "pip", "install", "--index-url", url, "torch") == (set(), True)
    assert reads(base, "make", "all") == ({"."}, False)


@pytest.mark.parametrize(
    "line",
    [
        "pip install -U numpy",
        "pip install --upgrade numpy",
        "pip install --target lib numpy",
        "pip install git+https://example.org/repo.git",
        "pip install https://example.org/main.zip",
        "git pull",
        "sh -c 'curl example.org > x'",
        "uv sync",
    ],
)
def test_builds_with_untraceable_sources_run_each_time(base: Path, line: str) -> None:
    assert reads(base, *line.split()) is None


def test_a_pinned_commit_does_not_change(base: Path) -> None:
    url = f"git+https://example.org/repo.git@{'a' * 40}"
    assert reads(base, "pip", "install", url) == (set(), True)


def test_too_many_files_are_not_compared(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dora_daemon.build.snapshot.MAX_FILES", 3)
    for number in range(3):
        (base / f"file{number}").write_text("x")
    assert ran(base, COUNT) == ["n"]
    assert ran(base, COUNT) == ["n"]
