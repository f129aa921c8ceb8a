"""Turn a resolved dataflow back into flat YAML that loads to an equal dataflow; pure."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping, Set
from typing import Any

from dora_config.dataflow import descriptor
from dora_config.dataflow.node_shape import SHARED_FIELDS
from dora_config.dataflow.resolved import (
    DEFAULT_FINISH_GRACE,
    DEFAULT_HEALTH_CHECK_INTERVAL,
    SINGLE_OPERATOR_ID,
    EnvValue,
    FromMachine,
    QueueSettings,
    ResolvedDataflow,
    ResolvedDeploy,
    ResolvedInput,
    ResolvedNode,
    ResolvedOperator,
)
from dora_config.dataflow.variables import escape_variables
from dora_config.frozen import Frozen


def expand_dataflow(dataflow: ResolvedDataflow) -> str:
    """Return the YAML of a dataflow without modules and defaults.

    Variables are expanded, and `$` is written as `$$`.
    """
    from dora_config.yaml.writer import dump_yaml  # imports PyYAML

    return dump_yaml(dataflow_to_dict(dataflow))


def dataflow_to_dict(dataflow: ResolvedDataflow) -> dict[str, Any]:
    """Return a dataflow as plain values of a descriptor, without modules and defaults."""
    return _present(
        {
            "env": _env(dataflow.env, ()),
            "deploy": _dump(dataflow.deploy),
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
        "deploy": _dump(dataflow.deploy) or None,
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


_DIFFERENT = {"args", "build", "deploy", "env", "git", "inputs", "operators"}
"""Fields of a node with the same name, but another form, in the two models."""
_SAME_FIELDS = (ResolvedNode.model_fields.keys() & descriptor.Node.model_fields.keys()) - _DIFFERENT
_SAME_OF_OPERATOR = ResolvedOperator.model_fields.keys() - _DIFFERENT
_SAME_OF_RUNTIME = SHARED_FIELDS - _DIFFERENT
"""Further fields of a runtime node that are fields of its operators."""
_RESTART_FIELDS = {
    "policy": "restart_policy",
    "max_restarts": "max_restarts",
    "delay": "restart_delay",
    "max_delay": "max_restart_delay",
    "window": "restart_window",
}


def _present(values: Mapping[str, Any], keep: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the values without None and empty ones, which a descriptor leaves out."""
    return {
        key: value
        for key, value in values.items()
        if key in keep or (value is not None and value != {} and value != [])
    }


def _unless(value: Any, default: Any) -> Any:
    return None if value == default else value


def _dump(model: Frozen, include: Set[str] | None = None) -> dict[str, Any]:
    fields = None if include is None else set(include)
    return model.model_dump(mode="json", exclude_defaults=True, include=fields)


def _node(node: ResolvedNode, root_deploy: ResolvedDeploy) -> dict[str, Any]:
    common = {"id": node.id, "env": _env(node.env, node.inherited_env)}
    # an explicit `deploy` prevents that the one of the root applies
    deploy = _dump(node.deploy) or {"distribute": "local"}
    if node.deploy == root_deploy:
        deploy = {}
    if node.kind == "runtime":
        operators = [_operator(one) for one in node.operators]
        facts = {**common, **_dump(node, _SAME_OF_RUNTIME), "operators": operators}
    else:
        restart = _dump(node.restart)
        facts = {
            **common,
            **_program(node),
            node.kind: node.block,
            "inputs": _inputs(node),
            **_dump(node, _SAME_FIELDS),
            **{_RESTART_FIELDS[name]: value for name, value in restart.items()},
            "finish_grace_secs": _unless(node.finish_grace, DEFAULT_FINISH_GRACE),
        }
    return _present({**facts, "deploy": deploy})


def _program(node: ResolvedNode) -> dict[str, Any]:
    git = {} if node.git is None else _dump(node.git)
    return {
        "path": node.path,
        "args": _args(node),
        "build": "\n".join(node.build) or None,
        "git": git.pop("url", None),
        **git,
    }


def _args(node: ResolvedNode) -> str | None:
    if not node.args:
        return None
    return node.args[0] if node.kind == "shell" else shlex.join(node.args)


def _operator(operator: ResolvedOperator) -> dict[str, Any]:
    return _present(
        {
            "id": operator.id,
            "python": operator.python,
            "build": "\n".join(operator.build) or None,
            "inputs": _inputs(operator),
            **_dump(operator, _SAME_OF_OPERATOR),
        }
    )


def _inputs(reader: ResolvedNode | ResolvedOperator) -> dict[str, Any]:
    return {name: _input(one) for name, one in reader.inputs.items()}


def _input(one: ResolvedInput) -> str | dict[str, Any]:
    details = _dump(one, QueueSettings.model_fields.keys())
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
