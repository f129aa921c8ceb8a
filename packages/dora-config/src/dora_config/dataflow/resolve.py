"""Turn a descriptor into a resolved dataflow: defaults, variables, modules, operators; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dora_config.dataflow import descriptor
from dora_config.dataflow.descriptor import LOG_SETTINGS
from dora_config.dataflow.fields import build_lines, split_words
from dora_config.dataflow.flattening import Flattening
from dora_config.dataflow.modules import (
    FlatNode,
    SourceNode,
    WiredInput,
    join_directory,
    operators_of,
    programs_of,
)
from dora_config.dataflow.resolved import (
    DEFAULT_FINISH_GRACE,
    DEFAULT_HEALTH_CHECK_INTERVAL,
    CommunicationPattern,
    CoreKind,
    EnvValue,
    GitSource,
    ResolvedDataflow,
    ResolvedDeploy,
    ResolvedInput,
    ResolvedNode,
    ResolvedOperator,
    ResolvedTypeRule,
    RestartSettings,
)
from dora_config.dataflow.sources import OutputSource
from dora_config.errors import Problem
from dora_config.yaml.document import KeyPath, Place

PATTERN_KEYS: dict[CommunicationPattern, tuple[str, ...]] = {
    "service-server": ("request_id",),
    "service-client": ("request_id",),
    "action-server": ("goal_id", "goal_status"),
    "action-client": ("goal_id",),
}
"""Metadata keys that associate replies with requests; outputs with that pattern have them."""

_Program = tuple[str, descriptor.ProgramFields, KeyPath]
_SPECIAL_KINDS: dict[str, CoreKind] = {"dynamic": "dynamic", "shell": "shell"}
_URL_SCHEMES = ("http://", "https://")
_PROGRAM_SUFFIXES = (".py", ".sh", ".exe")


@dataclass(frozen=True)
class Resolution:
    """A resolved dataflow with its problems."""

    dataflow: ResolvedDataflow
    nodes: Sequence[FlatNode]
    """The flat nodes in the order of the resolved dataflow."""
    unused_inputs: Sequence[FlatNode]
    """Nodes with a module, with those of their inputs that no inner node reads."""
    problems: list[Problem]


def resolve(
    root: descriptor.Descriptor,
    place: Place,
    nodes: tuple[SourceNode, ...],
    environ: Mapping[str, str],
) -> Resolution:
    """Resolve the `nodes` of a file."""
    flattening = Flattening(environ)
    root_env = flattening.environment(root.env, place.at("env"), "the dataflow")
    flattening.run(nodes)
    single = {
        flat.id: operators_of(flat.node)[0]
        for flat in reversed(flattening.nodes)
        if flat.node.operator is not None
    }
    seen: set[str] = set()
    for flat in (*flattening.nodes, *flattening.unused_inputs):
        flat.inputs = {name: _to_operator(wired, single) for name, wired in flat.inputs.items()}
    for flat in flattening.nodes:
        if flat.id in seen:
            message = f'duplicate node ID "{flat.id}": ids must be unique once modules are applied'
            flattening.report(flat.at("id"), message)
        seen.add(flat.id)
    dataflow = ResolvedDataflow(
        nodes=tuple(_resolve_node(flat, root, root_env) for flat in flattening.nodes),
        env=root_env,
        health_check_interval=_default(root.health_check_interval, DEFAULT_HEALTH_CHECK_INTERVAL),
        strict_types=bool(root.strict_types),
        exit_when_nodes_finish=bool(root.exit_when_nodes_finish),
        debug_inspection=bool(root.debug and root.debug.enable_debug_inspection),
        type_rules=tuple(
            ResolvedTypeRule(source=rule.from_, target=rule.to) for rule in root.type_rules or ()
        ),
        deploy=_deploy(root.deploy),
    )
    return Resolution(dataflow, flattening.nodes, flattening.unused_inputs, flattening.problems)


def _default(value: float | None, default: float) -> float:
    return default if value is None else value


def _to_operator(
    wired: WiredInput, single: Mapping[str, tuple[str, descriptor.Operator, KeyPath]]
) -> WiredInput:
    """Replace `node/output` of a node with a single operator by `node/op/output`."""
    source = wired.source
    if not isinstance(source, OutputSource) or source.node not in single:
        return wired
    operator_id, operator, _ = single[source.node]
    outputs = operator.outputs or []
    head, _, inner = source.output.partition("/")
    if source.output not in outputs and head == operator_id and inner in outputs:
        return wired
    output = f"{operator_id}/{source.output}"
    return replace(wired, source=OutputSource(node=source.node, output=output))


_CHANGED = {"id", "path", "path_sha256", "args", "env", "build", "git", "inputs", "outputs"}
_CHANGED |= {"input_types", "output_types", "output_metadata", "cpu_affinity", "warm", "deploy"}
_CHANGED |= {"operators", "output_framing", *LOG_SETTINGS}
_COPIED = (ResolvedNode.model_fields.keys() & descriptor.Node.model_fields.keys()) - _CHANGED
"""Fields of a node that are copied."""


def _resolve_node(
    flat: FlatNode, root: descriptor.Descriptor, root_env: Mapping[str, EnvValue]
) -> ResolvedNode:
    node = flat.node
    kind = _kind(node)
    operators = tuple(
        _resolve_operator(operator_id, operator, flat)
        for operator_id, operator, _ in operators_of(node)
    )
    programs = programs_of(node)
    outputs = tuple(
        dict.fromkeys(prefix + name for prefix, one, _ in programs for name in one.outputs or ())
    )
    written = {prefix + name for prefix, one, _ in programs for name in one.inputs or ()}
    input_types = {
        name: text
        for name, text in _by_port(programs, "input_types").items()
        if name in flat.inputs or name not in written  # an optional port may not be connected
    }
    return ResolvedNode(
        **{name: value for name in _COPIED if (value := getattr(node, name)) is not None},
        id=flat.id,
        kind=kind,
        path=_path(node.path, kind, flat),
        path_sha256=node.path_sha256.lower() if node.path_sha256 else None,
        block=_block(node),
        args=_args(kind, node.args),
        env={**root_env, **flat.env},
        inherited_env=tuple(name for name in root_env if name not in flat.env),
        build=tuple(line for _, one, _ in programs for line in build_lines(one.build or "")),
        git=GitSource(url=node.git, branch=node.branch, tag=node.tag, rev=node.rev)
        if node.git
        else None,
        inputs={
            name: _resolve_input(wired, input_types.get(name))
            for name, wired in flat.inputs.items()
        },
        outputs=outputs,
        input_types=input_types,
        output_types=_by_port(programs, "output_types"),
        output_metadata=_promised_metadata(programs),
        output_framing=_by_port(programs, "output_framing"),
        **_log_settings(programs),
        restart=RestartSettings(
            policy=node.restart_policy or "never",
            max_restarts=node.max_restarts or 0,
            delay=node.restart_delay,
            max_delay=node.max_restart_delay,
            window=node.restart_window,
        ),
        finish_grace=_default(node.finish_grace_secs, DEFAULT_FINISH_GRACE),
        cpu_affinity=tuple(sorted(set(node.cpu_affinity or ()))),
        warm=False if node.warm is False else tuple(node.warm or ()),
        deploy=_deploy(node.deploy if node.deploy is not None else root.deploy),
        operators=operators,
    )


def _by_port(programs: Sequence[_Program], group: str) -> dict[str, Any]:
    return {
        prefix + name: value
        for prefix, one, _ in programs
        for name, value in (getattr(one, group) or {}).items()
    }


def _log_settings(programs: Sequence[_Program]) -> dict[str, Any]:
    """Return the log settings of a node, or of the one operator that has each."""
    return {
        name: prefix + value if name.startswith("send_") else value
        for name in LOG_SETTINGS
        for prefix, one, _ in programs
        if (value := getattr(one, name)) is not None
    }


def _promised_metadata(programs: Sequence[_Program]) -> dict[str, tuple[str, ...]]:
    promised = {name: tuple(keys) for name, keys in _by_port(programs, "output_metadata").items()}
    for prefix, one, _ in programs:
        added = PATTERN_KEYS[one.pattern] if one.pattern is not None else ()
        for output in (one.outputs or ()) if added else ():
            keys = (*promised.get(prefix + output, ()), *added)
            promised[prefix + output] = tuple(dict.fromkeys(keys))
    return promised


def _kind(node: descriptor.Node) -> CoreKind | str:
    if node.operator is not None or node.operators is not None:
        return "runtime"
    if node.block is not None:
        return node.block.name
    path = node.path or ""
    if path.startswith(_URL_SCHEMES):
        return "url"
    return _SPECIAL_KINDS.get(path, "standard")


def _path(path: str | None, kind: str, flat: FlatNode) -> str | None:
    """Return the program; files of a module are relative to the dataflow's directory."""
    if path is None or kind != "standard" or flat.node.git is not None:
        return path
    is_file = "/" in path or path.endswith(_PROGRAM_SUFFIXES)
    return join_directory(flat.directory, path) if is_file and "$" not in path else path


