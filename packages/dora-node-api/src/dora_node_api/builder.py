"""Write dataflow files in Python: `DataflowBuilder`, its nodes, outputs and operators."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dora_node_api.queue_policy import QueuePolicy

__all__ = ["DataflowBuilder", "Node", "Operator", "Output"]


# YAML reads such text as a string without quotes.
_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+-]*(?: [A-Za-z0-9_./+=-]+)*\Z")
_RESERVED = frozenset(
    {"null", "true", "false", "yes", "no", "on", "off", "y", "n", ".inf", ".nan", "~"}
)


def to_yaml(value: Any) -> str:
    """Return `value` (dicts, lists, str, numbers, bool, None) as a YAML document.

    Raises TypeError for anything else.
    """
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _under(f"{_scalar(str(key))}:", item)
    elif isinstance(value, list | tuple) and value:
        for item in value:
            if isinstance(item, Mapping | list | tuple) and item:
                first, *rest = _lines(item)
                yield f"- {first}"
                yield from (f"  {line}" for line in rest)
            else:
                yield f"- {_scalar(item)}"
    else:
        yield _scalar(value)


def _under(head: str, item: Any) -> Iterable[str]:
    if isinstance(item, Mapping | list | tuple) and item:
        yield head
        yield from (f"  {line}" for line in _lines(item))
    else:
        yield f"{head} {_scalar(item)}"


def _scalar(value: Any) -> str:
    match value:
        case str():
            return _string(value)
        case float() if not math.isfinite(value):
            return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
        case float() if "." not in (text := repr(value)):
            return text.replace("e", ".0e")  # YAML 1.1 requires a dot with an exponent
        case None | bool() | int() | float() | dict() | list() | tuple():
            return json.dumps(value)  # only empty containers reach this
        case _:
            kind = type(value).__name__
            raise TypeError(f"{kind} cannot be written to a dataflow file: {value!r}")


def _string(text: str) -> str:
    if _PLAIN.match(text) and text.lower() not in _RESERVED and not text.startswith("."):
        return text
    # JSON's strings are YAML's double-quoted ones, except for characters that YAML must escape.
    quoted = json.dumps(text, ensure_ascii=False)
    return re.sub(r"[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]", _escape, quoted)


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


class DataflowBuilder:
    """A dataflow to be written. `name` documents the program; files have no such key."""

    def __init__(self, name: str = "dora-dataflow") -> None:
        self.name = name
        self.nodes: list[BuilderNode] = []

    def add_node(self, id: str, **extra: Any) -> BuilderNode:
        """Add a node; `extra` are further keys of its entry in the dataflow file."""
        node = BuilderNode(id, **extra)
        self.nodes.append(node)
        return node

    def to_dict(self) -> dict[str, Any]:
        """Return the dataflow as plain values."""
        return {"nodes": [node.to_dict() for node in self.nodes]}

    def to_yaml(self, path: str | Path | None = None) -> str | None:
        """Return the dataflow as YAML text; with `path`, write it there and return None."""
        text = to_yaml(self.to_dict())
        if path is None:
            return text
        Path(path).write_text(text, encoding="utf-8")
        return None

    def __enter__(self) -> DataflowBuilder:
        return self

    def __exit__(self, *_error: object) -> None:
        return None


class Output:
    """An output of a node; its `str()` is the source of inputs that read it."""

    def __init__(self, node: BuilderNode, output_id: str) -> None:
        self.node = node
        self.output_id = output_id

    def __str__(self) -> str:
        return f"{self.node.id}/{self.output_id}"

    def __repr__(self) -> str:
        return f"Output({str(self)!r})"


class BuilderNode:
    """A node of a `DataflowBuilder`. The setters return the node for chaining."""

    def __init__(self, id: str, **extra: Any) -> None:
        self.id = id
        self.config: dict[str, Any] = {"id": id, **extra}
        self.operators: list[Operator] = []

    def path(self, path: str) -> BuilderNode:
        """Set the program, or `dynamic`."""
        self.config["path"] = path
        return self

    def args(self, args: str) -> BuilderNode:
        """Set the arguments of the program."""
        self.config["args"] = args
        return self

    def env(self, env: Mapping[str, Any]) -> BuilderNode:
        """Set the environment of the program."""
        self.config["env"] = dict(env)
        return self

    def build(self, build_command: str) -> BuilderNode:
        """Set the build command of the node."""
        self.config["build"] = build_command
        return self

    def git(
        self, url: str, branch: str | None = None, tag: str | None = None, rev: str | None = None
    ) -> BuilderNode:
        """Set the repository of the node's source."""
        self.config["git"] = url
        for key, value in (("branch", branch), ("tag", tag), ("rev", rev)):
            if value:
                self.config[key] = value
        return self

    def add_operator(self, operator: Operator) -> BuilderNode:
        """Run an operator in this node."""
        self.operators.append(operator)
        return self

    def add_output(self, output_id: str) -> Output:
        """Declare an output; declaring it again changes nothing."""
        outputs = self.config.setdefault("outputs", [])
        if output_id not in outputs:
            outputs.append(output_id)
        return Output(self, output_id)

    def add_input(
        self,
        input_id: str,
        source: str | Output | BuilderNode,
        queue_size: int | None = None,
        queue_policy: str | None = None,
    ) -> BuilderNode:
        """Connect an input to a source: `node/output`, an Output, or a node with one output.

        Raises ValueError for a queue_size below 1, an unknown queue_policy or a source without an
        output.
        """
        if queue_policy is not None and queue_policy not in list(QueuePolicy):
            expected = " or ".join(QueuePolicy)
            raise ValueError(f"queue_policy must be {expected}, not {queue_policy!r}")
        if queue_size is not None and (isinstance(queue_size, bool) or queue_size < 1):
            raise ValueError(f"queue_size must be at least 1, not {queue_size!r}")
        written = _source(source)
        options: dict[str, Any] = {"source": written}
        if queue_size is not None:
            options["queue_size"] = queue_size
        if queue_policy is not None:
            options["queue_policy"] = str(queue_policy)
        inputs = self.config.setdefault("inputs", {})
        inputs[input_id] = options if len(options) > 1 else written
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the node's entry as plain values."""
        entry = dict(self.config)
        if self.operators:
            entry["operators"] = [operator.to_dict() for operator in self.operators]
        return entry


Node = BuilderNode
"""The name that programs import; `dora_node_api.Node` is the node itself."""


def _source(source: object) -> str:
    if isinstance(source, str | Output):
        return str(source)
    config = getattr(source, "config", None)
    outputs = config.get("outputs", []) if isinstance(config, dict) else []
    if len(outputs) == 1:
        return f"{getattr(source, 'id', '')}/{outputs[0]}"
    raise ValueError(
        f"invalid source {source!r}; pass `node/output`, an Output, or a node with exactly one"
        f" output (this one has {len(outputs)})"
    )


class Operator:
    """An operator of a runtime node."""

    def __init__(
        self,
        id: str,
        name: str | None = None,
        description: str | None = None,
        build: str | None = None,
        python: str | None = None,
        shared_library: str | None = None,
        send_stdout_as: str | None = None,
    ) -> None:
        self.id = id
        given = {
            "name": name,
            "description": description,
            "build": build,
            "python": python,
            "shared-library": shared_library,
            "send_stdout_as": send_stdout_as,
        }
        self.config: dict[str, Any] = {
            "id": id,
            **{key: value for key, value in given.items() if value},
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the operator's entry as plain values."""
        return dict(self.config)
