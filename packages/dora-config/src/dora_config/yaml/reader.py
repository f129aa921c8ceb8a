"""YAML text to a `Document`.

PyYAML composes the tree of nodes. This module turns it into plain values and reports duplicate
keys, unknown tags and texts that expand too much as problems with positions.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner, ScannerError

from dora_config.errors import Problem
from dora_config.yaml.document import Document, Span, merged_nodes, span_of
from dora_config.yaml.scalars import (
    BOOL,
    FLOAT,
    INT,
    MAP,
    MERGE,
    NULL,
    SEQ,
    STR,
    plain_tag,
    scalar_value,
)

MAX_DEPTH = 60
"""Most levels of nested values."""
MAX_VALUES = 200_000
"""Most values of a file after its aliases are expanded."""

_SCALAR_TAGS = {STR, NULL, BOOL, INT, FLOAT, MERGE}


class _Unusable(Exception):
    """The document cannot be read any further."""

    def __init__(self, message: str, span: Span) -> None:
        self.message = message
        self.span = span


class _CoreResolver(BaseResolver):
    """Resolves tags by the core schema, for the composer of PyYAML."""

    def resolve(self, kind: Any, value: str, implicit: tuple[bool, bool]) -> str:
        if kind is ScalarNode:
            return plain_tag(value) if implicit[0] else STR
        return SEQ if kind is SequenceNode else MAP


class _Composer(Composer, _CoreResolver):
    """PyYAML's composer with a limit of depth, in which an anchor may be defined again."""

    def __init__(self) -> None:
        Composer.__init__(self)
        _CoreResolver.__init__(self)
        self._depth = 0

    def compose(self) -> Node | None:
        """Return the root of the first document; None if the text is empty."""
        parser: Any = self
        parser.get_event()
        if parser.check_event(yaml.StreamEndEvent):
            return None
        root = self.compose_document()
        if not parser.check_event(yaml.StreamEndEvent):
            message = "the file contains more than one YAML document"
            raise _Unusable(message, span_of(parser.peek_event()))
        return root

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        # replaces the method of PyYAML, which refuses to define an anchor again
        parser: Any = self
        event: Any = parser.peek_event()
        if isinstance(event, yaml.ScalarEvent):
            anchor: Any = event.anchor
            return self.compose_scalar_node(anchor)
        if isinstance(event, yaml.AliasEvent):
            parser.get_event()
            if event.anchor not in self.anchors:
                raise _Unusable(f"unknown alias *{event.anchor}", span_of(event))
            return self.anchors[event.anchor]
        if self._depth >= MAX_DEPTH:
            raise _Unusable(f"values are nested deeper than {MAX_DEPTH} levels", span_of(event))
        self._depth += 1
        is_list = isinstance(event, yaml.SequenceStartEvent)
        compose = self.compose_sequence_node if is_list else self.compose_mapping_node
        node = compose(event.anchor)
        self._depth -= 1
        return node


