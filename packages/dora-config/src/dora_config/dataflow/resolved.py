"""Models of a dataflow with defaults, expanded variables and applied modules; pure.

They are part of the messages to daemons and runners.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from dora_config.dataflow.compression import Compression
from dora_config.dataflow.sources import InputSource, LogLevel, OutputSource
from dora_config.frozen import Frozen, readable_by

DATAFLOW_FORMAT: Final = (1, 0)
"""Major and minor version of these models, wherever they are sent or stored."""

MAX_QUEUE_SIZE = 16_000
"""Records of 64 bytes in a pipe of 1 MiB, the largest for unprivileged users."""

DEFAULT_QUEUE_SIZE = 10
"""Messages in the queue of an input."""
DEFAULT_HEALTH_CHECK_INTERVAL = 5.0
"""Seconds between two health checks."""
DEFAULT_FINISH_GRACE = 120.0
"""Seconds for a node to end after its last input was closed."""
DEFAULT_ROTATED_FILES = 5
SINGLE_OPERATOR_ID = "op"

CoreKind = Literal["standard", "runtime", "dynamic", "shell", "url"]
QueuePolicy = Literal["drop_oldest", "backpressure"]
RestartPolicy = Literal["never", "on-failure", "always"]
Distribution = Literal["local", "http"]
OutputFraming = Literal["raw", "arrow-ipc"]
CommunicationPattern = Literal["service-server", "service-client", "action-server", "action-client"]


class FromMachine(Frozen):
    """Value of the variable `name` on the node's machine (`__dora_env: NAME`)."""

    name: str


EnvValue = str | FromMachine


class QueueSettings(Frozen):
    """Settings of the queue of an input. Times in seconds."""

    queue_size: int = Field(default=DEFAULT_QUEUE_SIZE, ge=1, le=MAX_QUEUE_SIZE)
    queue_policy: QueuePolicy = "drop_oldest"
    input_timeout: float | None = None
    compress: Compression | None = None
    """Codec of messages where the edge crosses machines."""

    def queue_settings(self) -> dict[str, Any]:
        """Return these fields, for another model that has them."""
        return {name: getattr(self, name) for name in QueueSettings.model_fields}


class ResolvedInput(QueueSettings):
    """One input: source and queue."""

    source: InputSource
    data_type: str | None = None

    @property
    def waiting_node(self) -> str | None:
        """The node that waits while the queue is full, if any."""
        if self.queue_policy == "backpressure" and isinstance(self.source, OutputSource):
            return self.source.node
        return None


class GitSource(Frozen):
    """Git repository of a node; at most one of `branch`, `tag` and `rev` is set."""

    url: str
    branch: str | None = None
    tag: str | None = None
    rev: str | None = None


class RestartSettings(Frozen):
    """Conditions for a restart of a node. Times in seconds; `max_restarts` 0 means no limit."""

    policy: RestartPolicy = "never"
    max_restarts: int = 0
    delay: float | None = None
    max_delay: float | None = None
    window: float | None = None


class ResolvedDeploy(Frozen):
    """Machine of a node, and working directory on it."""

    machine: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    working_dir: str | None = None
    distribute: Distribution = "local"

    @property
    def is_empty(self) -> bool:
        """Whether nothing is set, so that the node is placed on the unnamed daemon."""
        return self == ResolvedDeploy()


class ResolvedProgram(Frozen):
    """Fields that nodes and operators share."""

    id: str
    name: str | None = None
    description: str | None = None
    inputs: dict[str, ResolvedInput] = Field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    input_types: dict[str, str] = Field(default_factory=dict)
    output_types: dict[str, str] = Field(default_factory=dict)
    output_metadata: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    output_framing: dict[str, OutputFraming] = Field(default_factory=dict)
    pattern: CommunicationPattern | None = None
    send_stdout_as: str | None = None
    send_logs_as: str | None = None
    min_log_level: LogLevel | None = None
    max_log_size: int | None = None


class ResolvedOperator(ResolvedProgram):
    """One operator of a runtime node; `python` is a file with a class `Operator`."""

    python: str
    max_rotated_files: int | None = None


