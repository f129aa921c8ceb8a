"""The commands of the core and of installed plug-ins, as Typer has them."""

from __future__ import annotations

from typing import Any

import typer

from dora_cli.main import create_application


def command_of(line: str) -> tuple[Any, Any]:
    """Return a command and its context."""
    application = create_application()
    context = application.make_context("dora", [*line.split(), "x"], resilient_parsing=True)
    words = line.split()
    while words:
        _, command, words = application.resolve_command(context, words)
        application = command
        context = typer.Context(command, parent=context)
    return command, context


def all_lines() -> list[str]:
    """Return the words of each command, without hidden names."""
    application = create_application()
    context = application.make_context("dora", ["--help"], resilient_parsing=True)
    lines = []
    for word in application.list_commands(context):
        command = application.get_command(context, word)
        has_commands = hasattr(command, "list_commands")
        names = command.list_commands(context) if has_commands else []
        lines += [f"{word} {name}" for name in names] or [word]
    return lines
