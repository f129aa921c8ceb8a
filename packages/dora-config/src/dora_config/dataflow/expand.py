"""Turn a resolved dataflow back into flat YAML that loads to an equal dataflow; pure."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping
from typing import Any

from dora_config.dataflow.resolved import (
    DEFAULT_FINISH_GRACE,
    DEFAULT_HEALTH_CHECK_INTERVAL,
    DEFAULT_QUEUE_SIZE,
    DEFAULT_ROTATED_FILES,
    SINGLE_OPERATOR_ID,
    EnvValue,
    FromMachine,
    ResolvedDataflow,
    ResolvedDeploy,
    ResolvedInput,
    ResolvedNode,
    ResolvedOperator,
)
from dora_config.dataflow.variables import escape_variables
from dora_config.yaml.writer import dump_yaml


def expand_dataflow(dataflow: ResolvedDataflow) -> str:
    """Return the YAML of a dataflow without modules and defaults.

    Variables are expanded, and `$` is written as `$$`.
    """
    return dump_yaml(dataflow_to_dict(dataflow))


def dataflow_to_dict(dataflow: ResolvedDataflow) -> dict[str, Any]:
    """Return a dataflow as plain values of a descriptor, without modules and defaults."""
    return _present(
        {
            "env": _env(dataflow.env, ()),
            "deploy": _deploy(dataflow.deploy),
            "debug": {"enable_debug_inspection": True} if dataflow.debug_inspection else None,
            "health_check_interval": _unless(
                dataflow.health_check_interval, DEFAULT_HEALTH_CHECK_INTERVAL
            ),
            "strict_types": dataflow.strict_types or None,
            "exit_when_nodes_finish": dataflow.exit_when_nodes_finish or None,
            "type_rules": [
                {"from": rule.source, "to": rule.target} for rule in dataflow.type_rules
            ],
            "nodes": [_node(node, dataflow.deploy) for node in dataflow.nodes],
        },
        keep=("nodes",),
    )


def describe_dataflow(dataflow: ResolvedDataflow) -> dict[str, Any]:
    """Return the value of `Node.dataflow_descriptor()`: without modules, with expanded variables.

    Each node has all fields of `_ALWAYS_PRESENT`; those that are not set are None or empty.
    """
    return {
        **dataflow_to_dict(dataflow),
        "env": _plain_env(dataflow.env, ()),
        "deploy": _deploy(dataflow.deploy) or None,
        "debug": {"enable_debug_inspection": dataflow.debug_inspection},
        "health_check_interval": dataflow.health_check_interval,
        "nodes": [_describe_node(node, dataflow.deploy) for node in dataflow.nodes],
    }


_ALWAYS_PRESENT: dict[str, Any] = {
    "id": None,
    "name": None,
    "description": None,
    "env": None,
    "inputs": {},
    "outputs": [],
    "restart_policy": "never",
    "max_restarts": 0,
    "deploy": None,
}


def _describe_node(node: ResolvedNode, root_deploy: ResolvedDeploy) -> dict[str, Any]:
    described = copy.deepcopy(_ALWAYS_PRESENT) | _node(node, root_deploy)
    described["env"] = _plain_env(node.env, node.inherited_env) or None
    if operators := described.pop("operators", None):
        operators = [{**_UNNAMED_OPERATOR, **operator} for operator in operators]
        if [operator["id"] for operator in operators] == [SINGLE_OPERATOR_ID]:
            described["operator"] = {**operators[0], "id": None}
        else:
            described["operators"] = operators
    return described


_UNNAMED_OPERATOR: dict[str, Any] = {"name": None, "description": None, "inputs": {}, "outputs": []}


def _present(values: Mapping[str, Any], keep: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the values without None and empty ones, which a descriptor leaves out."""
    return {
        key: value
        for key, value in values.items()
        if key in keep or (value is not None and value != {} and value != [])
    }


def _unless(value: Any, default: Any) -> Any:
    return None if value == default else value


