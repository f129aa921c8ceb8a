"""A YAML document as plain values, with the position of each key and value; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dora_config.errors import Problem, Severity
from dora_config.terminal import clean_text
from dora_config.yaml.scalars import MERGE

if TYPE_CHECKING:
    from yaml.nodes import MappingNode, Node, ScalarNode  # slow to import, and rarely needed

    _Step = tuple[ScalarNode | None, Node]
    """The key, if the parent is a mapping, and the value."""

KeyPath = tuple[str | int, ...]
"""Keys and indices from the root of a document to one of its values."""


@dataclass(frozen=True, slots=True)
class Span:
    """An extent of text; lines and columns count from 1."""

    line: int
    column: int
    end_line: int
    end_column: int

    @property
    def start(self) -> Span:
        """The empty extent at the start."""
        return Span(self.line, self.column, self.line, self.column)


def span_of(node: Any) -> Span:
    """Return the extent of a node, event or anything with marks of PyYAML."""
    first, last = node.start_mark, node.end_mark
    return Span(first.line + 1, first.column + 1, last.line + 1, last.column + 1)


@dataclass
class Document:
    """One YAML file: `data` as plain values, and the positions of its parts."""

    file: str
    text: str
    data: Any = None
    problems: list[Problem] = field(default_factory=list)
    root: Node | None = field(default=None, repr=False)
    _keys: dict[int, dict[str, _Step]] = field(default_factory=dict, repr=False)
    """The keys of each mapping that was searched, by the id of its node."""

    def problem_at(
        self, span: Span, message: str, hint: str | None = None, severity: Severity = "error"
    ) -> Problem:
        """Return a problem at an extent of the text."""
        return Problem(
            file=self.file,
            line=span.line,
            column=span.column,
            message=clean_text(message),
            hint=None if hint is None else clean_text(hint),
            severity=severity,
            end_line=span.end_line,
            end_column=span.end_column,
        )

    def span(self, path: KeyPath, *, at_key: bool = False) -> Span:
        """Return the position of `path`, or of its nearest ancestor in the text.

        Mappings and lists are located by their key, if they have one.
        """
        if self.root is None:
            return Span(1, 1, 1, 1)
        steps = list(self._steps(path))
        if not steps:
            return span_of(self.root).start
        from yaml.nodes import ScalarNode

        key, node = steps[-1]
        if not isinstance(node, ScalarNode):
            return span_of(node).start if key is None else span_of(key)
        is_empty = not node.style and not node.value
        if key is not None and (is_empty or (at_key and len(steps) == len(path))):
            return span_of(key)
        return span_of(node)

    def _steps(self, path: KeyPath) -> Iterator[_Step]:
        """Follow `path` from the root as far as it exists."""
        node = self.root
        for part in path:
            step = self._child(node, part)
            if step is None:
                return
            node = step[1]
            yield step

    def _child(self, node: Node | None, part: str | int) -> _Step | None:
        from yaml.nodes import MappingNode, SequenceNode

        if isinstance(node, SequenceNode):
            if isinstance(part, int) and 0 <= part < len(node.value):
                return None, node.value[part]
            return None
        if not isinstance(node, MappingNode) or not isinstance(part, str):
            return None
        keys = self._keys.get(id(node))
        if keys is None:
            keys = self._keys[id(node)] = _keys_of(node)
        if part in keys:
            return keys[part]
        found = (self._child(source, part) for source in merged_nodes(node))
        return next((step for step in found if step is not None), None)


@dataclass(frozen=True, slots=True)
class Place:
    """A value of a document, by its path."""

    document: Document
    path: KeyPath = ()

    def at(self, *keys: str | int) -> Place:
        """Return the place of a value inside this one."""
        return Place(self.document, (*self.path, *keys))

    def problem(
        self,
        message: str,
        hint: str | None = None,
        *,
        at_key: bool = False,
        severity: Severity = "error",
    ) -> Problem:
        """Return a problem at the value, or at its key."""
        span = self.document.span(self.path, at_key=at_key)
        return self.document.problem_at(span, message, hint, severity)


def _keys_of(node: MappingNode) -> dict[str, _Step]:
    from yaml.nodes import ScalarNode

    keys: dict[str, _Step] = {}
    for key, value in node.value:
        if isinstance(key, ScalarNode) and key.tag != MERGE:
            keys.setdefault(key.value, (key, value))
    return keys


def merged_nodes(node: MappingNode) -> Iterator[Node]:
    """Yield the nodes to which the `<<` keys of a mapping refer."""
    from yaml.nodes import SequenceNode

    for key, value in node.value:
        if key.tag == MERGE:
            yield from value.value if isinstance(value, SequenceNode) else [value]
