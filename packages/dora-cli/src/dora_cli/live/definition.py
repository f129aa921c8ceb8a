"""Reads the definition of one node that is added to a running dataflow or replaces a node."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dora_config.dataflow.expand import dataflow_to_dict
from dora_config.dataflow.loader import parse_dataflow
from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedNode
from dora_config.errors import ConfigError, DoraError, Problem
from dora_config.yaml.text_files import MAX_FILE_BYTES, read_text
from dora_config.yaml.writer import dump_yaml

_HEADER = "nodes:\n"
_ID = re.compile(r"""^id:\s*['"]?([^'"#\s]+)""")
_FIRST, _NEXT = "  - ", "    "


class NodeFileError(DoraError):
    """A file does not contain the definition of exactly one node."""


def load_node(
    path: Path, running: ResolvedDataflow, *, replaces: str | None = None
) -> tuple[ResolvedNode, tuple[Problem, ...]]:
    """Return the node in a file, checked as part of the running dataflow, and its warnings.

    ``replaces``: id of the node that it replaces. `env` and `deploy` of the dataflow apply to it.
    Raises ConfigError and NodeFileError.
    """
    text = read_text(path, MAX_FILE_BYTES)
    lines = text.splitlines()
    if any(line.split(":")[0].rstrip() == "nodes" for line in lines):
        raise NodeFileError(
            f"{path}: expected one node, a mapping with `id` and `path`; remove the list `nodes`"
        )
    written = next((match[1] for line in lines if (match := _ID.match(line))), None)
    if replaces is not None and written is not None and written != replaces:
        raise NodeFileError(
            f'{path}: defines node "{written}", but node "{replaces}" is to be replaced; the ids'
            " must be equal"
        )
    others = running.model_copy(
        update={"nodes": tuple(node for node in running.nodes if node.id != replaces)}
    )
    whole = _as_dataflow(lines, dataflow_to_dict(others))
    own = range(whole.first_line, whole.first_line + len(lines))
    try:
        loaded = parse_dataflow(whole.text, path=path)
    except ConfigError as error:
        raise _explained(path, error, own) from None
    known = {node.id for node in others.nodes}
    found = [node for node in loaded.resolved.nodes if node.id not in known]
    if len(found) != 1:
        names = ", ".join(node.id for node in found) or "none"
        raise NodeFileError(f"{path}: expected one node, found {names} (a module has several)")
    return found[0], _shifted(loaded.warnings, own)


@dataclass(frozen=True, slots=True)
class _WholeFile:
    text: str
    first_line: int
    """Line at which the node's own lines begin."""


def _as_dataflow(lines: list[str], others: dict[str, Any]) -> _WholeFile:
    """Return a dataflow file whose last node is the one in ``lines``."""
    nodes = others.pop("nodes")
    prefix, indented = _FIRST, []
    for line in lines:
        if line.rstrip() == "---":
            indented.append("")
        elif not line.strip() or line.lstrip().startswith("#"):
            indented.append(f"{_NEXT}{line}".rstrip())
        else:
            indented.append(f"{prefix}{line}")
            prefix = _NEXT
    before = dump_yaml({"nodes": nodes}) if nodes else _HEADER
    rest = dump_yaml(others) if others else ""
    text = before + "\n".join(indented) + "\n" + rest
    return _WholeFile(text, before.count("\n") + 1)


def _explained(path: Path, error: ConfigError, own: range) -> DoraError:
    """Return the problems in the node's lines, or else those that it causes in other nodes."""
    shifted = _shifted(error.problems, own)
    if any(one.message.startswith("duplicate node ID") for one in shifted):
        return NodeFileError(
            f"{path}: the running dataflow has a node of this id; use `dora node replace`"
        )
    if shifted:
        return ConfigError(shifted)
    texts = "\n".join(problem.message for problem in error.problems)
    return NodeFileError(f"{path}: does not fit the running dataflow: {texts}")


def _shifted(problems: tuple[Problem, ...], own: range) -> tuple[Problem, ...]:
    """Return the problems in the node's own lines, with positions in its file."""
    before, left = own.start - 1, len(_NEXT)
    return tuple(
        replace(
            one,
            line=one.line - before,
            column=max(1, one.column - left),
            end_line=None if one.end_line is None else one.end_line - before,
            end_column=None if one.end_column is None else max(1, one.end_column - left),
        )
        for one in problems
        if one.line in own
    )
