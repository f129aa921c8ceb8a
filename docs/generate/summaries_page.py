"""The first line of each command's help, which `dora --help` shows without importing commands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from dora_cli import registry
from dora_cli.main import summary_of
from dora_cli.registry import Group

PAGE = "../packages/dora-cli-core/src/dora_cli/summaries.json"


def render() -> str:
    modules = [module for section in registry.SECTIONS for module in _modules(section.commands)]
    return json.dumps({module: summary_of(module) for module in sorted(modules)}, indent=2)


def _modules(commands: Mapping[str, str | Group]) -> Iterator[str]:
    for entry in commands.values():
        if isinstance(entry, Group):
            yield from entry.commands.values()
        else:
            yield entry
