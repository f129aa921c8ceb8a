"""Short ways to parse texts and to look at their problems."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import dedent, indent
from typing import Any

from dora_config.dataflow.loader import LoadedDataflow, parse_dataflow
from dora_config.dataflow.resolved import ResolvedNode
from dora_config.errors import ConfigError

NODES = "nodes:\n  - {id: source, path: source.py, outputs: [out, other]}\n"
"""A dataflow of one node, to which `node` appends."""


def parse(text: str, environ: Mapping[str, str] | None = None, **options: Any) -> LoadedDataflow:
    """The dataflow of an indented text, in an empty environment."""
    return parse_dataflow(dedent(text), path="flow.yml", environ=environ or {}, **options)


def node(fields: str, environ: Mapping[str, str] | None = None) -> ResolvedNode:
    """A node `n` with these fields, beside a node `source` with outputs `out` and `other`."""
    return parse(with_node(fields), environ).resolved.node("n")


def with_node(fields: str) -> str:
    """The text of a dataflow with the nodes `source` and `n`."""
    return f"{NODES}  - id: n\n{indent(dedent(fields).strip(), '    ')}\n"


def errors(text: str, environ: Mapping[str, str] | None = None, **options: Any) -> list[str]:
    """Each error as `line:column: message (hint)`; none if the text can be used."""
    try:
        parse(text, environ, **options)
    except ConfigError as error:
        return [str(problem).removeprefix("flow.yml:") for problem in error.errors]
    return []


def warnings(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Each warning as `line:column: warning: message (hint)`."""
    loaded = parse(text, environ)
    return [str(problem).removeprefix("flow.yml:") for problem in loaded.warnings]
