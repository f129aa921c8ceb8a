"""Models of `dataflows` and `rollout`, in a cluster file or a file of their own; pure."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from dora_config.dataflow.fields import (
    SCALAR_TYPES,
    EnvNameField,
    LabelsField,
    MachineIdsField,
    NodeIdField,
    ShortForm,
    Text,
    TextField,
    Written,
    env_text,
    optional,
    wrong,
)
from dora_config.errors import Problem
from dora_config.frozen import Frozen
from dora_config.yaml.document import KeyPath, Place
from dora_config.yaml.quantities import check_seconds, parse_duration
from dora_config.yaml.wording import show

DEFAULT_HEALTHY = 10.0
"""Seconds for which a machine must be healthy before the next batch."""
DEFAULT_DEADLINE = 300.0
"""Seconds for a machine to become healthy."""
_DATAFLOW_NAME = r"^[^@\x00-\x1f\x7f]{1,128}$"
_BATCH_PATTERN = r"^[1-9][0-9]?%$|^100%$"


def _name(value: str) -> str:
    if not re.fullmatch(_DATAFLOW_NAME, value) or not value.isprintable():
        raise wrong(f"invalid name {value[:40]!r}: expected 1 to 128 printable characters, no '@'")
    return value


def not_empty(machines: tuple[Any, ...]) -> tuple[Any, ...]:
    if not machines:
        raise wrong("expected at least one machine")
    return machines


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


NameField = Annotated[
    Text,
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
TextValueField = Annotated[str, BeforeValidator(env_text), WithJsonSchema({"type": SCALAR_TYPES})]


class FleetMachines(Written):
    """Machines that get one copy each of a dataflow; a list of ids is its short form."""

    ids: Annotated[MachineIdsField, AfterValidator(not_empty)] | None = optional("Machines by id.")
    labels: LabelsField | None = optional("Every machine with all of these labels.")


MachinesField = Annotated[FleetMachines, ShortForm("ids", list)]


class FleetDataflow(Written):
    """One dataflow of a fleet."""

    file: TextField = Field(description="Dataflow file, relative to this file.")
    machines: MachinesField | None = optional(
        "One copy on each of these machines, named `NAME@MACHINE`: a list of ids, or `labels`. "
        "Without it, nodes are placed by their `deploy`."
    )
    env: dict[EnvNameField, TextValueField] = optional(
        "Environment variables of all nodes; the values of a node itself take precedence.", {}
    )
    params: dict[NodeIdField, dict[str, Any]] = optional(
        "Parameters by node. Parameters that the file does not name are left as they are.", {}
    )
    offline: Literal["run", "wait"] = optional(
        "What a machine does with its nodes after a boot without the coordinator (default run).",
        "run",
    )


HealthyField = Annotated[
    DurationField,
    Field(
        description="Time for which all nodes of a machine must be ready, without a restart, "
        f"before the next batch begins (default {DEFAULT_HEALTHY:g}s)."
    ),
]
OnFailureField = Annotated[
    Literal["rollback", "pause"],
    Field(
        description="What happens then: return to the previous generation (default), or wait for "
        "an operator."
    ),
]


class Rollout(Frozen):
    """Settings of a roll-out; times in seconds."""

    first: MachineIdsField = optional("Machines that change first.", ())
    then: BatchField = optional(
        "Machines that change at the same time after that: a number, or a share such as 25% "
        "(default: all).",
        "100%",
    )
    healthy: HealthyField = 0.0
    check: TextField | None = optional(
        "Shell command that must succeed as well, run on the coordinator's machine with "
        "DORA_MACHINE. `up` and `install` permit it; `dora coordinator` with --set fleet_checks=1."
    )
    deadline: DurationField = optional(
        f"Time for a machine to become healthy (default {DEFAULT_DEADLINE:g}s).", DEFAULT_DEADLINE
    )
    max_failed: Annotated[int, Field(ge=1)] = optional(
        "Number of machines that may fail before the roll-out ends (default 1: the first failure).",
        1,
    )
    on_failure: OnFailureField = "pause"

    def for_return(self) -> Rollout:
        """Return the settings for a return to the state before a failure: all machines at once."""
        return Rollout(deadline=self.deadline)

    def batch_size(self, machines: int) -> int:
        """Return how many of ``machines`` change at the same time."""
        if isinstance(self.then, int):
            return self.then
        return max(1, math.ceil(machines * int(self.then.removesuffix("%")) / 100))

    def batches(self, units: Sequence[str]) -> list[list[str]]:
        """Return the batches of units that change together, in order: `first`, then the others."""
        first = [unit for unit in self.first if unit in units]
        rest = [unit for unit in units if unit not in first]
        size = self.batch_size(len(units))
        chunks = [rest[start : start + size] for start in range(0, len(rest), size)]
        return [first, *chunks] if first else chunks


class WrittenRollout(Rollout, Written):
    """`rollout` of a file; its defaults differ from those of `Rollout`."""

    healthy: HealthyField = DEFAULT_HEALTHY
    on_failure: OnFailureField = "rollback"


class DataflowsFile(Written):
    """A file of only `dataflows` and `rollout`, beside a cluster file."""

    dataflows: dict[NameField, FleetDataflow] = Field(
        description="What the machines run, by name (`dora cluster apply`)."
    )
    rollout: WrittenRollout | None = optional("How a change of `dataflows` reaches the machines.")


def fleet_problems(
    dataflows: Mapping[str, FleetDataflow], rollout: Rollout | None, root: Place
) -> Iterator[Problem]:
    """Yield problems between the fields of `dataflows` and of `rollout`."""
    for name, one in dataflows.items():
        if one.machines is None:
            continue
        place = root.at("dataflows", name, "machines")
        if (one.machines.ids is None) == (one.machines.labels is None):
            message = "expected a list of machine ids, or `labels: {KEY: VALUE}`"
            yield place.problem(message, at_key=True)
    if rollout is not None and rollout.deadline <= rollout.healthy:
        deadline, healthy = f"{rollout.deadline:g} s", f"{rollout.healthy:g} s"
        message = f"`deadline` ({deadline}) must be longer than `healthy` ({healthy})"
        field = "deadline" if "deadline" in rollout.model_fields_set else "healthy"
        yield root.at("rollout", field).problem(message, at_key=True)


def unknown_machines(
    dataflows: Mapping[str, FleetDataflow],
    rollout: Rollout | None,
    root: Place,
    known: Collection[str],
    where: str,
) -> Iterator[Problem]:
    """Yield a problem for each named machine that does not exist in ``where``."""
    named: list[tuple[KeyPath, str]] = []
    for name, one in dataflows.items():
        path: KeyPath = ("dataflows", name, "machines")
        chosen = root.document.data["dataflows"][name].get("machines")
        if isinstance(chosen, dict):
            path = (*path, "ids")
        ids = one.machines.ids if one.machines is not None else None
        named += [((*path, index), machine) for index, machine in enumerate(ids or ())]
    first = rollout.first if rollout is not None else ()
    named += [(("rollout", "first", index), machine) for index, machine in enumerate(first)]
    for path, machine in named:
        if machine not in known:
            message = f'no machine "{machine}"; machines of {where}: {", ".join(known) or "none"}'
            yield root.at(*path).problem(message)
