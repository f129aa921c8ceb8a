"""When nodes are reloaded, with a clock of its own."""

from __future__ import annotations

from pathlib import Path

from dora_cli.live.watching import (
    MISSING_SECONDS,
    SETTLE_SECONDS,
    ReloadState,
    UnusableFile,
)

A, B = Path("/a.py"), Path("/b.py")
LATER = 100.0


def state() -> ReloadState:
    made = ReloadState()
    made.set_files("camera", {A: "1", B: "1"})
    made.set_files("plot", {B: "1"})
    return made


def read(made: ReloadState, now: float, **digests: str | None) -> None:
    broken = {Path(f"/{key}.py"): "3: wrong" for key, one in digests.items() if one == "broken"}
    made.note({Path(f"/{key}.py"): one for key, one in digests.items()}, now, broken)


def reloads(made: ReloadState, now: float) -> list[tuple[str, list[Path]]]:
    return [*iter(lambda: made.next_reload(now), None)]


def test_a_node_is_reloaded_once_its_files_have_settled() -> None:
    made = state()
    read(made, 0.0, a="2")
    read(made, 0.1, a="3")
    assert reloads(made, 0.2) == []
    assert reloads(made, 0.1 + SETTLE_SECONDS) == [("camera", [A])]
    assert reloads(made, LATER) == []


def test_equal_contents_reload_nothing() -> None:
    made = state()
    read(made, 0.0, a="1", b="1")
    assert reloads(made, LATER) == []


def test_a_shared_file_reloads_all_its_nodes() -> None:
    made = state()
    read(made, 0.0, b="2")
    assert reloads(made, LATER) == [("camera", [B]), ("plot", [B])]


def test_changes_during_a_reload_follow_it() -> None:
    made = state()
    read(made, 0.0, a="2")
    assert made.next_reload(1.0) == ("camera", [A])
    read(made, 5.0, a="3")
    assert reloads(made, 9.0) == [("camera", [A])]


def test_a_rename_over_a_file_is_one_change() -> None:
    made = state()
    read(made, 0.0, a=None)
    assert reloads(made, LATER) == []
    assert [*made.reports(SETTLE_SECONDS)] == []
    read(made, 0.3, a="2")
    assert reloads(made, LATER) == [("camera", [A])]


def test_a_removed_file_is_reported_once_and_may_come_back() -> None:
    made = state()
    read(made, 0.0, a=None)
    assert [*made.reports(MISSING_SECONDS - 0.1)] == []
    assert [*made.reports(MISSING_SECONDS)] == [UnusableFile(A, None, ("camera",))]
    assert reloads(made, 60.0) == []
    assert [*made.reports(60.0)] == []
    read(made, 61.0, a="1")
    assert reloads(made, LATER) == [("camera", [A])]


def test_new_files_count_as_unchanged() -> None:
    made = state()
    new = Path("/c.py")
    made.set_files("plot", {B: "1", new: "1"})
    assert new in made.files
    made.note({new: "1"}, 0.0, {})
    assert reloads(made, LATER) == []
    made.note({new: "2"}, 0.0, {})
    assert reloads(made, LATER) == [("plot", [new])]


def test_files_of_a_node_that_was_removed_and_added_again_count_as_unchanged() -> None:
    made = state()
    made.remove("camera")
    made.set_files("camera", {A: "2", B: "1"})
    read(made, 0.0, a="2")
    assert reloads(made, LATER) == []


def test_a_syntax_error_reloads_nothing_and_is_reported_once() -> None:
    made = state()
    read(made, 0.0, b="broken")
    assert [*made.reports(SETTLE_SECONDS)] == [UnusableFile(B, "3: wrong", ("camera", "plot"))]
    read(made, 1.0, a="2")  # camera also uses the broken file
    assert reloads(made, LATER) == []
    assert [*made.reports(LATER)] == []
    read(made, LATER, b="3")
    assert reloads(made, 2 * LATER) == [("camera", [A, B]), ("plot", [B])]


def test_a_broken_file_that_is_saved_again_broken_is_reported_again() -> None:
    made = state()
    read(made, 0.0, a="broken")
    assert [*made.reports(1.0)] == [UnusableFile(A, "3: wrong", ("camera",))]
    read(made, 2.0, a="2")
    read(made, 2.05, a="broken")
    assert [*made.reports(3.0)] == [UnusableFile(A, "3: wrong", ("camera",))]
