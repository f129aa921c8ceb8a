"""`dora help`: the help of dora, of a command, or of a command in a group."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dora_cli import options, output
from dora_config.launcher import OWN_WORDS, find_command

app = options.application()


@app.command("help")
def show_help(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND",
            help="The command, such as `run` or `cluster up`; by default all commands are listed.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show the help of a command, as `dora COMMAND --help` does."""
    names = words or []
    if len(names) == 1 and names[0] in OWN_WORDS:
        service = find_command(names[0])
        if service is not None:
            raise typer.Exit(service(["--help"]))
    shown: Any = context.find_root()
    for name in names:
        if not hasattr(shown.command, "resolve_command"):
            context.fail(f"`{shown.command_path}` has no command {name!r}")
        # an unknown name is a usage error that names a close one
        _, command, _ = shown.command.resolve_command(shown, [name])
        shown = command.make_context(name, [], parent=shown, resilient_parsing=True)
        shown.resilient_parsing = False  # which would accept an unknown name
    output.write(shown.get_help())
