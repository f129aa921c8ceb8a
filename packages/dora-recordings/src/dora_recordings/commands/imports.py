"""Formats of `dora recording import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dora_cli import output
from dora_recordings.formats import private_files


def lerobot(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="Folder of a LeRobot v3 dataset.")
    ],
    target: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default DATASET.mcap.")
    ] = None,
) -> None:
    """Read a LeRobot v3 dataset, with an output for each feature.

    `dora replay` plays the outputs of the node `lerobot`: `state`, `action`, each camera by its
    name, and `episode` with `start` and `stop`. Pictures are JPEG of the best quality.
    """
    from dora_recordings.export.dataset_reader import NODE, import_dataset

    dataset = dataset.absolute()
    file = target or dataset.with_name(f"{dataset.name}.mcap")
    with private_files():
        done = import_dataset(dataset, file)
    rows = [(f"{NODE}/{name}", count) for name, count in done.messages.items()]
    output.table(("TOPIC", "MESSAGES"), rows)
    output.write(f"wrote {file}")


def reads(path: Path) -> bool:
    """Whether a path is a dataset, so that `--from` is not needed."""
    return (path / "meta" / "info.json").is_file()


lerobot.reads = reads  # type: ignore[attr-defined]
