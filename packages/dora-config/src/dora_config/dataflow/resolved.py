"""A dataflow ready to run: defaults filled in, variables expanded, modules applied; pure.

These models travel to daemons and runners as JSON (`model_dump_json`, `model_validate_json`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dora_config.dataflow.sources import InputSource, LogLevel, OutputSource

MAX_QUEUE_SIZE = 16_000
"""Records of 64 bytes that fit a pipe of 1 MiB, the largest an unprivileged user may have."""

DEFAULT_QUEUE_SIZE = 10
DEFAULT_HEALTH_CHECK_INTERVAL = 5.0
DEFAULT_FINISH_GRACE = 120.0
DEFAULT_ROTATED_FILES = 5
SINGLE_OPERATOR_ID = "op"

NodeKind = Literal["standard", "runtime", "dynamic", "shell", "url"]
QueuePolicy = Literal["drop_oldest", "backpressure"]
RestartPolicy = Literal["never", "on-failure", "always"]
Distribution = Literal["local", "scp", "http"]
OutputFraming = Literal["raw", "arrow-ipc"]
CommunicationPattern = Literal["service-server", "service-client", "action-server", "action-client"]


class Frozen(BaseModel):
    """Base of the resolved models: immutable.

    Fields of a newer version are ignored, so that its stores and daemons can be rolled back; what
    users write is checked as a descriptor.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class FromMachine(Frozen):
    """The value of variable `name` on the machine that the node runs on (`__dora_env: NAME`)."""

    name: str


EnvValue = str | FromMachine


class ResolvedInput(Frozen):
    """One input: its source and the queue in front of the node. Times in seconds."""

    source: InputSource
    queue_size: int = Field(default=DEFAULT_QUEUE_SIZE, ge=1, le=MAX_QUEUE_SIZE)
    queue_policy: QueuePolicy = "drop_oldest"
    input_timeout: float | None = None
    data_type: str | None = None


class GitSource(Frozen):
    """Where a node's code is cloned from; at most one of `branch`, `tag` and `rev` is set."""

    url: str
    branch: str | None = None
    tag: str | None = None
    rev: str | None = None


class RestartSettings(Frozen):
    """When a node is started again. Times in seconds; `max_restarts` 0 means no limit."""

    policy: RestartPolicy = "never"
    max_restarts: int = 0
    delay: float | None = None
    max_delay: float | None = None
    window: float | None = None


class ResolvedDeploy(Frozen):
    """Which machine a node runs on, and where there."""

    machine: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    working_dir: str | None = None
    distribute: Distribution = "local"

    @property
    def is_empty(self) -> bool:
        """Whether the node asks for nothing: it goes to the unnamed daemon."""
        return self == ResolvedDeploy()


class ResolvedOperator(Frozen):
    """One operator of a runtime node; `python` is a file with a class `Operator`."""

    id: str
    name: str | None = None
    description: str | None = None
    python: str
    inputs: dict[str, ResolvedInput] = Field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    input_types: dict[str, str] = Field(default_factory=dict)
    output_types: dict[str, str] = Field(default_factory=dict)
    send_stdout_as: str | None = None
    send_logs_as: str | None = None
    min_log_level: LogLevel | None = None
    max_log_size: int | None = None
    max_rotated_files: int | None = None


class ResolvedNode(Frozen):
    """One node. Times in seconds, sizes in bytes.

    `args` is already split; of a shell node it holds the one text for `sh -c`. The ports of a
    runtime node's operators stand in `inputs` and `outputs` as `operator/port`, and each build
    command of an operator is also in `build`. `inherited_env` names those variables of `env` that
    come from the root of the file, which `--env` may replace.
    """

    id: str
    name: str | None = None
    description: str | None = None
    kind: NodeKind = "standard"
    path: str | None = None
    path_sha256: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, EnvValue] = Field(default_factory=dict)
    inherited_env: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    git: GitSource | None = None
    inputs: dict[str, ResolvedInput] = Field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    input_types: dict[str, str] = Field(default_factory=dict)
    output_types: dict[str, str] = Field(default_factory=dict)
    output_metadata: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    output_framing: dict[str, OutputFraming] = Field(default_factory=dict)
    pattern: CommunicationPattern | None = None
    send_stdout_as: str | None = None
    send_logs_as: str | None = None
    min_log_level: LogLevel | None = None
    max_log_size: int | None = None
    max_rotated_files: int = DEFAULT_ROTATED_FILES
    restart: RestartSettings = RestartSettings()
    health_check_timeout: float | None = None
    finish_grace: float = DEFAULT_FINISH_GRACE
    startup_timeout: float | None = None
    shared_memory_pool_size: int | None = None
    cpu_affinity: tuple[int, ...] = ()
    deploy: ResolvedDeploy = ResolvedDeploy()
    operators: tuple[ResolvedOperator, ...] = ()

    @property
    def is_dynamic(self) -> bool:
        """Whether a user starts this node's process by hand."""
        return self.kind == "dynamic"

    @property
    def needs_build(self) -> bool:
        """Whether anything has to be done before it can run: a git source or build lines."""
        return self.git is not None or any(line.strip() for line in self.build)

    def env_with(self, overrides: Mapping[str, str]) -> dict[str, EnvValue]:
        """`env` with the variables of `--env`: above those of the root, below the node's own."""
        own = self.env.keys() - set(self.inherited_env)
        return {**self.env, **{k: v for k, v in overrides.items() if k not in own}}


class ResolvedTypeRule(Frozen):
    """An additional conversion that the type check allows across an edge."""

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
        """The node of that id; raises `KeyError`."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise KeyError(node_id)

    @property
    def uses_deploy(self) -> bool:
        """Whether any node asks for a machine, labels or a directory on one."""
        return any(not node.deploy.is_empty for node in self.nodes)

    def edges(self) -> Iterator[tuple[OutputSource, str, str]]:
        """Every edge between two nodes: (source, consumer's node id, its input id)."""
        for node in self.nodes:
            for input_id, wanted in node.inputs.items():
                if isinstance(wanted.source, OutputSource):
                    yield wanted.source, node.id, input_id
