"""The format of `dora recording export --to csv`."""

import csv
from typing import Annotated

import typer

from dora_recordings.arrow_messages import decode
from dora_recordings.conversion import unfinished
from dora_recordings.formats import Files, Target, reading


def export(
    files: Files,
    target: Target = None,
    separator: Annotated[str, typer.Option(help="Between two columns.")] = ",",
) -> None:
    """Write a CSV file with a row for each message."""
    path = target or files[0].with_suffix(".csv")
    with reading(files) as recording:
        with unfinished(path) as new, new.open("w", newline="") as file:
            rows = csv.writer(file, delimiter=separator)
            rows.writerow(["nanoseconds", "output", "values"])
            for message in recording.messages():
                values, _ = decode(message.schema, message.data)
                rows.writerow([message.log_time, message.topic, values.to_pylist()])
        print(f"wrote {path}")
