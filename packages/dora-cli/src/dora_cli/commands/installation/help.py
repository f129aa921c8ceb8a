"""`dora help`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dora_cli import output
from dora_config.launcher import OWN_WORDS, find_command


def main(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND",
            help="A command such as `run` or `cluster up`; default: list all commands.",
        ),
    ] = None,
) -> None:
    """Show the help of a command, like `dora COMMAND --help`."""
    names = words or []
    if len(names) == 1 and names[0] in OWN_WORDS:
        service = find_command(names[0])
        if service is not None:
            raise typer.Exit(service(["--help"]))
    shown: Any = context.find_root()
    for name in names:
        if not hasattr(shown.command, "resolve_command"):
            context.fail(f"`{shown.command_path}` has no command {name!r}")
        # fails with a usage error for an unknown name
        _, command, _ = shown.command.resolve_command(shown, [name])
        shown = command.make_context(name, [], parent=shown, resilient_parsing=True)
        shown.resilient_parsing = False  # otherwise unknown names are accepted
    output.write(shown.get_help())
