"""Formats of `dora recording export` and `import`: entry points `dora.exports`, `dora.imports`.

A format is a function like that of a command: its first argument is :data:`Files` (or the file to
import), and its other parameters are options. :func:`reading` opens the recordings.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dora_cli import output
from dora_cli.errors import CommandFailed

if TYPE_CHECKING:
    from dora_recordings.arrow_messages import RecordedMessage
    from dora_recordings.reading import Recording

Files = Annotated[list[Path], typer.Argument(metavar="FILE", help="The recording, or its files.")]
Target = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="PATH", help="Folder or file; default the recording's name."
    ),
]


@dataclass(frozen=True, slots=True)
class OpenedRecordings:
    """The files of one recording."""

    files: list[Recording]

    def messages(self) -> Iterator[RecordedMessage]:
        """Yield all messages in the order they were sent; each call reads the files again."""
        from dora_recordings.reading import merged

        return merged(self.files)

    @property
    def dataflow(self) -> dict[str, Any] | None:
        """Return the recorded dataflow."""
        return self.files[0].facts.dataflow

    @property
    def working_dir(self) -> str:
        """Return the folder of the dataflow."""
        return self.files[0].facts.source.get("working_dir", "")


@contextmanager
def reading(files: Iterable[Path]) -> Iterator[OpenedRecordings]:
    """Open recordings; files that are written meanwhile are private, as recordings are.

    Prints at the end which files are unfinished, and damage, for which it raises CommandFailed.
    Raises UnreadableRecording.
    """
    from dora_recordings.reading import Recording, damage_of

    recordings = [Recording(path) for path in files]
    with private_files():
        try:
            yield OpenedRecordings(recordings)
        finally:
            damage = damage_of(recordings)
            for text in damage:
                output.warn(f"{text} left out")
    for one in recordings:
        if not one.finished:
            output.warn(
                f"{one.path} is unfinished: the recorder was killed, or still records; it was read "
                "up to its last complete part"
            )
    if damage:
        raise CommandFailed


@contextmanager
def private_files() -> Iterator[None]:
    """Deny other accounts access to files that are created in the block."""
    umask = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(umask)


def warn_of_refused(outputs: Iterable[tuple[str, int, str]]) -> None:
    """Warn of messages that are left out: name, number and reason; raises CommandFailed then."""
    refused = [one for one in outputs if one[1]]
    for name, count, reason in refused:
        output.warn(f"{name}: {output.counted(count, 'message')} left out: {reason}")
    if refused:
        raise CommandFailed