def _block(node: descriptor.Node) -> Any:
    if (block := node.block) is None:
        return None
    return block.kind.resolve(block.value, list(node.inputs or ()), node.outputs or [])


def _args(kind: str, args: str | None) -> tuple[str, ...]:
    if args is None:
        return ()
    return (args,) if kind == "shell" else split_words(args, "node args")


def _resolve_input(wired: WiredInput, data_type: str | None) -> ResolvedInput:
    settings = wired.written.model_dump(exclude={"source"})
    settings["queue_size"] = max(1, wired.written.queue_size)
    return ResolvedInput(source=wired.source, data_type=data_type, **settings)


def _resolve_operator(
    operator_id: str, operator: descriptor.Operator, flat: FlatNode
) -> ResolvedOperator:
    types = operator.input_types or {}
    prefix = operator_id + "/"
    python = operator.python.source if operator.python is not None else ""
    return ResolvedOperator(
        id=operator_id,
        python=join_directory(flat.directory, python),
        inputs={
            name[len(prefix) :]: _resolve_input(wired, types.get(name[len(prefix) :]))
            for name, wired in flat.inputs.items()
            if name.startswith(prefix)
        },
        outputs=tuple(dict.fromkeys(operator.outputs or ())),
        build=build_lines(operator.build or ""),
        input_types=dict(types),
        output_types=dict(operator.output_types or {}),
        output_metadata=_promised_metadata([("", operator, ())]),
        output_framing=dict(operator.output_framing or {}),
        **{
            name: getattr(operator, name)
            for name in ("name", "description", "pattern", *LOG_SETTINGS)
        },
    )


def _deploy(deploy: descriptor.Deploy | None) -> ResolvedDeploy:
    return ResolvedDeploy() if deploy is None else ResolvedDeploy(**deploy.model_dump())
