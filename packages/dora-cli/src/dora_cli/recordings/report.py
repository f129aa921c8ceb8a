"""What a command prints at the end of a recording."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from dora_cli import output

if TYPE_CHECKING:
    from dora_daemon.recording.reading import Recording

COLUMNS = ("TOPIC", "RECORDED", "NOT RECORDED")


def write_report(
    recorded: Mapping[str, int],
    lost: Mapping[str, int],
    files: Sequence[str] = (),
    problems: Sequence[str] = (),
) -> bool:
    """Print what was recorded; return whether all of it was."""
    topics = sorted({*recorded, *lost})
    if topics:
        rows = [(name, recorded.get(name, 0), lost.get(name, 0)) for name in topics]
        output.table(COLUMNS, rows)
    for file in files:
        output.write(f"wrote {file}")
    missing = sum(lost.values())
    if missing:
        output.warn(f"{output.counted(missing, 'message')} not recorded")
    for problem in problems:
        output.failure(problem)
    return not missing and not problems


def damage_of(recordings: Iterable[Recording]) -> list[str]:
    """Return what could not be read so far, each with its file."""
    return [f"{one.path} is damaged: {damage}" for one in recordings for damage in one.damage]
