"""Arguments that commands about recordings share."""

from __future__ import annotations

from typing import Annotated

import typer

RecordingArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[RECORDING]",
        help="Start of its id, or name or UUID of its dataflow; default the newest.",
    ),
]
