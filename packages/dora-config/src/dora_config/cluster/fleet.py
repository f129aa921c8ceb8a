"""Models of `dataflows` and `rollout`, in a cluster file or a file of their own; pure."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from dora_config.dataflow.fields import (
    SCALAR_TYPES,
    EnvNameField,
    LabelsField,
    MachineIdField,
    NodeIdField,
    TextField,
    Written,
    optional,
    wrong,
)
from dora_config.frozen import Frozen
from dora_config.yaml.findings import Finding, show
from dora_config.yaml.quantities import check_seconds, parse_duration
from dora_config.yaml.scalars import for_a_program

DEFAULT_HEALTHY = 10.0
DEFAULT_DEADLINE = 300.0
_DATAFLOW_NAME = r"^[^@\x00-\x1f\x7f]{1,128}$"
_BATCH_PATTERN = r"^[1-9][0-9]?%$|^100%$"


def _name(value: str) -> str:
    if not re.fullmatch(_DATAFLOW_NAME, value) or not value.isprintable():
        raise wrong(f"invalid name {value[:40]!r}: expected 1 to 128 printable characters, no '@'")
    return value


def _duration(value: Any) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(f"expected a duration such as 30s or 5m, found {show(value)}")
    return check_seconds(float(value))


def _batch(value: Any) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if isinstance(value, str) and re.fullmatch(_BATCH_PATTERN, value):
        return value
    raise wrong(f"expected a number of machines or a share such as 25%, found {show(value)}")


def _text(value: Any) -> str:
    if not isinstance(value, bool | int | float | str):
        raise wrong(f"expected a text, number or boolean, found {show(value)}")
    text = for_a_program(value)
    if "\0" in text:
        raise wrong("the value of an environment variable must not contain a NUL character")
    return text


NameField = Annotated[
    str,
    AfterValidator(_name),
    WithJsonSchema({"type": "string", "pattern": r"^[^@]{1,128}$"}),
]
DurationField = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]}),
]
BatchField = Annotated[
    int | str,
    BeforeValidator(_batch),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": _BATCH_PATTERN},
            ]
        }
    ),
]
TextValueField = Annotated[str, BeforeValidator(_text), WithJsonSchema({"type": SCALAR_TYPES})]


class WrittenMachines(Written):
    """Machines that get one copy each of a dataflow; a list of ids is its short form."""

    ids: list[MachineIdField] | None = optional("Machines by id.")
    labels: LabelsField | None = optional("Every machine with all of these labels.")


def _machines(value: Any) -> Any:
    return {"ids": value} if isinstance(value, list) else value


MachinesField = Annotated[WrittenMachines, BeforeValidator(_machines)]


def _allow_list(schema: dict[str, Any]) -> None:
    """Add the short form to the JSON Schema of `WrittenMachines`."""
    ids = schema["properties"]["ids"]["anyOf"][0]
    long_form = {key: schema[key] for key in list(schema) if key != "title"}
    for key in long_form:
        del schema[key]
    schema["anyOf"] = [dict(ids), long_form]


WrittenMachines.model_config["json_schema_extra"] = _allow_list


class WrittenFleetDataflow(Written):
    """An entry of `dataflows` as written."""

    file: TextField = Field(description="Dataflow file, relative to this file.")
    machines: MachinesField | None = optional(
        "One copy on each of these machines, named `NAME@MACHINE`: a list of ids, or `labels`. "
        "Without it, nodes are placed by their `deploy`."
    )
    env: dict[EnvNameField, TextValueField] | None = optional(
        "Environment variables of all nodes; the values of a node itself take precedence."
    )
    params: dict[NodeIdField, dict[str, Any]] | None = optional(
        "Parameters by node. Parameters that the file does not name are left as they are."
    )
    offline: Literal["run", "wait"] | None = optional(
        "What a machine does with its nodes after a boot without the coordinator (default run)."
    )


class WrittenRollout(Written):
    """`rollout` as written: how a change reaches the machines."""

    first: list[MachineIdField] | None = optional("Machines that change first.")
    then: BatchField | None = optional(
        "Machines that change at the same time after that: a number, or a share such as 25% "
        "(default: all)."
    )
    healthy: DurationField | None = optional(
        f"Time for which all nodes of a machine must be ready, without a restart, before the next "
        f"batch begins (default {DEFAULT_HEALTHY:g}s)."
    )
    check: TextField | None = optional(
        "Shell command that must succeed as well, run on the coordinator's machine with "
        "DORA_MACHINE and DORA_GENERATION (only with `dora coordinator --set fleet_checks=1`)."
    )
    deadline: DurationField | None = optional(
        f"Time for a machine to become healthy (default {DEFAULT_DEADLINE:g}s)."
    )
    max_failed: Annotated[int, Field(ge=1)] | None = optional(
        "Number of machines that may fail before the roll-out ends (default 1: the first failure)."
    )
    on_failure: Literal["rollback", "pause"] | None = optional(
        "What happens then: return to the previous generation (default), or wait for an operator."
    )


class FleetDataflow(Frozen):
    """One dataflow of a fleet; `ids` and `labels` None: placed by its nodes."""

    file: str
    ids: tuple[str, ...] | None = None
    labels: dict[str, str] | None = None
    env: dict[str, str] = Field(default_factory=dict)
    params: dict[str, dict[str, Any]] = Field(default_factory=dict)
    offline: Literal["run", "wait"] = "run"


class Rollout(Frozen):
    """How a change reaches the machines. Times in seconds."""

    first: tuple[str, ...] = ()
    then: int | str = "100%"
    healthy: float = 0.0
    check: str | None = None
    deadline: float = DEFAULT_DEADLINE
    max_failed: int = 1
    on_failure: Literal["rollback", "pause"] = "pause"

    def batch_size(self, machines: int) -> int:
        """Return how many of ``machines`` change at the same time."""
        if isinstance(self.then, int):
            return self.then
        return max(1, math.ceil(machines * int(self.then.removesuffix("%")) / 100))

    def batches(self, units: Sequence[str]) -> list[list[str]]:
        """Return what changes together, in order: `first`, then the others."""
        first = [unit for unit in self.first if unit in units]
        rest = [unit for unit in units if unit not in first]
        size = self.batch_size(len(units))
        chunks = [rest[start : start + size] for start in range(0, len(rest), size)]
        return [first, *chunks] if first else chunks


def fleet_findings(data: dict[str, Any], machines: Collection[str] | None) -> Iterator[Finding]:
    """Yield problems between fields; ``machines`` None: the machines are not known."""
    if machines is not None:
        yield from unknown_machines(data, machines, "this file")
    dataflows = data.get("dataflows")
    for name, entry in dataflows.items() if isinstance(dataflows, dict) else ():
        chosen = entry.get("machines") if isinstance(entry, dict) else None
        if isinstance(chosen, dict) and (chosen.get("ids") is None) == (
            chosen.get("labels") is None
        ):
            message = "expected a list of machine ids, or `labels: {KEY: VALUE}`"
            yield Finding(("dataflows", name, "machines"), message, at_key=True)
        if chosen == []:
            message = "expected at least one machine"
            yield Finding(("dataflows", name, "machines"), message, at_key=True)
    rollout = data.get("rollout")
    if not isinstance(rollout, dict):
        return
    try:
        healthy = _duration(rollout.get("healthy", DEFAULT_HEALTHY))
        deadline = _duration(rollout.get("deadline", DEFAULT_DEADLINE))
    except (ValueError, TypeError):
        return  # reported by the field
    if deadline <= healthy:
        message = f"`deadline` ({deadline:g} s) must be longer than `healthy` ({healthy:g} s)"
        field = "deadline" if "deadline" in rollout else "healthy"
        yield Finding(("rollout", field), message, at_key=True)


def unknown_machines(data: dict[str, Any], known: Collection[str], where: str) -> Iterator[Finding]:
    """Yield the machines that are named but do not exist; ``where``: what lists them."""
    for path, machine in _named_machines(data):
        if isinstance(machine, str) and machine not in known:
            listed = ", ".join(known) or "none"
            yield Finding(path, f'no machine "{machine}"; machines of {where}: {listed}')


def _named_machines(data: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], object]]:
    """Yield each machine that a file names, and its place."""
    dataflows, rollout = data.get("dataflows"), data.get("rollout")
    for name, entry in dataflows.items() if isinstance(dataflows, dict) else ():
        chosen = entry.get("machines") if isinstance(entry, dict) else None
        path: tuple[str | int, ...] = ("dataflows", name, "machines")
        if isinstance(chosen, dict):
            chosen, path = chosen.get("ids"), (*path, "ids")
        for index, machine in enumerate(chosen if isinstance(chosen, list) else ()):
            yield (*path, index), machine
    first = rollout.get("first") if isinstance(rollout, dict) else None
    for index, machine in enumerate(first if isinstance(first, list) else ()):
        yield ("rollout", "first", index), machine


def resolve_fleet(
    dataflows: dict[str, WrittenFleetDataflow] | None, rollout: WrittenRollout | None
) -> tuple[dict[str, FleetDataflow], Rollout]:
    """Return both with their defaults."""
    found = {}
    for name, one in (dataflows or {}).items():
        values = one.model_dump(exclude_none=True, exclude={"machines"})
        chosen = {} if one.machines is None else one.machines.model_dump(exclude_none=True)
        found[name] = FleetDataflow(**values, **chosen)
    if rollout is None:
        return found, Rollout()
    values = rollout.model_dump(exclude_none=True)
    return found, Rollout(**{"healthy": DEFAULT_HEALTHY, "on_failure": "rollback", **values})
