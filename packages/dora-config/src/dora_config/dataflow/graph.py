"""Checks across nodes: sources, ports and backpressure cycles; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from dora_config.dataflow.modules import FlatNode
from dora_config.dataflow.resolved import ResolvedNode
from dora_config.dataflow.sources import InputSource, LogSource, OutputSource, TimerSource
from dora_config.errors import Problem
from dora_config.yaml.suggest import closest, closest_name, did_you_mean

MAX_COMPARISONS = 100_000
"""Limit per file of comparisons with known names, after which there are no more suggestions."""


def check_graph(
    nodes: Sequence[ResolvedNode], flat: Sequence[FlatNode], unused_inputs: Sequence[FlatNode]
) -> Iterator[Problem]:
    """Yield all problems between nodes, of which `flat` has the positions.

    `unused_inputs` are nodes with a module whose inputs no inner node reads.
    """
    sources = _SourceCheck(nodes)
    for one in (*flat, *unused_inputs):
        yield from sources.check(one)
    for node, one in zip(nodes, flat, strict=True):
        yield from _ports(node, one)
    yield from _backpressure_cycles(nodes, flat)
    yield from _backpressure_on_lines(nodes, flat)
    yield from _without_beginning(nodes, flat)


class _SourceCheck:
    """Checks that the sources of inputs exist, and suggests corrections."""

    def __init__(self, nodes: Sequence[ResolvedNode]) -> None:
        # nodes with the same id are merged: the duplicate id is reported elsewhere
        self._outputs: dict[str, dict[str, None]] = {}
        self._owners: dict[str, set[str]] = {}
        """Nodes by output."""
        for node in nodes:
            self._outputs.setdefault(node.id, {}).update(dict.fromkeys(node.outputs))
            for output in node.outputs:
                self._owners.setdefault(output, set()).add(node.id)
        self._known_nodes = _listed(self._outputs)
        self._comparisons_left = MAX_COMPARISONS

    def check(self, node: FlatNode) -> Iterator[Problem]:
        """Yield all problems of the sources of the node's inputs."""
        for name, wired in node.inputs.items():
            place = wired.place.at("source")
            match wired.source:
                case OutputSource() as source:
                    text = wired.written.source
                    message = f"output `{text}` mapped to input `{node.id}/{name}` does not exist"
                    if (found := self._missing(source, message)) is not None:
                        yield place.problem(*found)
                case TimerSource() | LogSource() if wired.written.compress is not None:
                    message = (
                        f"input `{node.id}/{name}`: compress has no effect on timers and log lines"
                    )
                    at = wired.place.at("compress")
                    yield at.problem(message, "remove it", severity="warning")
                case TimerSource() if wired.written.input_timeout is not None:
                    message = (
                        f"input `{node.id}/{name}`: input_timeout has no effect on a timer, which "
                        "never stops"
                    )
                    timer = wired.place.at("input_timeout")
                    yield timer.problem(message, "remove it", severity="warning")
                case LogSource(node=str(watched)) if watched not in self._outputs:
                    message = (
                        f"input `{node.id}/{name}` reads the logs of node "
                        f'"{watched}", which does not exist'
                    )
                    hint = did_you_mean(self._closest(watched, self._outputs))
                    yield place.problem(message, hint, severity="warning")

    def _missing(self, source: OutputSource, message: str) -> tuple[str, str | None] | None:
        """Return message and hint for a source that does not exist; None if it exists."""
        outputs = self._outputs.get(source.node)
        if outputs is None:
            return self._unknown_node(source, message)
        if source.output in outputs:
            return None
        if not outputs:
            message += f': node "{source.node}" has no outputs'
            operator, slash, name = source.output.rpartition("/")
            owner = f'operator "{operator}" of "{source.node}"' if slash else f'"{source.node}"'
            return message, f"add `outputs: [{name}]` to {owner}"
        near = self._closest(source.output, outputs)
        message += f': node "{source.node}" has outputs {_listed(outputs)}'
        return message, did_you_mean(near and f"{source.node}/{near}")

    def _unknown_node(self, source: OutputSource, message: str) -> tuple[str, str | None]:
        message += f': node "{source.node}" does not exist'
        near = self._closest(source.node, self._outputs)
        if near is not None:
            exact = source.output in self._outputs[near]
            return message, did_you_mean(f"{near}/{source.output}" if exact else near)
        owners = self._owners.get(source.output, set())
        if len(owners) == 1:
            return message, did_you_mean(f"{next(iter(owners))}/{source.output}")
        return f"{message}, known nodes: {self._known_nodes}", None

    def _closest(self, name: str, known: Collection[str]) -> str | None:
        """Return the closest known name, within the limit of `MAX_COMPARISONS`."""
        self._comparisons_left -= len(known)
        return closest_name(name, known) if self._comparisons_left > 0 else None


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(islice(names, 8))
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown or "none"


