"""Models of a dataflow's YAML, without defaults or expansion; pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, WithJsonSchema

from dora_config.dataflow.compression import CodecName
from dora_config.dataflow.fields import (
    SCALAR_TYPES,
    ArgsField,
    BuildField,
    EnvField,
    FreeTextField,
    InputIdField,
    LabelsField,
    LogLevelField,
    MachineIdField,
    NodeIdField,
    OutputIdField,
    PositiveSecondsField,
    RefusedField,
    SecondsField,
    ShortForm,
    SizeField,
    SourceField,
    Text,
    TextField,
    WarmField,
    Written,
    optional,
    renamed,
    text_schema,
)
from dora_config.dataflow.node_kinds import Block
from dora_config.dataflow.resolved import (
    DEFAULT_QUEUE_SIZE,
    MAX_QUEUE_SIZE,
    CommunicationPattern,
    OutputFraming,
    QueuePolicy,
    RestartPolicy,
)

MAX_ROTATED_FILES = 100
_MAX_CORES = 4096
"""Largest number of a core in `cpu_affinity`."""

ParamField = Annotated[Any, WithJsonSchema({"type": SCALAR_TYPES})]
_CHECKSUM_PATTERN = r"^[0-9a-fA-F]{64}$"
ChecksumField = Annotated[
    Text, Field(pattern=_CHECKSUM_PATTERN), text_schema(_CHECKSUM_PATTERN, minimum=0)
]
RotatedFilesField = Annotated[int, Field(ge=1, le=MAX_ROTATED_FILES)]


DistributeField = Annotated[
    Literal["local", "scp", "http"],
    AfterValidator(lambda value: "http" if value == "scp" else value),
]


class Deploy(Written):
    """Placement of a node."""

    machine: MachineIdField | None = optional("Id of the machine to run on.")
    labels: LabelsField = optional("Labels the machine must have, all of them.", {})
    working_dir: TextField | None = optional(
        "Working directory there, relative to the daemon's own."
    )
    distribute: DistributeField = optional(
        "How the node's files reach the machine; `http` and `scp` mean the same.", "local"
    )


class Debug(Written):
    """Settings for debugging a dataflow."""

    enable_debug_inspection: bool | None = optional(
        "Allows `dora topic echo` and `hz` to read messages."
    )


class TypeRule(Written):
    """A conversion that the type check allows in addition."""

    from_: TextField = Field(alias="from", description="Type of the output.")
    to: TextField = Field(description="Type of the input.")


class Compress(Written):
    """Compression between machines in its long form; the short form is only the codec."""

    codec: CodecName = Field(
        description="`jpeg` or `h264` for pictures, `lz4` or `zstd` for any array."
    )
    quality: Annotated[int, Field(ge=1, le=100)] | None = optional(
        "Quality of `jpeg` (default 85) or `h264` (default 55), up to 100."
    )
    level: Annotated[int, Field(ge=1, le=22)] | None = optional(
        "Effort of `lz4` (up to 12) or `zstd` (up to 22); the default is 1."
    )


class Input(Written):
    """One input in its long form; the short form is only the source."""

    source: SourceField = Field(
        description="`node/output`, `dora/timer/<unit>/<value>` or `dora/logs[/<level>[/<node>]]`."
    )
    queue_size: Annotated[int, Field(ge=0, le=MAX_QUEUE_SIZE)] = optional(
        f"Capacity of the queue (default {DEFAULT_QUEUE_SIZE} messages).", DEFAULT_QUEUE_SIZE
    )
    queue_policy: QueuePolicy = optional(
        "What happens when the queue is full (default drop_oldest).", "drop_oldest"
    )
    input_timeout: SecondsField | None = optional(
        "Seconds without a message after which the input counts as broken."
    )
    compress: Annotated[Compress, ShortForm("codec")] | None = optional(
        "Codec of the messages while they cross to another machine."
    )


InputField = Annotated[Input, ShortForm("source")]
Inputs = dict[InputIdField, InputField]
Outputs = list[OutputIdField]


class PythonSource(Written):
    """The file of a Python operator in its long form."""

    source: TextField
    conda_env: RefusedField = None


LOG_SETTINGS = (
    "send_stdout_as",
    "send_logs_as",
    "min_log_level",
    "max_log_size",
    "max_rotated_files",
)


class ProgramFields(Written):
    """Fields that standard nodes and operators share."""

    name: FreeTextField | None = optional("For display only.")
    description: FreeTextField | None = optional("For display only.")
    inputs: Inputs | None = optional("Sources of inputs, by input id.")
    outputs: Outputs | None = optional("Ids of the node's outputs.")
    input_types: dict[InputIdField, TextField] | None = optional(
        "Types of inputs, such as std/media/v1/Image."
    )
    output_types: dict[OutputIdField, TextField] | None = optional(
        "Types of outputs, such as std/media/v1/Image."
    )
    output_framing: dict[OutputIdField, OutputFraming] | None = optional(
        "Wire format of outputs: raw (default) or arrow-ipc."
    )
    output_metadata: dict[OutputIdField, list[FreeTextField]] | None = optional(
        "Metadata keys that outputs always have."
    )
    pattern: CommunicationPattern | None = optional("Role of the node in a service or action.")
    build: BuildField | None = optional(
        "Commands that prepare the node, one per line, without a shell."
    )
    send_stdout_as: OutputIdField | None = optional(
        "Output on which each printed line is sent, with its newline."
    )
    send_logs_as: OutputIdField | None = optional(
        "Output on which each structured log entry is sent."
    )
    min_log_level: LogLevelField | None = optional("Entries below this level are dropped.")
    max_log_size: SizeField | None = optional(
        "Size at which the log file is rotated, such as 50MB."
    )
    max_rotated_files: RotatedFilesField | None = optional(
        "Rotated log files that are kept (default 5)."
    )


class Operator(ProgramFields):
    """One operator of a runtime node."""

    # an unknown key is only a warning
    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": False})

    id: OutputIdField | None = optional("Required in `operators`.")
    python: Annotated[PythonSource, ShortForm("source")] | None = optional(
        "File with a class `Operator`."
    )
    shared_library: RefusedField = Field(default=None, alias="shared-library")


class Node(ProgramFields):
    """One node with exactly one of `path`, `operator`, `operators`, `module`, or of a plug-in."""

    id: NodeIdField = Field(description="Unique name: letters, digits, '_', '.', '-'.")
    path: TextField | None = optional("File, program, `dynamic`, `shell` or an http(s) URL.")
    path_sha256: ChecksumField | None = optional("Checksum of the file behind a URL.")
    args: ArgsField | None = optional("Arguments, split as a shell would.")
    env: EnvField | None = optional("Environment variables of the node.")
    git: TextField | None = optional("Git repository with the node's code.")
    branch: TextField | None = optional("Branch of the repository.")
    tag: TextField | None = optional("Tag of the repository.")
    rev: TextField | None = optional("Commit of the repository.")
    restart_policy: RestartPolicy | None = optional(
        "When the node is started again (default never)."
    )
    max_restarts: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = optional(
        "Largest number of restarts; 0 (default) means no limit."
    )
    restart_delay: SecondsField | None = optional(
        "Seconds before the first restart; doubles each time."
    )
    max_restart_delay: SecondsField | None = optional("Largest delay in seconds.")
    restart_window: SecondsField | None = optional(
        "Seconds after which the count of restarts is reset."
    )
    health_check_timeout: SecondsField | None = optional(
        "Seconds after which a node is killed if its process cannot run."
    )
    finish_grace_secs: SecondsField | None = optional(
        "Seconds the node may keep running after its inputs ended (default 120)."
    )
    startup_timeout: SecondsField | None = optional(
        "Seconds within which the node must have connected."
    )
    shared_memory_pool_size: SizeField | None = optional(
        "Shared memory for messages of the node, such as 256MB."
    )
    cpu_affinity: list[Annotated[int, Field(ge=0, le=_MAX_CORES)]] | None = optional(
        "Cores the node may run on."
    )
    warm: WarmField | None = optional(
        "Python modules to import before the node is forked, or false to start it as a program."
    )
    deploy: Deploy | None = renamed("deploy", "Where the node runs.")
    operator: Operator | None = optional("The one operator of a runtime node.")
    operators: list[Operator] | None = optional("Operators of a runtime node.")
    module: TextField | None = optional("File with the nodes that replace this one.")
    params: dict[str, ParamField] | None = optional("Values for the module, `$PARAM_<KEY>` inside.")
    hub: RefusedField = None
    _block: Block | None = PrivateAttr(default=None)

    @property
    def block(self) -> Block | None:
        """Return the field of a plug-in's kind of nodes."""
        return self._block

    def with_block(self, block: Block) -> Node:
        """Return the node with the field of a plug-in."""
        copied = self.model_copy()
        copied._block = block
        return copied