class ResolvedNode(ResolvedProgram):
    """One node. Times in seconds, sizes in bytes.

    `args` is split into words; for a shell node it contains the one text for `sh -c`. Ports of
    operators are in `inputs` and `outputs` as `operator/port`, and their build commands also in
    `build`. `inherited_env` lists the variables of `env` that come from the root of the file, which
    `--env` may replace.
    """

    format: Annotated[tuple[int, int], readable_by(DATAFLOW_FORMAT)] = DATAFLOW_FORMAT
    kind: CoreKind | str = "standard"
    """Name of a plug-in's kind if it is not one of the core's."""
    path: str | None = None
    path_sha256: str | None = None
    block: Any = None
    """Block of a plug-in's kind, as the plug-in has resolved it."""
    args: tuple[str, ...] = ()
    env: dict[str, EnvValue] = Field(default_factory=dict)
    inherited_env: tuple[str, ...] = ()
    git: GitSource | None = None
    max_rotated_files: int = DEFAULT_ROTATED_FILES
    restart: RestartSettings = RestartSettings()
    health_check_timeout: float | None = None
    finish_grace: float = DEFAULT_FINISH_GRACE
    startup_timeout: float | None = None
    shared_memory_pool_size: int | None = None
    cpu_affinity: tuple[int, ...] = ()
    warm: Literal[False] | tuple[str, ...] = ()
    """Modules to import before the node is forked; False: it is not forked."""
    deploy: ResolvedDeploy = ResolvedDeploy()
    operators: tuple[ResolvedOperator, ...] = ()

    @property
    def is_dynamic(self) -> bool:
        """Whether the node's process is started by hand."""
        return self.kind == "dynamic"

    @property
    def has_ports(self) -> bool:
        """Whether the node has inputs or outputs; any other program may never connect."""
        return bool(self.inputs or self.outputs)

    @property
    def programs(self) -> tuple[str, ...]:
        """The program that the node's process runs, and the files of its operators."""
        own = (self.path,) if self.kind == "standard" and self.path else ()
        return (*own, *(operator.python for operator in self.operators))

    @property
    def needs_build(self) -> bool:
        """Whether the node has a git source or build commands."""
        return self.git is not None or any(line.strip() for line in self.build)

    @property
    def printed_outputs(self) -> frozenset[str]:
        """The outputs that consist of printed lines; the runner sends them and never waits."""
        found = {self.send_stdout_as, self.send_logs_as}
        for operator in self.operators:
            own = (operator.send_stdout_as, operator.send_logs_as)
            found |= {f"{operator.id}/{output}" for output in own if output is not None}
        return frozenset(output for output in found if output is not None)


class ResolvedTypeRule(Frozen):
    """An additional conversion that the type check allows on edges."""

    source: str
    target: str


class ResolvedDataflow(Frozen):
    """A whole dataflow. `health_check_interval` in seconds."""

    nodes: tuple[ResolvedNode, ...]
    name: str | None = None
    env: dict[str, EnvValue] = Field(default_factory=dict)
    health_check_interval: float = DEFAULT_HEALTH_CHECK_INTERVAL
    strict_types: bool = False
    exit_when_nodes_finish: bool = False
    debug_inspection: bool = False
    type_rules: tuple[ResolvedTypeRule, ...] = ()
    deploy: ResolvedDeploy = ResolvedDeploy()

    def node(self, node_id: str) -> ResolvedNode:
        """Return the node with this id; raise `KeyError`."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise KeyError(node_id)

    @property
    def uses_deploy(self) -> bool:
        """Whether any node has settings for its machine."""
        return any(not node.deploy.is_empty for node in self.nodes)

    def edges(self) -> Iterator[tuple[OutputSource, str, str]]:
        """Yield every edge between two nodes: source, node id of the consumer, input id."""
        for node in self.nodes:
            for input_id, wanted in node.inputs.items():
                if isinstance(wanted.source, OutputSource):
                    yield wanted.source, node.id, input_id


class NodeLocation(Frozen):
    """Result of preparing a node on this machine; every field has a usable default."""

    working_dir: str | None = None
    """Absolute working directory of the node; ``None``: the plan's ``working_dir``."""
    python: str | None = None
    """Interpreter of the node's managed environment; ``None``: chosen at start."""


class CurrentNode(Frozen):
    """A node as it runs now."""

    node: ResolvedNode
    place: NodeLocation = NodeLocation()
    code: str = ""
    """Digest of its ``CodeSet`` if the node was added or replaced and its code was sent."""