def _ports(node: ResolvedNode, flat: FlatNode) -> Iterator[Problem]:
    where = f'node "{node.id}"'
    for setting in ("send_stdout_as", "send_logs_as"):
        output = getattr(node, setting)
        if output is not None and output not in node.outputs:
            operator, slash, name = output.rpartition("/")
            prefix = operator + slash
            own = [one.removeprefix(prefix) for one in node.outputs if one.startswith(prefix)]
            place = f'{where}: operator "{operator}"' if operator else where
            message = (
                f'{place}: `{setting}` is "{name}", which is not among its outputs: nothing is sent'
            )
            hint = f"add it: `outputs: [{', '.join([*own, name])}]`"
            yield flat.at(setting).problem(message, hint, severity="warning")
    if node.send_stdout_as is not None and node.send_stdout_as == node.send_logs_as:
        message = f"{where}: `send_stdout_as` and `send_logs_as` are the same output"
        yield flat.at("send_logs_as").problem(message, severity="warning")
    for group in ("output_framing", "output_metadata"):
        for output in getattr(node, group):
            if output not in node.outputs:
                message = (
                    f'{where}: `{group}` contains "{output}", which is not among its outputs: '
                    f"{_listed(node.outputs)}{closest(output, node.outputs)}"
                )
                yield flat.at(group, output).problem(message)
    if node.pattern is not None and not node.outputs:
        message = f"{where}: `pattern` {node.pattern} needs an output"
        yield flat.at("pattern").problem(message)


_WAITING_KINDS = frozenset({"standard", "url", "runtime"})
"""Kinds of nodes that usually wait for a message; others may send by themselves."""


def _backpressure_cycles(
    nodes: Sequence[ResolvedNode], flat: Sequence[FlatNode]
) -> Iterator[Problem]:
    """Yield a warning for each cycle of nodes that can block each other forever."""
    waiting = {  # an id may occur several times, which is reported elsewhere
        (source, nodes[position].id): flat[position].at("inputs", name)
        for position, name, source in _blocking_inputs(nodes)
    }
    for cycle in cycles(backpressure_readers(nodes)):
        place = waiting[cycle[0], cycle[1 % len(cycle)]].at("queue_policy")
        path = " -> ".join([*cycle, cycle[0]])
        message = (
            f"backpressure cycle {path}: each node can wait for space in the queue of the "
            "next, which blocks all of them"
        )
        hint = "give one of these inputs `queue_policy: drop_oldest`"
        yield place.problem(message, hint, severity="warning")


def _without_beginning(
    nodes: Sequence[ResolvedNode], flat: Sequence[FlatNode]
) -> Iterator[Problem]:
    """Yield a remark if nodes receive messages only from each other: none may send first."""
    known = {node.id for node in nodes}
    readers: dict[str, list[str]] = {}
    begun: list[str] = []
    for node in nodes:
        sources = [one.source for one in node.inputs.values()]
        for source in sources:
            if isinstance(source, OutputSource):
                readers.setdefault(source.node, []).append(node.id)
        others = (not isinstance(one, OutputSource) or one.node not in known for one in sources)
        if not sources or node.kind not in _WAITING_KINDS or any(others):
            begun.append(node.id)
    reached = set(begun)
    while begun:
        found = set(readers.get(begun.pop(), ())) - reached
        reached |= found
        begun += found
    left = [(node.id, one) for node, one in zip(nodes, flat, strict=True) if node.id not in reached]
    if left:
        listed = ", ".join(f'"{node_id}"' for node_id, _ in left)
        message = f"nodes {listed} receive messages only of each other"
        if len(left) == 1:
            message = f"node {listed} receives only its own messages"
        hint = "one of them must send before it receives, or have another input, such as a timer"
        yield left[0][1].at("inputs").problem(message, hint, severity="info")


def backpressure_readers(nodes: Sequence[ResolvedNode]) -> dict[str, list[str]]:
    """Return the nodes whose full queues each node waits for."""
    readers: dict[str, list[str]] = {node.id: [] for node in nodes}
    for position, _, source in _blocking_inputs(nodes):
        readers.setdefault(source, []).append(nodes[position].id)
    return readers


def _blocking_inputs(nodes: Sequence[ResolvedNode]) -> Iterator[tuple[int, str, str]]:
    """Yield the position of a node, its input, and the node that waits while that is full."""
    printed = _printed_outputs(nodes)
    for position, node in enumerate(nodes):
        for name, wanted in node.inputs.items():
            if wanted.waiting_node is not None and wanted.source not in printed:
                yield position, name, wanted.waiting_node


def _backpressure_on_lines(
    nodes: Sequence[ResolvedNode], flat: Sequence[FlatNode]
) -> Iterator[Problem]:
    """Yield a warning for each input with backpressure that reads log entries or printed lines."""
    printed = _printed_outputs(nodes)
    for node, one in zip(nodes, flat, strict=True):
        for name, wanted in node.inputs.items():
            lines = isinstance(wanted.source, LogSource) or wanted.source in printed
            if wanted.queue_policy == "backpressure" and lines:
                message = (
                    f"input `{node.id}/{name}`: queue_policy backpressure has no effect on log "
                    "entries and printed lines: a full queue drops the oldest"
                )
                place = one.at("inputs", name).at("queue_policy")
                yield place.problem(message, "remove it", severity="warning")


def _printed_outputs(nodes: Iterable[ResolvedNode]) -> frozenset[InputSource]:
    """Return the outputs that consist of lines that nodes print."""
    return frozenset(
        OutputSource(node=node.id, output=output)
        for node in nodes
        for output in node.printed_outputs
    )


def cycles(successors: Mapping[str, list[str]]) -> Iterator[list[str]]:
    """Yield one cycle for each back edge of a depth-first search, without recursion."""
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
