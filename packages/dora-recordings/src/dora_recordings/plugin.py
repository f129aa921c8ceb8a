"""The group `dora recording`; imports none of its commands."""

from __future__ import annotations

from typing import Final

from dora_cli.registry import Group, functions

HEADING: Final = "Recordings"

RECORDING: Final = Group(
    "Show and convert recordings, and manage those on the machines of a cluster.",
    functions(
        "dora_recordings.commands.recording",
        *("info", "export", "import", "list", "stop", "fetch", "remove"),
    ),
    heading=HEADING,
)
