"""Checks across nodes: sources that exist, ports that are declared, cycles that can block; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedNode
from dora_config.dataflow.sources import LogSource, OutputSource, TimerSource
from dora_config.errors import Severity
from dora_config.yaml.document import KeyPath
from dora_config.yaml.suggest import closest, closest_name

MAX_SUGGESTIONS = 50
"""Each costs a comparison with all names, which a file with thousands of mistakes would notice."""


@dataclass(frozen=True, slots=True)
class GraphFinding:
    """A problem at `path` within a node of the resolved dataflow."""

    node: str
    path: KeyPath
    message: str
    hint: str | None = None
    severity: Severity = "error"


@dataclass(frozen=True)
class Unreadable:
    """What the graph must not be blamed for, because parts of the file could not be read."""

    nodes: frozenset[str] = frozenset()
    some_node_lost: bool = False


def check_graph(
    dataflow: ResolvedDataflow,
    unreadable: Unreadable = Unreadable(),
    written: Mapping[tuple[str, str], str] | None = None,
) -> Iterator[GraphFinding]:
    """Everything that is wrong between the nodes; `written` has the source texts of inputs."""
    yield from _duplicates(dataflow)
    sources = _SourceCheck(dataflow, unreadable, written or {})
    for node in dataflow.nodes:
        yield from sources.check(node)
        yield from _ports(node, unreadable)
    yield from backpressure_cycles(dataflow)


def _duplicates(dataflow: ResolvedDataflow) -> Iterator[GraphFinding]:
    seen: set[str] = set()
    for node in dataflow.nodes:
        if node.id in seen:
            message = f'duplicate node ID "{node.id}": ids must be unique once modules are applied'
            yield GraphFinding(node.id, ("id",), message)
        seen.add(node.id)


class _SourceCheck:
    """Whether the sources of inputs exist, and what was probably meant where they do not."""

    def __init__(
        self,
        dataflow: ResolvedDataflow,
        unreadable: Unreadable,
        written: Mapping[tuple[str, str], str],
    ) -> None:
        self._nodes = {node.id: node for node in dataflow.nodes}
        self._unreadable = unreadable
        self._written = written
        self._suggestions_left = MAX_SUGGESTIONS

    def check(self, node: ResolvedNode) -> Iterator[GraphFinding]:
        for name, wanted in node.inputs.items():
            place: KeyPath = ("inputs", name, "source")
            match wanted.source:
                case OutputSource() as source:
                    text = self._written.get((node.id, name), str(source))
                    message = f"output `{text}` mapped to input `{node.id}/{name}` does not exist"
                    found = self._missing(source, message)
                    if found is not None:
                        yield GraphFinding(node.id, place, *found)
                case TimerSource() if wanted.input_timeout is not None:
                    timer: KeyPath = ("inputs", name, "input_timeout")
                    message = (
                        f"input `{node.id}/{name}`: input_timeout has no effect on a timer, which "
                        "always goes on"
                    )
                    yield GraphFinding(node.id, timer, message, "remove it", "warning")
                case LogSource(node=str(watched)) if watched not in self._nodes:
                    if not self._unreadable.some_node_lost:
                        message = (
                            f"input `{node.id}/{name}` reads the logs of node "
                            f'"{watched}", which does not exist'
                        )
                        hint = _did_you_mean(self._closest(watched, self._nodes))
                        yield GraphFinding(node.id, place, message, hint, "warning")

    def _missing(self, source: OutputSource, message: str) -> tuple[str, str | None] | None:
        """Message and hint about a source that does not exist; None if it may."""
        producer = self._nodes.get(source.node)
        if producer is None:
            if source.node in self._unreadable.nodes or self._unreadable.some_node_lost:
                return None
            return self._unknown_node(source, message)
        if source.output in producer.outputs or source.node in self._unreadable.nodes:
            return None
        outputs = list(producer.outputs)
        if not outputs:
            message += f': node "{producer.id}" has no outputs'
            return message, f'add `outputs: [{source.output}]` to "{producer.id}"'
        near = self._closest(source.output, outputs)
        message += f': node "{producer.id}" has outputs {_listed(outputs)}'
        return message, _did_you_mean(near and f"{producer.id}/{near}")

    def _unknown_node(self, source: OutputSource, message: str) -> tuple[str, str | None]:
        message += f': there is no node "{source.node}"'
        near = self._closest(source.node, self._nodes)
        if near is not None:
            exact = source.output in self._nodes[near].outputs
            return message, _did_you_mean(f"{near}/{source.output}" if exact else near)
        owners = [node.id for node in self._nodes.values() if source.output in node.outputs]
        if len(owners) == 1:
            return message, _did_you_mean(f"{owners[0]}/{source.output}")
        return f"{message}, only {_listed([*self._nodes])}", None

    def _closest(self, name: str, known: Iterable[str]) -> str | None:
        """The known name that is nearest; after many, a file has another problem, so no more."""
        if self._suggestions_left == 0:
            return None
        self._suggestions_left -= 1
        return closest_name(name, known)


def _did_you_mean(name: str | None) -> str | None:
    return f'did you mean "{name}"?' if name is not None else None


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown or "none"


def _ports(node: ResolvedNode, unreadable: Unreadable) -> Iterator[GraphFinding]:
    if node.id in unreadable.nodes:
        return
    where = f'node "{node.id}"'
    for setting in ("send_stdout_as", "send_logs_as"):
        output = getattr(node, setting)
        if output is not None and output not in node.outputs:
            message = f'{where}: `{setting}` names "{output}", which is not among its outputs'
            if node.operators:
                message += f": {_listed(list(node.outputs))}"
            hint = f"add it: `outputs: [{', '.join([*node.outputs, output])}]`"
            yield GraphFinding(node.id, (setting,), message, hint)
    if node.send_stdout_as is not None and node.send_stdout_as == node.send_logs_as:
        message = f"{where}: `send_stdout_as` and `send_logs_as` name the same output"
        yield GraphFinding(node.id, ("send_logs_as",), message, severity="warning")
    for group in ("output_framing", "output_metadata"):
        for output in getattr(node, group):
            if output not in node.outputs:
                message = (
                    f'{where}: `{group}` names "{output}", which is not among its outputs: '
                    f"{_listed(list(node.outputs))}{closest(output, node.outputs)}"
                )
                yield GraphFinding(node.id, (group, output), message)
    if node.pattern is not None and not node.outputs:
        message = f"{where}: a {node.pattern} sends messages, but has no outputs"
        yield GraphFinding(node.id, ("pattern",), message)


def backpressure_cycles(dataflow: ResolvedDataflow) -> Iterator[GraphFinding]:
    """A warning for each group of nodes that can wait for each other's full queues for ever."""
    readers: dict[str, list[str]] = {node.id: [] for node in dataflow.nodes}
    entry: dict[tuple[str, str], str] = {}
    for node in dataflow.nodes:
        for name, wanted in node.inputs.items():
            source = wanted.source
            if wanted.queue_policy != "backpressure" or not isinstance(source, OutputSource):
                continue
            if source.node in readers:
                readers[source.node].append(node.id)
                entry[source.node, node.id] = name
    for cycle in cycles(readers):
        first, second = cycle[0], cycle[1 % len(cycle)]
        path = " -> ".join([*cycle, cycle[0]])
        message = (
            f"backpressure cycle {path}: each node can wait for room at the next one, "
            "and then none of them goes on"
        )
        hint = "give one of these inputs `queue_policy: drop_oldest`"
        place: KeyPath = ("inputs", entry[first, second], "queue_policy")
        yield GraphFinding(second, place, message, hint, "warning")


def cycles(successors: Mapping[str, list[str]]) -> Iterator[list[str]]:
    """One cycle for each back edge of a depth-first walk, without recursion."""
    done: set[str] = set()
    for start in successors:
        if start in done:
            continue
        trail: list[str] = [start]
        on_trail = {start: 0}
        pending = [iter(successors[start])]
        while pending:
            following = next(pending[-1], None)
            if following is None:
                pending.pop()
                finished = trail.pop()
                del on_trail[finished]
                done.add(finished)
            elif following in on_trail:
                yield trail[on_trail[following] :]
            elif following not in done:
                on_trail[following] = len(trail)
                trail.append(following)
                pending.append(iter(successors[following]))
