"""The command `dora ros2` as a plug-in of dora-cli."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

from dora_ros2.commands import argument_parser, main

app = typer.Typer()


class _Command(TyperCommand):
    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(argument_parser().format_help())


@app.command(
    cls=_Command,
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "allow_interspersed_args": False,
    },
    rich_help_panel="ROS 2",
)
def ros2(context: typer.Context) -> None:
    """Look at a graph of ROS 2, and talk to its nodes."""
    raise typer.Exit(main(context.args))
