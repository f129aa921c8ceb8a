"""Arguments and results of the operations of the REST API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from dora_config.cluster.fleet import Rollout
from dora_config.dataflow.fields import EnvNameField
from dora_config.protocol.control import EndedDataflow
from dora_config.protocol.envelope import Message
from dora_config.protocol.holds import HOLD_LIMIT
from dora_config.protocol.runner import ShownState

# ------------------------------------------------------------------------------- arguments


class Arguments(BaseModel):
    """Parameters of the path and the query, or of the path and the JSON body."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_as_list)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Grace = Annotated[
    Seconds | None, Field(description="Seconds from STOP to SIGTERM; SIGKILL follows later.")
]
Force = Annotated[bool, Field(description="Kill the nodes at once.")]
DataflowText = Annotated[str, Field(description="UUID or name of a dataflow.")]
OnlyDataflow = Annotated[
    str | None,
    Field(description="UUID or name; may be omitted when only one dataflow is running."),
]
NodeText = Annotated[str, Field(description="Id of a node.")]


class NoArguments(Arguments):
    pass


class DataflowFilter(Arguments):
    status: Annotated[
        Literal["running", "finished", "failed"] | None,
        Field(description="`running`: not ended."),
    ] = None
    name: Annotated[str | None, Field(description="Only names that contain this text.")] = None


class OneDataflow(Arguments):
    dataflow: DataflowText


class StartDataflowFile(Arguments):
    descriptor: Annotated[
        str | dict[str, Any],
        Field(description="The dataflow: the text of a YAML file, or its content as an object."),
    ]
    directory: Annotated[
        str,
        Field(
            description="Absolute folder on the coordinator's machine: base of relative paths, "
            "modules and types. Without it, nodes run in a folder of their daemon."
        ),
    ] = ""
    name: Annotated[str | None, Field(description="Name of the dataflow.")] = None
    env: Annotated[
        dict[EnvNameField, Annotated[str, Field(pattern=r"^[^\x00]*$")]],
        Field(description="Environment variables of all nodes, and values of `$NAME` in it."),
    ] = Field(default_factory=dict)
    offline: Annotated[
        Literal["run", "wait"],
        Field(
            description="What a machine does with its nodes after a boot while the coordinator is "
            "away: start them alone, or wait."
        ),
    ] = "run"


class FleetDataflowFile(StartDataflowFile):
    machines: Annotated[
        tuple[str, ...] | None,
        Field(description="One copy on each of these machines, named `NAME@MACHINE`."),
    ] = None
    labels: Annotated[
        dict[str, str] | None,
        Field(description="Or one copy on every machine with these labels."),
    ] = None
    params: Annotated[dict[str, dict[str, Any]], Field(description="Parameters by node.")] = Field(
        default_factory=dict
    )


class FleetFile(Arguments):
    dataflows: Annotated[
        dict[str, FleetDataflowFile], Field(description="What the fleet should run, by name.")
    ]
    rollout: Annotated[
        Rollout, Field(description="As in a cluster file, with all times in seconds.")
    ] = Rollout()
    only: Annotated[Texts, Field(description="Change only these dataflows (repeatable).")] = ()


By = Annotated[str, Field(description="Who asks, for the history.")]


class ApplyFleetFile(FleetFile):
    generation: Annotated[
        int, Field(description="`generation` of the diff; refused if another was applied since.")
    ]
    by: By = "REST API"
    force: Annotated[bool, Field(description="Do not wait for nodes that hold updates.")] = False


class FleetRollBack(Arguments):
    to: Annotated[int | None, Field(description="A generation; by default the one before.")] = None
    by: By = "REST API"


class FleetOperator(Arguments):
    by: By = "REST API"


class StopOne(Arguments):
    dataflow: DataflowText
    grace: Grace = None
    force: Force = False


class StopSome(Arguments):
    dataflow: OnlyDataflow = None
    all: Annotated[bool, Field(description="All running dataflows.")] = False
    grace: Grace = None
    force: Force = False


class RestartOnly(Arguments):
    dataflow: OnlyDataflow = None
    grace: Grace = None
    force: Force = False


class MachineFilter(Arguments):
    connected: Annotated[
        bool | None, Field(description="`true`: only connected machines; `false`: only others.")
    ] = None
    label: Annotated[
        Texts, Field(description="`KEY=VALUE`; only machines with this label (repeatable).")
    ] = ()


class OneMachine(Arguments):
    machine: Annotated[str, Field(description="Id of the machine's daemon.")]


class NodeFilter(Arguments):
    dataflow: Annotated[
        str | None, Field(description="UUID or name; by default all running dataflows.")
    ] = None
    machine: Annotated[str | None, Field(description="Only nodes on this machine.")] = None
    status: Annotated[ShownState | None, Field(description="Only nodes in this state.")] = None


class OneNode(Arguments):
    node: NodeText
    dataflow: OnlyDataflow = None


class ChangeNodeArguments(OneNode):
    hold_limit: Annotated[
        Seconds, Field(description="Seconds to wait while the node holds updates.")
    ] = HOLD_LIMIT
    force: Annotated[bool, Field(description="Do not wait for a node that holds updates.")] = False


class StopNodeArguments(ChangeNodeArguments):
    grace: Annotated[Seconds, Field(description="Seconds from STOP to SIGTERM.")] = 10.0


class RestartNodeArguments(ChangeNodeArguments):
    grace: Annotated[Seconds, Field(description="Seconds from STOP to SIGTERM.")] = 5.0


# --------------------------------------------------------------------------------- results


class ChangedNode(Message):
    node: str


class ErrorBody(Message):
    """Body of every answer with a status of 400 and above."""

    error: str
    """A sentence: what is wrong, where, and the remedy."""
    code: str
    """One word for programs, such as `not_found`."""
    ended: EndedDataflow | None = None
    """Known results of the nodes, after a start that failed on a daemon."""
