"""`Flow`: a dataflow file with its real nodes, in virtual time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from dora_config.dataflow.loader import load_dataflow
from dora_config.dataflow.resolved import ResolvedNode
from dora_config.yaml.quantities import parse_duration
from dora_daemon.runner.machine import events
from dora_node_api.protocol import messages
from dora_testing.children import output_of, shown
from dora_testing.engine import Engine
from dora_testing.errors import FlowError, find
from dora_testing.programs import plan_of, prepare
from dora_testing.results import Result
from dora_testing.sources import Source

Duration = float | str
"""Seconds, or a text such as `40ms`."""

PATIENCE = 30.0
"""Default of `patience`, in real seconds."""


class Flow:
    """A dataflow of which each node gets one event at a time, in virtual time.

    Made by the fixture `dora_flow`. `run` may be called several times; each starts anew.
    """

    def __init__(
        self,
        dataflow: Path | str,
        *,
        replace: Mapping[str, Source] | None = None,
        latency: Mapping[str, Duration] | None = None,
        cost: Mapping[str, Duration] | None = None,
        env: Mapping[str, str] | None = None,
        shuffle: int | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """Load the file.

        `replace`: sources in place of nodes. `latency`: of messages, by `node/output` or, for one
        reader, `node/input`. `cost`: how long a node is busy with each input. `env`: as `--env` of
        `dora run`. `shuffle`: seed of another order of what happens at the same time. `patience`:
        real seconds in which a node must come back for events; it has four times as long to start.
        """
        self._loaded = load_dataflow(dataflow)
        self._replace = dict(replace or {})
        self._nodes = {node.id: node for node in self._loaded.resolved.nodes}
        for name in (*self._replace, *(cost or {})):
            self._expect(name)
        self._latency = {edge: _ns(value) for edge, value in (latency or {}).items()}
        self._cost = {node: _ns(value) for node, value in (cost or {}).items()}
        for edge in self._latency:
            node, _, port = edge.partition("/")
            if port not in (*self._expect(node).inputs, *self._nodes[node].outputs):
                raise FlowError(f'latency: node "{node}" has no input or output `{port}`')
        self._env = dict(env or {})
        self._shuffle = shuffle
        self._patience = patience
        self._actions: list[tuple[int, Callable[[Engine], None]]] = []
        unused = [n.id for n in self._nodes.values() if n.is_dynamic and n.id not in self._replace]
        if unused:
            raise FlowError(f'dynamic node "{unused[0]}" is not started by dora; replace it')

    def _expect(self, name: str) -> ResolvedNode:
        return find(self._nodes, name, "node", f"{self._loaded.path} has")

    # --- what happens meanwhile ------------------------------------------------------------------

    def set_param(self, node: str, key: str, value: Any, *, at: float = 0.0) -> None:
        """Set a parameter of a node at a virtual time, as `dora param set` does."""
        self._do(node, at, lambda engine: engine.control(node, messages.SetParam(key, value)))

    def delete_param(self, node: str, key: str, *, at: float) -> None:
        """Delete a parameter of a node at a virtual time."""
        self._do(node, at, lambda engine: engine.control(node, messages.DeleteParam(key)))

    def kill(self, node: str, *, at: float) -> None:
        """Kill the process of a node at a virtual time; its restart policy decides what follows."""
        self._do(node, at, lambda engine: engine.kill(node))

    def stop(self, node: str, *, at: float) -> None:
        """Stop a node at a virtual time, as `dora node stop` does."""
        self._do(node, at, lambda engine: engine.handle(events.NodeStopRequested(node, 10.0)))

    def _do(self, node: str, at: float, action: Callable[[Engine], None]) -> None:
        self._expect(node)
        self._actions.append((round(at * 1e9), action))

    # --- the run ---------------------------------------------------------------------------------

    def run(self, until: Duration | None = None, *, may_fail: Iterable[str] = ()) -> Result:
        """Run the dataflow until it ends, and return what it has sent.

        It is stopped after `until` virtual seconds, or, without that, once nothing more can happen.
        Raises FlowError if a node fails that is not in `may_fail`, or does not come back for
        events.
        """
        may_fail = tuple(may_fail)
        for name in may_fail:
            self._expect(name)
        folder = Path(tempfile.mkdtemp(prefix="dora-test-"))
        try:
            plan = plan_of(self._loaded, self._env)
            nodes = [node for node in self._nodes.values() if node.id not in self._replace]
            engine = Engine(
                plan,
                prepare(plan, self._loaded, nodes, folder),
                self._replace,
                folder,
                latency=self._latency,
                cost=self._cost,
                patience=self._patience,
                shuffle=self._shuffle,
            )
            for at, action in self._actions:
                engine.at(at, lambda action=action: action(engine))  # type: ignore[misc]
            result = engine.run(None if until is None else _ns(until))
            failed = [
                f'node "{node.node}" failed: {node.message}{shown(output_of(folder, node.node))}'
                for node in result.nodes.values()
                if node.outcome != "success" and node.node not in may_fail
            ]
        finally:
            shutil.rmtree(folder)
        if failed:
            raise FlowError("\n".join(failed))
        return result


def seconds_of(duration: Duration) -> float:
    """Return a duration in seconds. Raises FlowError."""
    try:
        seconds = parse_duration(duration) if isinstance(duration, str) else float(duration)
    except ValueError as error:
        raise FlowError(str(error)) from None
    if not seconds >= 0:
        raise FlowError(f"invalid time of {duration} seconds; it must be zero or more")
    return seconds


def _ns(duration: Duration) -> int:
    return round(seconds_of(duration) * 1e9)