class _PythonComposer(_Composer, Reader, Scanner, Parser):
    """Composer over PyYAML's own parser."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        _Composer.__init__(self)

    def scan_flow_scalar_non_spaces(self, double: bool, start_mark: Any) -> list[str]:
        """Refuse escapes that are not characters, as libyaml does."""
        try:
            texts: list[str] = super().scan_flow_scalar_non_spaces(double, start_mark)
            "".join(texts).encode()
        except ValueError:
            problem = "found invalid Unicode character escape code"
            raise ScannerError(None, None, problem, self.get_mark()) from None
        return texts


_TreeComposer: type[Any] = _PythonComposer
try:
    CParser: Any = import_module("yaml.cyaml").CParser
except ImportError:  # PyYAML built without libyaml
    pass
else:

    class _LibyamlComposer(_Composer, CParser):  # type: ignore[misc]
        """Composer over the parser of libyaml."""

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            _Composer.__init__(self)

    _TreeComposer = _LibyamlComposer


class _Constructor:
    """Turns nodes into plain values."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._values = 0

    def value(self, node: Node, parents: tuple[int, ...] = ()) -> Any:
        """Return the plain value of `node`, which lies in the nodes with the ids `parents`."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise _Unusable(f"the file expands to more than {MAX_VALUES} values", span_of(node))
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if id(node) in parents:
            raise _Unusable("an alias must not lie inside the value it stands for", span_of(node))
        if len(parents) > MAX_DEPTH:
            raise _Unusable(f"values are nested deeper than {MAX_DEPTH} levels", span_of(node))
        inner = (*parents, id(node))
        if isinstance(node, SequenceNode):
            self._check_tag(node, SEQ)
            return [self.value(item, inner) for item in node.value]
        assert isinstance(node, MappingNode)
        self._check_tag(node, MAP)
        return self._mapping(node, inner)

    def _mapping(self, node: MappingNode, parents: tuple[int, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self._report(key, "a key must be a plain word")
            elif key.tag == MERGE:
                continue
            elif key.value in first:
                message = f'duplicate key "{key.value}", first on line {first[key.value]}'
                self._report(key, message)
            else:
                first[key.value] = key.start_mark.line + 1
                values[key.value] = self.value(value, parents)
        for source in merged_nodes(node):
            if isinstance(source, MappingNode):
                for name, value in self.value(source, parents).items():
                    values.setdefault(name, value)
            else:
                self._report(source, "`<<` takes a mapping or a list of mappings")
        return values

    def _scalar(self, node: ScalarNode) -> Any:
        if node.tag not in _SCALAR_TAGS:
            self._report(node, f"unknown YAML tag {node.tag!r}")
            return node.value
        try:
            return scalar_value(node.tag, node.value)
        except ValueError as error:
            self._report(node, str(error))
            return node.value

    def _check_tag(self, node: Node, expected: str) -> None:
        if node.tag != expected:
            self._report(node, f"unknown YAML tag {node.tag!r}")

    def _report(self, node: Node, message: str) -> None:
        self._document.problems.append(self._document.problem_at(span_of(node), message))


def read_document(text: str, file: str) -> Document:
    """Read a text; the document's `problems` contain its errors."""
    document = Document(file=file, text=text)
    text = text.removeprefix("\ufeff")
    try:
        composer = _TreeComposer(text)
        try:
            document.root = composer.compose()
        finally:
            composer.dispose()
        if document.root is not None:
            document.data = _Constructor(document).value(document.root)
    except ReaderError as error:
        # its position is in characters, with libyaml in bytes
        span = _span_at(text, text.index(chr(error.character)))
        document.problems.append(document.problem_at(span, f"invalid YAML: {error.reason}"))
    except yaml.MarkedYAMLError as error:
        document.problems.append(_syntax_problem(document, error))
    except _Unusable as error:
        document.problems.append(document.problem_at(error.span, error.message))
    except UnicodeEncodeError as error:
        span = _span_at(text, error.start)
        document.problems.append(document.problem_at(span, "the text is not valid Unicode"))
    return document


def read_item(text: str, file: str, key: str) -> Document:
    """Read a text as the only item of the list `key`; its positions are those in the text."""
    document = read_document(text, file)
    if (root := document.root) is not None and document.data is not None:
        marks = root.start_mark, root.end_mark
        items = SequenceNode(SEQ, [root], *marks)
        document.root = MappingNode(MAP, [(ScalarNode(STR, key, *marks), items)], *marks)
    if document.data is not None or not document.problems:
        document.data = {key: [document.data]}
    return document


def _syntax_problem(document: Document, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    reason = error.problem or error.context or "cannot be read"
    context = ""
    if error.context and error.context_mark is not None and error.context_mark.line != line:
        context = f" ({error.context} that starts on line {error.context_mark.line + 1})"
    lines = document.text.splitlines()
    hint = None
    if line < len(lines) and "\t" in lines[line][: len(lines[line]) - len(lines[line].lstrip())]:
        hint = "the line is indented with a tab: YAML requires spaces"
    span = Span(line + 1, column + 1, line + 1, column + 2)
    return document.problem_at(span, f"invalid YAML: {reason}{context}", hint)


def _span_at(text: str, position: int) -> Span:
    line = text.count("\n", 0, position) + 1
    column = position - (text.rfind("\n", 0, position) + 1) + 1
    return Span(line, column, line, column + 1)