def _node(node: ResolvedNode, root_deploy: ResolvedDeploy) -> dict[str, Any]:
    common = {
        "id": node.id,
        "name": node.name,
        "description": node.description,
        "env": _env(node.env, node.inherited_env),
        "cpu_affinity": list(node.cpu_affinity),
    }
    # an explicit `deploy` prevents that the one of the root applies
    deploy = _deploy(node.deploy)
    if node.deploy == root_deploy:
        deploy = {}
    elif not deploy:
        deploy = {"distribute": "local"}
    if node.kind == "runtime":
        block = {"operators": [_operator(one) for one in node.operators]}
        return _present({**common, **block, "deploy": deploy})
    return _present(
        {**common, **_program(node), **_ports(node), **_supervision(node), "deploy": deploy}
    )


def _program(node: ResolvedNode) -> dict[str, Any]:
    git = node.git
    return {
        "path": node.path,
        "path_sha256": node.path_sha256,
        "args": _args(node),
        "build": "\n".join(node.build) or None,
        "git": git.url if git is not None else None,
        "branch": git.branch if git is not None else None,
        "tag": git.tag if git is not None else None,
        "rev": git.rev if git is not None else None,
    }


def _args(node: ResolvedNode) -> str | None:
    if not node.args:
        return None
    return node.args[0] if node.kind == "shell" else shlex.join(node.args)


def _ports(node: ResolvedNode) -> dict[str, Any]:
    return {
        "inputs": {name: _input(one) for name, one in node.inputs.items()},
        "outputs": list(node.outputs),
        "input_types": dict(node.input_types),
        "output_types": dict(node.output_types),
        "output_framing": dict(node.output_framing),
        "output_metadata": {name: list(keys) for name, keys in node.output_metadata.items()},
        "pattern": node.pattern,
        **_logs(node),
        "max_rotated_files": _unless(node.max_rotated_files, DEFAULT_ROTATED_FILES),
    }


def _logs(port: ResolvedNode | ResolvedOperator) -> dict[str, Any]:
    return {
        "send_stdout_as": port.send_stdout_as,
        "send_logs_as": port.send_logs_as,
        "min_log_level": port.min_log_level,
        "max_log_size": port.max_log_size,
    }


def _supervision(node: ResolvedNode) -> dict[str, Any]:
    restart = node.restart
    return {
        "restart_policy": _unless(restart.policy, "never"),
        "max_restarts": restart.max_restarts or None,
        "restart_delay": restart.delay,
        "max_restart_delay": restart.max_delay,
        "restart_window": restart.window,
        "health_check_timeout": node.health_check_timeout,
        "finish_grace_secs": _unless(node.finish_grace, DEFAULT_FINISH_GRACE),
        "startup_timeout": node.startup_timeout,
        "shared_memory_pool_size": node.shared_memory_pool_size,
    }


def _operator(operator: ResolvedOperator) -> dict[str, Any]:
    return _present(
        {
            "id": operator.id,
            "name": operator.name,
            "description": operator.description,
            "python": operator.python,
            "build": "\n".join(operator.build) or None,
            "inputs": {name: _input(one) for name, one in operator.inputs.items()},
            "outputs": list(operator.outputs),
            "input_types": dict(operator.input_types),
            "output_types": dict(operator.output_types),
            **_logs(operator),
            "max_rotated_files": operator.max_rotated_files,
        }
    )


def _input(one: ResolvedInput) -> str | dict[str, Any]:
    details = _present(
        {
            "queue_size": _unless(one.queue_size, DEFAULT_QUEUE_SIZE),
            "queue_policy": _unless(one.queue_policy, "drop_oldest"),
            "input_timeout": one.input_timeout,
        }
    )
    return {"source": str(one.source), **details} if details else str(one.source)


def _env(env: Mapping[str, EnvValue], inherited: tuple[str, ...]) -> dict[str, Any]:
    return {
        name: escape_variables(value) if isinstance(value, str) else value
        for name, value in _plain_env(env, inherited).items()
    }


def _plain_env(env: Mapping[str, EnvValue], inherited: tuple[str, ...]) -> dict[str, Any]:
    return {
        name: {"__dora_env": value.name} if isinstance(value, FromMachine) else value
        for name, value in env.items()
        if name not in inherited
    }


def _deploy(deploy: ResolvedDeploy) -> dict[str, Any]:
    return _present(
        {
            "machine": deploy.machine,
            "labels": dict(deploy.labels),
            "working_dir": deploy.working_dir,
            "distribute": _unless(deploy.distribute, "local"),
        }
    )
