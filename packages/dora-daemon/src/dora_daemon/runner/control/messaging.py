"""Requests that send something to one node: parameters, published samples, reloads."""

from __future__ import annotations

from pydantic_core import to_json

from dora_config.protocol import runner as protocol
from dora_daemon.runner.control.node_lookup import find_node
from dora_daemon.runner.errors import RequestRefused
from dora_daemon.runner.machine.state import RunnerState
from dora_daemon.runner.nodes.local_nodes import LocalNode
from dora_daemon.runner.nodes.services import NodeServices
from dora_node_api.protocol.messages import DeleteParam, ReloadOperator, SendOutput, SetParam

MAX_KEY_BYTES = 256
MAX_VALUE_BYTES = 65_536
MAX_PARAMS = 1024
"""Parameters of one node."""


class NodeMessaging:
    """One method for each request. All raise RequestRefused."""

    def __init__(self, state: RunnerState, services: NodeServices) -> None:
        self._state = state
        self._nodes = services.nodes
        self._registry = services.registry

    def _find(self, node: str) -> LocalNode:
        return self._nodes[find_node(self._state, node).node]

    def set_param(self, request: protocol.SetParam) -> None:
        node = self._find(request.node)
        if not 0 < len(request.key.encode()) <= MAX_KEY_BYTES:
            raise RequestRefused(
                f'parameter key "{request.key[:MAX_KEY_BYTES]}" must have 1 to'
                f" {MAX_KEY_BYTES} bytes"
            )
        size = len(to_json(request.value))
        if size > MAX_VALUE_BYTES:
            raise RequestRefused(
                f'value of parameter "{request.key}" is too large: {size} bytes as JSON, at most'
                f" {MAX_VALUE_BYTES} are allowed"
            )
        if len(node.params) >= MAX_PARAMS and request.key not in node.params:
            raise RequestRefused(
                f'node "{node.id}" has {len(node.params)} parameters, and no more are allowed;'
                " delete some with `dora param delete`"
            )
        node.params[request.key] = request.value
        node.send(SetParam(request.key, request.value))

    def delete_param(self, request: protocol.DeleteParam) -> None:
        node = self._find(request.node)
        if request.key not in node.params:
            raise RequestRefused(
                f'param not found: node "{node.id}" has no parameter "{request.key}"'
            )
        del node.params[request.key]
        node.send(DeleteParam(request.key))

    def params(self, request: protocol.GetParams) -> protocol.Params:
        return protocol.Params(values=dict(self._find(request.node).params))

    def reload(self, request: protocol.Reload) -> None:
        """Reload the code of an operator, or of all."""
        node = self._find(request.node)
        if request.operator not in {None, *(operator.id for operator in node.spec.operators)}:
            raise RequestRefused(f'node "{node.id}" has no operator "{request.operator}"')
        if not node.send(ReloadOperator(request.operator)):
            raise RequestRefused(f'node "{node.id}" is not connected')

    def publish(self, request: protocol.Publish) -> None:
        """Make a node send a sample on one of its outputs."""
        node, output = self._find(request.node), request.output
        if output not in node.spec.outputs:
            raise RequestRefused(
                f'node "{node.id}" has no output "{output}"; its outputs are:'
                f" {', '.join(node.spec.outputs) or 'none'}"
            )
        if any(entry.from_runner for entry in self._registry.out_of(node.id, (output,))):
            raise RequestRefused(
                f'output "{output}" of node "{node.id}" is sent by the runner, from printed lines'
            )
        message = SendOutput(output, request.data, request.metadata)
        if not node.send(message):
            raise RequestRefused(
                f'node "{node.id}" is not connected, so it cannot send the published sample'
            )
