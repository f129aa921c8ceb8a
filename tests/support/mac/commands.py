"""Runs `dora` commands one after the other in a process that looks like one on macOS.

Writes a JSON line with the words of all installed commands. Reads the words of each command as a
JSON line from standard input, and writes a JSON line with its exit code and output.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from dora_cli.main import create_application, main


def leaves(command: Any, context: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command that is not a group."""
    if not hasattr(command, "list_commands"):
        yield words
        return
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        inner = found.make_context(name, [], parent=context, resilient_parsing=True)
        yield from leaves(found, inner, (*words, name))


def run(words: list[str]) -> tuple[int, str]:
    """Return exit code and output."""
    raw = io.BytesIO()
    printed = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
    with redirect_stdout(printed), redirect_stderr(printed):
        code = main(words)
    return code, raw.getvalue().decode()


application = create_application()
context = application.make_context("dora", [], resilient_parsing=True)
print(json.dumps([" ".join(words) for words in leaves(application, context)]), flush=True)
for line in sys.stdin:
    print(json.dumps(run(json.loads(line))), flush=True)
