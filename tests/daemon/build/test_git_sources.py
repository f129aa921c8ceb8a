"""Clones: location, refresh, and removal of incomplete ones."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest
from support.git_repository import Repository, git

from dora_config.dataflow.resolved import GitSource
from dora_daemon.build.command import OnLine
from dora_daemon.build.errors import StepFailed
from dora_daemon.build.git_sources import UNFINISHED, Checkout, GitCheckout, repository_dir

REFERENCES = ("branch", "tag", "rev")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "remote" / "nodes.git")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    path.mkdir()
    return path


def _checkout(
    base: Path,
    url: str,
    *,
    offline: bool = False,
    locked: str | None = None,
    branch: str | None = None,
    tag: str | None = None,
    rev: str | None = None,
    on_line: OnLine = lambda line: None,
) -> Checkout:
    source = GitSource(url=url, branch=branch, tag=tag, rev=rev)
    checkout = GitCheckout(source, base, os.environ, offline=offline, on_line=on_line)
    return anyio.run(checkout.run, locked)


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("https://git.example/team/nodes.git", "git/git.example/team/nodes"),
        ("https://user@git.example:8443/team/nodes/", "git/git.example/team/nodes"),
        ("ssh://git@git.example/nodes", "git/git.example/nodes"),
        ("git@git.example:team/nodes.git", "git/git.example/team/nodes"),
        ("file:///srv/nodes", "git/localhost/srv/nodes"),
        ("/srv/nodes", "git/localhost/srv/nodes"),
    ],
)
def test_location_of_clones(tmp_path: Path, url: str, folder: str) -> None:
    assert repository_dir(tmp_path, url) == tmp_path / folder


@pytest.mark.parametrize(
    "url", ["", "https://git.example/", "https://git.example/a/../../b", "--upload-pack=x/y"]
)
def test_urls_that_are_not_repositories(tmp_path: Path, url: str) -> None:
    with pytest.raises(StepFailed, match="is not the URL of a repository"):
        repository_dir(tmp_path, url)


def test_a_branch_is_looked_up_at_each_build(base: Path, repository: Repository) -> None:
    first = repository.commit("one")
    made = _checkout(base, repository.url, branch="main")
    assert made == Checkout(repository_dir(base, repository.url) / first, first, cloned=True)
    assert (made.directory / "node.py").read_text() == "one"
    assert not _checkout(base, repository.url, branch="main").cloned
    second = repository.commit("two")
    newer = _checkout(base, repository.url, branch="main")
    assert newer.commit == second
    assert (newer.directory / "node.py").read_text() == "two"
    assert (made.directory / "node.py").read_text() == "one"


def test_without_a_reference_the_default_branch_counts(base: Path, repository: Repository) -> None:
    commit = repository.commit("one")
    assert _checkout(base, repository.url).commit == commit


def test_tag_and_revision_are_not_fetched_once_cloned(base: Path, repository: Repository) -> None:
    first = repository.commit("one")
    git(repository.folder, "tag", "-a", "v1", "-m", "v1")
    second = repository.commit("two")
    assert _checkout(base, repository.url, tag="v1").commit == first
    assert _checkout(base, repository.url, rev=second[:8]).commit == second
    repository.folder.rename(repository.folder.with_name("gone"))
    assert not _checkout(base, repository.url, tag="v1").cloned
    assert not _checkout(base, repository.url, rev=second[:8]).cloned
    assert not _checkout(base, repository.url, rev=first).cloned


def test_the_newest_clone_is_used_if_the_repository_cannot_be_reached(
    base: Path, repository: Repository
) -> None:
    first = repository.commit("one")
    with pytest.raises(StepFailed, match="cannot reach the git repository"):
        _checkout(base, f"{repository.url}-other", branch="main")
    _checkout(base, repository.url, branch="main")
    repository.folder.rename(repository.folder.with_name("gone"))
    lines: list[str] = []
    assert _checkout(base, repository.url, on_line=lines.append, branch="main").commit == first
    assert lines == [
        f"cannot reach the git repository {repository.url} (exit code 128); using its newest clone"
    ]


def test_a_locked_commit_wins_over_a_newer_branch(base: Path, repository: Repository) -> None:
    first = repository.commit("one")
    repository.commit("two")
    assert _checkout(base, repository.url, branch="main", locked=first).commit == first


def test_offline_uses_clones_and_names_what_is_not_cloned(
    base: Path, repository: Repository
) -> None:
    first = repository.commit("one")
    with pytest.raises(
        StepFailed, match=r'branch "main" of .* was never cloned; build once without'
    ):
        _checkout(base, repository.url, offline=True, branch="main")
    with pytest.raises(StepFailed, match=f"is not cloned at commit {first}; build once without"):
        _checkout(base, repository.url, offline=True, rev=first)
    _checkout(base, repository.url, branch="main")
    repository.commit("two")
    assert _checkout(base, repository.url, offline=True, branch="main").commit == first


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (("branch", "nope"), 'has no branch "nope"'),
        (("tag", "nope"), 'has no tag "nope"'),
        (("rev", "0" * 40), "cannot check out revision"),
        (("rev", "nope"), 'cannot check out revision "nope"'),
    ],
)
def test_a_missing_reference(
    base: Path, repository: Repository, reference: tuple[str, str], message: str
) -> None:
    repository.commit("one")
    branch, tag, rev = (reference[1] if reference[0] == k else None for k in REFERENCES)
    with pytest.raises(StepFailed, match=message):
        _checkout(base, repository.url, branch=branch, tag=tag, rev=rev)
    left = [path.name for path in repository_dir(base, repository.url).iterdir()]
    assert left == [".lock"]


def test_incomplete_clones_of_killed_builds_are_removed_and_never_used(
    base: Path, repository: Repository
) -> None:
    commit = repository.commit("one")
    half = repository_dir(base, repository.url) / f"{UNFINISHED}123"
    half.mkdir(parents=True)
    (half / "node.py").write_text("half")
    made = _checkout(base, repository.url, branch="main")
    assert (made.directory / "node.py").read_text() == "one"
    assert sorted(path.name for path in half.parent.iterdir()) == [".lock", commit]


def test_two_builds_at_once_share_one_clone(base: Path, repository: Repository) -> None:
    repository.commit("one")
    source = GitSource(url=repository.url, branch="main")
    made: list[Checkout] = []

    async def build() -> None:
        made.append(await GitCheckout(source, base, os.environ).run())

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(build)
            tasks.start_soon(build)

    anyio.run(run)
    assert sorted(one.cloned for one in made) == [False, True]


def test_submodules_come_along(base: Path, tmp_path: Path, repository: Repository) -> None:
    inner = Repository(tmp_path / "inner")
    inner.commit("inner")
    git(
        repository.folder, "-c", "protocol.file.allow=always",
        "submodule", "--quiet", "add", inner.url, "part",
    )  # fmt: skip
    repository.commit("outer")
    os.environ["GIT_CONFIG_COUNT"] = "1"
    os.environ["GIT_CONFIG_KEY_0"] = "protocol.file.allow"
    os.environ["GIT_CONFIG_VALUE_0"] = "always"
    try:
        made = _checkout(base, repository.url, branch="main")
    finally:
        for name in ("GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "GIT_CONFIG_VALUE_0"):
            del os.environ[name]
    assert (made.directory / "part" / "node.py").read_text() == "inner"
