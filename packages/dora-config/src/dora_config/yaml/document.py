"""YAML text to plain values that still know their lines; the only module that imports YAML.

Scalars follow the YAML 1.2 core schema, so `on`, `yes` and `12:30` are strings. Duplicate keys,
unknown tags, aliases that contain themselves and texts that unfold into too much are problems of
the document, never exceptions. Numbers remember how they were written (`WrittenInt`,
`WrittenFloat`), because an environment variable set to `1.10` must not become `1.1`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import yaml

from dora_config.errors import Problem

_Parser: Any
try:
    _Parser = import_module("yaml.cyaml").CParser
except ImportError:  # PyYAML built without libyaml
    _Parser = yaml.SafeLoader

MAX_DEPTH = 60
MAX_VALUES = 200_000
MAX_DIGITS = 400
MAX_MESSAGE = 2000

OLD_NAMES = {"deploy": "_unstable_deploy", "debug": "_unstable_debug"}
"""Names of dora 0.x for keys; a path with the new name finds a value under the old one."""

KeyPath = tuple[str | int, ...]
"""Keys and indices from the root of a document to one of its values."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)", re.ASCII)
_PREFIXED_INT = re.compile(r"0o([0-7]+)|0x([0-9a-fA-F]+)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_LEADING_ZEROS = re.compile(r"[-+]?0[0-9]+", re.ASCII)
_SPECIAL_FLOATS = {
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_TAG = "tag:yaml.org,2002:"


class WrittenInt(int):
    """An integer whose text differs from `str(value)`."""

    text: str


class WrittenFloat(float):
    """A float whose text differs from `str(value)`."""

    text: str


def written(value: bool | int | float | str) -> str:
    """The text of a scalar as its author wrote it; booleans in lower case."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, WrittenInt | WrittenFloat):
        return value.text
    return str(value)


def for_a_program(value: bool | int | float | str) -> str:
    """The text that a program is given of a scalar: as written, but `0x1F` as `31`.

    Programs read numbers with `int`, which takes no other base by itself.
    """
    text = written(value)
    return str(int(value)) if isinstance(value, int) and _PREFIXED_INT.fullmatch(text) else text


@dataclass(frozen=True, slots=True)
class Span:
    """Where something stands in a text; lines and columns count from 1."""

    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(slots=True)
class _Scalar:
    text: str
    plain: bool
    tag: str | None
    span: Span
    lost: bool = False


@dataclass(slots=True)
class _Sequence:
    items: list[_Node]
    tag: str | None
    span: Span


@dataclass(slots=True)
class _Mapping:
    items: list[tuple[_Node, _Node]]
    tag: str | None
    span: Span
    by_name: dict[str, tuple[_Scalar, _Node]] | None = None
    """The first of each name, once one was asked for: a mapping with many mistakes is asked
    for each."""


_Node = _Scalar | _Sequence | _Mapping


class _Unusable(Exception):
    """The text cannot be read any further."""

    def __init__(self, message: str, span: Span, hint: str | None = None) -> None:
        self.message = message
        self.span = span
        self.hint = hint


@dataclass
class Document:
    """One YAML file: plain `data`, and the position of each of its keys and values."""

    file: str
    text: str
    data: Any = None
    problems: list[Problem] = field(default_factory=list)
    lost: set[KeyPath] = field(default_factory=set)
    """Paths of values that cannot be read: one of the `problems` names the reason."""
    _root: _Node | None = None
    _values: int = 0

    def problem(
        self,
        path: KeyPath,
        message: str,
        *,
        hint: str | None = None,
        at_key: bool = False,
        severity: Any = "error",
    ) -> Problem:
        """A problem at the value (or key) that `path` leads to."""
        return self._problem_at(self.span(path, at_key=at_key), message, hint, severity)

    def _problem_at(
        self, span: Span, message: str, hint: str | None = None, severity: Any = "error"
    ) -> Problem:
        return Problem(
            file=self.file,
            line=span.line,
            column=span.column,
            message=_showable(message),
            hint=None if hint is None else _showable(hint),
            severity=severity,
            end_line=span.end_line,
            end_column=span.end_column,
        )

    def span(self, path: KeyPath, *, at_key: bool = False) -> Span:
        """The position of `path`, or of the nearest thing around it that the text has.

        A value that is a whole mapping or list is located by its key.
        """
        node = self._root
        if node is None:
            return Span(1, 1, 1, 1)
        span = Span(node.span.line, node.span.column, node.span.line, node.span.column)
        for depth, part in enumerate(path):
            found = _child(node, part)
            if found is None:
                break
            key, node = found
            use_key = key is not None and (
                not isinstance(node, _Scalar)
                or (node.plain and not node.text)
                or (at_key and depth + 1 == len(path))
            )
            span = key.span if key is not None and use_key else node.span
            if key is None and not isinstance(node, _Scalar):
                span = Span(span.line, span.column, span.line, span.column)
        return span

    def lines_of(self, path: KeyPath) -> Span:
        """The whole extent of the value that `path` leads to."""
        node = self._root
        for part in path:
            found = _child(node, part)
            if found is None:
                break
            node = found[1]
        return node.span if node is not None else Span(1, 1, 1, 1)

    def scalar_text(self, path: KeyPath) -> str | None:
        """The text of the scalar at `path` as written; None if `path` leads to no scalar."""
        node = self._root
        for part in path:
            found = _child(node, part)
            if found is None:
                return None
            node = found[1]
        return node.text if isinstance(node, _Scalar) else None

    def _convert(self, node: _Node, parents: tuple[int, ...], path: KeyPath) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _Unusable(f"the file unfolds into more than {MAX_VALUES} values", node.span)
        if isinstance(node, _Scalar):
            if node.lost:
                self.lost.add(path)
            return self._scalar(node)
        if id(node) in parents:
            raise _Unusable("an alias must not lie inside the value it stands for", node.span)
        if len(parents) > MAX_DEPTH:
            raise _Unusable(f"values are nested deeper than {MAX_DEPTH} levels", node.span)
        inner = (*parents, id(node))
        if node.tag not in (None, "!", _TAG + ("seq" if isinstance(node, _Sequence) else "map")):
            self.problems.append(self._problem_at(node.span, f"unknown YAML tag {node.tag!r}"))
        if isinstance(node, _Sequence):
            return [
                self._convert(item, inner, (*path, index)) for index, item in enumerate(node.items)
            ]
        return self._mapping(node, inner, path)

    def _mapping(self, node: _Mapping, parents: tuple[int, ...], path: KeyPath) -> dict[str, Any]:
        own: dict[str, Any] = {}
        first: dict[str, Span] = {}
        merged: list[_Mapping] = []
        for key, value in node.items:
            if not isinstance(key, _Scalar):
                self.problems.append(self._problem_at(key.span, "a key must be a plain word"))
                continue
            if _is_merge(key):
                merged.extend(self._merge_sources(value))
                continue
            if key.text in own:
                message = f'duplicate key "{key.text}", first on line {first[key.text].line}'
                self.problems.append(self._problem_at(key.span, message))
                self.lost.add((*path, key.text))
                continue
            first[key.text] = key.span
            own[key.text] = self._convert(value, parents, (*path, key.text))
        for source in merged:
            for key_text, converted in self._convert(source, parents, path).items():
                own.setdefault(key_text, converted)
        return own

    def _merge_sources(self, value: _Node) -> list[_Mapping]:
        sources = value.items if isinstance(value, _Sequence) else [value]
        sources = [one for one in sources if not (isinstance(one, _Scalar) and one.lost)]
        mappings = [source for source in sources if isinstance(source, _Mapping)]
        if len(mappings) != len(sources):
            self.problems.append(
                self._problem_at(value.span, "`<<` takes a mapping or a list of mappings")
            )
        return mappings

    def _scalar(self, node: _Scalar) -> Any:
        if node.tag is not None and node.tag != "!":
            return self._tagged(node)
        if not node.plain:
            return node.text
        return self._plain(node)

    def _tagged(self, node: _Scalar) -> Any:
        kind = (node.tag or "").removeprefix(_TAG)
        if kind == "str":
            return node.text
        value = self._plain(node)
        fits = {"int": int, "float": int | float, "bool": bool, "null": type(None)}.get(kind)
        if fits is None:
            self.problems.append(self._problem_at(node.span, f"unknown YAML tag {node.tag!r}"))
        elif not isinstance(value, fits) or (isinstance(value, bool) and kind != "bool"):
            self.problems.append(self._problem_at(node.span, f"{node.text!r} is not a !!{kind}"))
        return value

    def _plain(self, node: _Scalar) -> Any:
        text = node.text
        if text in _NULLS:
            return None
        if text in _BOOLS:
            return _BOOLS[text]
        # names are by far the most common: skip the patterns of numbers for them
        if text[0] not in "-+.0123456789":
            return text
        if len(text) > MAX_DIGITS and (_INT.fullmatch(text) or _FLOAT.fullmatch(text)):
            message = f"the number {text[:12]}... has {len(text)} digits"
            self.problems.append(self._problem_at(node.span, message))
            return text
        return _number(text)


def _showable(text: str) -> str:
    """A message that may hold parts of a file, fit for one line of a terminal."""
    if len(text) > MAX_MESSAGE:
        text = text[:MAX_MESSAGE] + "..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _number(text: str) -> Any:
    """The number that a plain scalar is, else its text."""
    value: Any
    if _INT.fullmatch(text):
        value = int(text)
        if str(value) != text:
            value = WrittenInt(text)
            value.text = text
        return value
    prefixed = _PREFIXED_INT.fullmatch(text)
    if prefixed:
        octal, hexadecimal = prefixed.groups()
        value = WrittenInt(octal or hexadecimal, 8 if octal else 16)
        value.text = text
        return value
    if text in _SPECIAL_FLOATS:
        value = WrittenFloat(_SPECIAL_FLOATS[text])
        value.text = text
        return value
    # 007 is a code or a serial number, not the number seven
    if _FLOAT.fullmatch(text) and not _LEADING_ZEROS.fullmatch(text):
        value = float(text)
        if str(value) != text:
            value = WrittenFloat(text)
            value.text = text
        return value
    return text


def _is_merge(key: _Scalar) -> bool:
    return key.plain and key.text == "<<"


def _child(node: _Node | None, part: str | int) -> tuple[_Scalar | None, _Node] | None:
    """The key (of a mapping) and value that `part` selects in `node`."""
    if isinstance(node, _Sequence):
        if isinstance(part, int) and 0 <= part < len(node.items):
            return None, node.items[part]
        return None
    if not isinstance(node, _Mapping):
        return None
    if node.by_name is None:
        node.by_name = {}
        for key, value in node.items:
            if isinstance(key, _Scalar) and not _is_merge(key):
                node.by_name.setdefault(key.text, (key, value))
    own = node.by_name.get(part) if isinstance(part, str) else None
    if own is not None:
        return own
    old_name = OLD_NAMES.get(str(part))
    if old_name is not None:
        return _child(node, old_name)
    for key, value in node.items:
        if isinstance(key, _Scalar) and _is_merge(key):
            for source in value.items if isinstance(value, _Sequence) else [value]:
                found = _child(source, part) if isinstance(source, _Mapping) else None
                if found is not None:
                    return found
    return None


class _Composer:
    """Builds the tree of one document from parser events, with a bound on its depth."""

    def __init__(self, document: Document, events: Iterator[Any]) -> None:
        self._document = document
        self._events = events
        self._anchors: dict[str, _Node] = {}

    def document(self) -> _Node | None:
        root: _Node | None = None
        started = False
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if started:
                    self._report(event, "the file holds more than one YAML document")
                    break
                started = True
            elif isinstance(
                event, yaml.StreamStartEvent | yaml.StreamEndEvent | yaml.DocumentEndEvent
            ):
                continue
            else:
                root = self._node(event, 0)
        return root

    def _node(self, event: Any, depth: int) -> _Node:
        if isinstance(event, yaml.AliasEvent):
            node = self._anchors.get(str(event.anchor))
            if node is None:
                self._report(event, f"unknown alias *{event.anchor}")
                return _Scalar("", plain=True, tag=None, span=_span(event), lost=True)
            return node
        if isinstance(event, yaml.ScalarEvent):
            scalar = _Scalar(event.value, event.implicit[0], event.tag, _span(event))
            self._anchor(event, scalar)
            return scalar
        if depth >= MAX_DEPTH:
            raise _Unusable(f"values are nested deeper than {MAX_DEPTH} levels", _span(event))
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(event, depth)
        return self._mapping(event, depth)

    def _sequence(self, start: Any, depth: int) -> _Sequence:
        node = _Sequence([], start.tag, _span(start))
        self._anchor(start, node)
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                node.span = _span(start, event)
                break
            node.items.append(self._node(event, depth + 1))
        return node

    def _mapping(self, start: Any, depth: int) -> _Mapping:
        node = _Mapping([], start.tag, _span(start))
        self._anchor(start, node)
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                node.span = _span(start, event)
                break
            key = self._node(event, depth + 1)
            node.items.append((key, self._node(next(self._events), depth + 1)))
        return node

    def _report(self, event: Any, message: str) -> None:
        self._document.problems.append(self._document._problem_at(_span(event), message))

    def _anchor(self, event: Any, node: _Node) -> None:
        if event.anchor is not None:
            self._anchors[event.anchor] = node


def _span(start: Any, end: Any = None) -> Span:
    first, last = start.start_mark, (end or start).end_mark
    return Span(first.line + 1, first.column + 1, last.line + 1, last.column + 1)


def _events(text: str) -> Iterator[Any]:
    parser = _Parser(text)
    try:
        while parser.check_event():
            yield parser.get_event()
    finally:
        parser.dispose()


def read_document(text: str, file: str) -> Document:
    """Reads a text; whatever is wrong with it is in the document's `problems`."""
    document = Document(file=file, text=text)
    text = text.removeprefix("\ufeff")
    try:
        document._root = _Composer(document, _events(text)).document()
        if document._root is not None:
            document.data = document._convert(document._root, (), ())
    except yaml.YAMLError as error:
        document.problems.append(_syntax_problem(document, error))
    except _Unusable as error:
        document.problems.append(document._problem_at(error.span, error.message, error.hint))
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        column = error.start - (text.rfind("\n", 0, error.start) + 1) + 1
        span = Span(line, column, line, column + 1)
        document.problems.append(document._problem_at(span, "the text is not valid Unicode"))
    return document


def _syntax_problem(document: Document, error: yaml.YAMLError) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        reason = error.problem or error.context or "cannot be read"
        line, column = (mark.line, mark.column) if mark is not None else (0, 0)
        span = Span(line + 1, column + 1, line + 1, column + 2)
        started = error.context_mark
        context = ""
        if error.context and started is not None and started.line != line:
            context = f" ({error.context} that starts on line {started.line + 1})"
        hint = None
        lines = document.text.splitlines()
        if (
            line < len(lines)
            and "\t" in lines[line][: len(lines[line]) - len(lines[line].lstrip())]
        ):
            hint = "the line is indented with a tab: YAML wants spaces"
        return document._problem_at(span, f"invalid YAML: {reason}{context}", hint)
    span = Span(1, 1, 1, 1)
    position = getattr(error, "position", None)
    if isinstance(position, int):
        before = document.text[:position]
        line = before.count("\n") + 1
        span = Span(line, position - (before.rfind("\n") + 1) + 1, line, position)
    reason = getattr(error, "reason", None) or "it cannot be read"
    return document._problem_at(span, f"invalid YAML: {reason}")


def dump_yaml(data: Any) -> str:
    """Plain values as YAML text, keys in their order, that `read_document` reads back equal."""
    text: str = yaml.dump(
        data,
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=False,
        allow_unicode=True,
        width=100,
    )
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes each string that either YAML 1.1 or 1.2 would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    looks_like_number = bool(text) and text[0] in "-+.0123456789" and _number(text) != text
    has_controls = not all(c.isprintable() or c == "\n" for c in text)
    style = None
    if looks_like_number or has_controls:
        style = '"'
    elif "\n" in text and text.strip() == text.rstrip("\n"):
        style = "|"
    return dumper.represent_scalar(_TAG + "str", text, style=style)


_Dumper.add_representer(str, _represent_text)