class Descriptor(Written):
    """A whole dataflow file."""

    nodes: list[Node] = Field(description="The nodes of the graph.")
    env: EnvField | None = optional("Environment variables of all nodes.")
    deploy: Deploy | None = renamed("deploy", "Placement of nodes without their own.")
    debug: Debug | None = renamed("debug", "Settings for debugging the dataflow.")
    health_check_interval: PositiveSecondsField | None = optional(
        "Seconds between two checks of nodes and inputs (default 5)."
    )
    strict_types: bool | None = optional("Turns warnings about types into errors.")
    exit_when_nodes_finish: bool | None = optional(
        "Ends the dataflow when the remaining nodes read only timers or logs, or wait for each "
        "other without a message for 10 s."
    )
    type_rules: list[TypeRule] | None = optional(
        "Conversions that the type check allows in addition."
    )


class ModuleInterface(Written):
    """Interface of a module to the dataflow that uses it."""

    name: TextField = Field(description="The module's name.")
    description: FreeTextField | None = optional("For display only.")
    inputs: list[InputIdField] | None = optional("Inputs that must be connected.")
    inputs_optional: list[InputIdField] | None = optional("Inputs that may be connected.")
    outputs: list[OutputIdField] | None = optional("Outputs others may read.")


class Module(Written):
    """A module file."""

    module: ModuleInterface = Field(description="The module's interface.")
    build: BuildField | None = optional("Build commands of nodes without their own.")
    nodes: list[Node] = Field(description="The nodes of the module.")
