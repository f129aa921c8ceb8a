"""Types of messages, and the check that outputs fit inputs; pure.

A type is a name such as `std/media/v1/Image`, with optional parameters in brackets:
`std/media/v1/Image[encoding=rgb8]`. A missing parameter matches every value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dora_config.dataflow.modules import FlatNode
from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedInput, ResolvedNode
from dora_config.dataflow.sources import OutputSource, TimerSource
from dora_config.errors import Problem, Severity
from dora_config.yaml.document import Place
from dora_config.yaml.suggest import closest_name, did_you_mean

_URN = re.compile(r"([^\[\]\s]+)(?:\[([^\[\]]*)\])?")
_PARAMETER = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*([^\s,=\[\]]+)\s*")
_MAX_WIDENING = 3
"""Most conversions in a row, such as UInt8 to UInt32 to UInt64."""

_NUMBERS = ("Float32", "Float64", "Int32", "Int64", "UInt8", "UInt32", "UInt64")

ANYTHING = "std/core/v1/Bytes"
TIMER_TYPE = "std/core/v1/UInt64"
LOG_TYPE = "std/core/v1/String"

_WIDENING = (
    ("std/core/v1/UInt8", "std/core/v1/UInt32"),
    ("std/core/v1/UInt32", "std/core/v1/UInt64"),
    ("std/core/v1/Int32", "std/core/v1/Int64"),
    ("std/core/v1/Float32", "std/core/v1/Float64"),
)


@dataclass(frozen=True)
class TypeDefinition:
    """One type: Arrow type, fields of a Struct, names of parameters (None: any name)."""

    name: str
    arrow: str
    fields: Mapping[str, str] = field(default_factory=dict)
    parameters: frozenset[str] | None = frozenset()


@dataclass(frozen=True)
class TypeName:
    """A type in the declaration of a port."""

    base: str
    parameters: Mapping[str, str]


def _structs(category: str, types: Mapping[str, tuple[str, str]]) -> Iterator[TypeDefinition]:
    for name, (fields, parameters) in types.items():
        pairs = (item.partition(":")[::2] for item in fields.split())
        yield TypeDefinition(
            f"std/{category}/v1/{name}", "Struct", dict(pairs), frozenset(parameters.split())
        )


def _standard_types() -> Iterator[TypeDefinition]:
    arrow_types = {"String": "Utf8", "Bytes": "LargeBinary", "Bool": "Boolean"}
    for name in (*_NUMBERS, *arrow_types):
        yield TypeDefinition(f"std/core/v1/{name}", arrow_types.get(name, name))
    yield from _structs(
        "math",
        {
            "Vector3": ("x:Float64 y:Float64 z:Float64", ""),
            "Quaternion": ("x:Float64 y:Float64 z:Float64 w:Float64", ""),
            "Pose": ("position:Vector3 orientation:Quaternion", ""),
            "Transform": ("translation:Vector3 rotation:Quaternion", ""),
        },
    )
    lists = "positions:List<Float64> velocities:List<Float64> efforts:List<Float64>"
    yield from _structs(
        "control",
        {
            "Twist": ("linear:Vector3 angular:Vector3", ""),
            "JointState": (f"names:List<Utf8> {lists}", ""),
            "Odometry": ("pose:Pose twist:Twist frame_id:Utf8", ""),
        },
    )
    yield from _structs(
        "media",
        {
            "Image": ("width:UInt32 height:UInt32 encoding:Utf8 data:LargeBinary", "encoding"),
            "PointCloud": ("width:UInt32 height:UInt32 data:LargeBinary", "point_type"),
            "AudioFrame": (
                "sample_rate:UInt32 channels:UInt32 data:LargeBinary",
                "sample_type channels sample_rate",
            ),
        },
    )
    yield TypeDefinition(
        "std/media/v1/CompressedImage", "LargeBinary", parameters=frozenset({"format"})
    )
    box = "x:Float32 y:Float32 w:Float32 h:Float32 confidence:Float32 label:Utf8"
    yield from _structs(
        "vision",
        {
            "BoundingBox": (box, ""),
            "Detection": ("boxes:List<BoundingBox>", ""),
            "Segmentation": ("width:UInt32 height:UInt32 mask:LargeBinary", ""),
        },
    )


STANDARD_TYPES: dict[str, TypeDefinition] = {one.name: one for one in _standard_types()}


_SHORT = {name.rpartition("/")[2]: one for name, one in STANDARD_TYPES.items() if one.fields}
"""Types that fields can have, by their short names."""


def structure(text: str) -> Any:
    """Return the Arrow structure of a standard type, None for any other type.

    The name of an Arrow type such as `UInt32`, a list with the structure of its values, or a
    mapping of the fields.
    """
    found = STANDARD_TYPES.get(text.partition("[")[0])
    if found is None or found.name == ANYTHING:
        return None
    return _of_fields(found) if found.fields else found.arrow


def _of_fields(one: TypeDefinition) -> dict[str, Any]:
    return {name: _of_field(kind) for name, kind in one.fields.items()}


def _of_field(kind: str) -> Any:
    if kind.startswith("List<"):
        return [_of_field(kind.removeprefix("List<").removesuffix(">"))]
    return _of_fields(_SHORT[kind]) if kind in _SHORT else kind


def parse_type(text: str) -> TypeName:
    """Parse a type with parameters; raise `ValueError` with a message."""
    match = _URN.fullmatch(text)
    if not match:
        raise ValueError(
            f"invalid type {text!r}: expected a name as in std/media/v1/Image[encoding=rgb8]"
        )
    base, inner = match.groups()
    parameters: dict[str, str] = {}
    for item in inner.split(",") if inner else ():
        parameter = _PARAMETER.fullmatch(item)
        if not parameter:
            raise ValueError(f"invalid type {text!r}: expected parameter=value, found {item!r}")
        parameters[parameter[1]] = parameter[2]
    return TypeName(base, parameters)


class TypeCheck:
    """Checks the ports and then the edges of a dataflow.

    Problems are errors only if `strict_types` is set.
    """

    def __init__(
        self,
        dataflow: ResolvedDataflow,
        root: Place,
        flat: Sequence[FlatNode],
        user_types: Iterable[TypeDefinition] = (),
    ) -> None:
        self._dataflow = dataflow
        self._root = root
        self._flat = flat
        self._library = STANDARD_TYPES | {one.name: one for one in user_types}
        self._severity: Severity = "error" if dataflow.strict_types else "warning"
        self.problems: list[Problem] = []
        self._nodes: dict[str, ResolvedNode] = {}
        for node in dataflow.nodes:
            self._nodes.setdefault(node.id, node)
        rules = [(rule.source, rule.target) for rule in dataflow.type_rules]
        self._widening: dict[str, list[str]] = {}
        for source, target in (*_WIDENING, *rules):
            self._widening.setdefault(source, []).append(target)

    def run(self) -> ResolvedDataflow:
        """Return the dataflow with `data_type` set for inputs with an inferred type."""
        self._rules()
        for node, flat in zip(self._dataflow.nodes, self._flat, strict=True):
            self._declarations(node, flat, "output_types", "outputs", node.outputs)
            self._declarations(node, flat, "input_types", "inputs", tuple(node.inputs))
        nodes = []
        for node, flat in zip(self._dataflow.nodes, self._flat, strict=True):
            inputs = {name: self._edge(node, flat, name, one) for name, one in node.inputs.items()}
            nodes.append(node.model_copy(update={"inputs": inputs}))
        return self._dataflow.model_copy(update={"nodes": tuple(nodes)})

    def _rules(self) -> None:
        for index, rule in enumerate(self._dataflow.type_rules):
            for key, name in (("from", rule.source), ("to", rule.target)):
                if name not in self._library:
                    message = f'type rule {index + 1}: unknown type "{name}"'
                    near = closest_name(name, self._library)
                    self._find(self._root.at("type_rules", index, key), message, near)

    def _declarations(
        self,
        node: ResolvedNode,
        flat: FlatNode,
        group: str,
        ports_name: str,
        ports: tuple[str, ...],
    ) -> None:
        types: Mapping[str, str] = getattr(node, group)
        direction = group.removesuffix("_types")
        for port, text in types.items():
            place = flat.at(group, port)
            if port not in ports:
                message = (
                    f'node "{node.id}": `{group}` contains "{port}", '
                    f"which is not among its {ports_name}"
                )
                self._find(place, message, closest_name(port, ports))
            where = f'node "{node.id}": {direction} "{port}"'
            try:
                declared = parse_type(text)
            except ValueError as error:
                self._find(place, f"{where}: {error}")
                continue
            self._known(place, where, declared)

    def _known(self, place: Place, where: str, declared: TypeName) -> None:
        definition = self._library.get(declared.base)
        if definition is None:
            near = closest_name(declared.base, self._library)
            if near is None:
                last = declared.base.rpartition("/")[2].lower()
                same = [name for name in self._library if name.rpartition("/")[2].lower() == last]
                near = same[0] if same else None
            self._find(place, f'{where}: unknown type "{declared.base}"', near)
            return
        if definition.parameters is None:
            return
        for parameter in declared.parameters:
            if parameter not in definition.parameters:
                known = ", ".join(sorted(definition.parameters)) or "none"
                message = f'{where}: type "{declared.base}" has no parameter "{parameter}"'
                near = closest_name(parameter, definition.parameters)
                self._find(place, f"{message}, expected {known}", near)

    def _find(self, place: Place, message: str, near: str | None = None) -> None:
        problem = place.problem(message, did_you_mean(near), severity=self._severity)
        self.problems.append(problem)

    def _edge(
        self, node: ResolvedNode, flat: FlatNode, name: str, wanted: ResolvedInput
    ) -> ResolvedInput:
        """Check an input and return it with its type, if that is inferred."""
        expected = node.input_types.get(name)
        sent: str | None = LOG_TYPE
        sender = "the logs are"
        match wanted.source:
            case TimerSource():
                sent, sender = TIMER_TYPE, "the timer sends"
            case OutputSource(node=producer_id, output=output) as source:
                producer = self._nodes.get(producer_id)
                sent = producer.output_types.get(output) if producer is not None else None
                sender = f"{source} sends"
                message = None
                if sent is not None and expected is None:
                    message = f"inferred type {sent} of input {node.id}/{name} from output {source}"
                    wanted = wanted.model_copy(update={"data_type": sent})
                elif sent is None and expected is not None:
                    message = (
                        f"inferred type {expected} of output {source} from input {node.id}/{name}"
                    )
                if message is not None:
                    place = flat.at("inputs", name)
                    self.problems.append(place.problem(message, severity="info"))
        if expected is not None and sent is not None:
            self._provided(node, flat, name, expected, sent, sender)
        return wanted

    def _provided(
        self,
        node: ResolvedNode,
        flat: FlatNode,
        name: str,
        expected: str,
        sent: str,
        sender: str,
    ) -> None:
        try:
            source, target = parse_type(sent), parse_type(expected)
        except ValueError:
            return  # reported at the declaration
        if source.base not in self._library or target.base not in self._library:
            return
        if self._fits(source, target):
            return
        message = (
            f'node "{node.id}": type mismatch on input "{name}": '
            f'{sender} "{sent}", but expected "{expected}"{self._missing(source, target)}'
        )
        self._find(flat.at("input_types", name), message)

    def _fits(self, source: TypeName, target: TypeName) -> bool:
        if target.base == ANYTHING:
            return True
        if source.base == target.base:
            shared = source.parameters.keys() & target.parameters.keys()
            return all(source.parameters[key] == target.parameters[key] for key in shared)
        reached = {source.base}
        for _ in range(_MAX_WIDENING):
            reached |= {wider for one in reached for wider in self._widening.get(one, ())}
        return target.base in reached

    def _missing(self, source: TypeName, target: TypeName) -> str:
        have, need = self._library[source.base], self._library[target.base]
        if source.base == target.base or have.arrow != "Struct" or need.arrow != "Struct":
            return ""
        missing = [name for name in need.fields if name not in have.fields]
        different = [
            f"{name} is {have.fields[name]}, not {kind}"
            for name, kind in need.fields.items()
            if name in have.fields and have.fields[name] != kind
        ]
        reasons = [f"missing {', '.join(missing)}"] if missing else []
        reasons.extend(different)
        return f" ({'; '.join(reasons)})" if reasons else ""
