"""The node: passes events of the dataflow to the gate, and sends its actions."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from dora_gate.gate import EMERGENCY, Action, Gate, GateRefused, Rest
from dora_gate.options import CONTROL, STATE, TICK, GateOptions, OptionsRefused, option_parser, read
from dora_node_api import Node

Event = Mapping[str, Any]

PATIENCE_NS = 1_000_000_000
"""Nanoseconds without a source, also after the start, until lists show that."""
_RESTS = {
    Rest.HOLD: "holds the last action",
    Rest.ZERO: "sends zeros",
    Rest.STOP: "sends nothing",
}


class GateNode:
    """Connects a gate to its node."""

    def __init__(self, node: Node, options: GateOptions, output: str) -> None:
        self._node = node
        self._output = output
        self._default = options.control
        self.gate = Gate(options.settings)
        self._sources = (*options.settings.sources, EMERGENCY)
        self._newest: dict[str, tuple[pa.DataType, dict[str, Any]]] = {}
        """Type and metadata of the newest command of each source."""
        self._obeyed = ""
        """The source that was obeyed last."""
        self._shown = ""
        """Source that is obeyed, or why no source is obeyed."""
        self._absent = False
        """Whether lists show that no source is obeyed, or an emergency."""
        self._wrong: dict[str, str] = {}
        """Problems of parameters, by name; shown in lists."""
        self._reported: str | None = None
        """Text that lists show."""
        self._obeyed_at = time.monotonic_ns()
        self._warned: set[tuple[str, str]] = set()
        known = node.node_config()["inputs"]
        node.correct_times(*(name for name in self._sources if name in known))
        self.gate.select(options.control)
        if node.is_restart() and EMERGENCY in known:
            self._node.log_error(
                "restarted, and messages of `emergency` may be lost; this is an emergency until"
                " the input receives `False`"
            )
            self.gate.alarm()

    def handle(self, event: Event) -> bool:
        """Handle one event; return whether it was a tick."""
        match event:
            case {"type": "INPUT", "id": name, "value": value, "metadata": metadata}:
                if name == TICK:
                    return True
                captured = event.get("captured_ns", time.monotonic_ns())
                try:
                    self._message(name, value, metadata, captured)
                except GateRefused as refused:
                    alarm = name == EMERGENCY and self.gate.emergency
                    effect = "this is an emergency" if alarm else "ignored"
                    self._warn(name, str(refused), effect)
            case {"type": "INPUT_CLOSED", "id": name} if name == EMERGENCY:
                self._node.log_error("the input `emergency` has ended: this is an emergency")
                self.gate.alarm()
            case {"type": "ERROR", "error": error} if error.startswith(f"input `{EMERGENCY}`:"):
                self._node.log_error(f"{error}; this is an emergency")
                self.gate.alarm()
            case {"type": "PARAM_UPDATE", "id": name, "value": value} if name == CONTROL:
                self._select(value)
            case {"type": "PARAM_DELETED", "id": name} if name == CONTROL:
                self._select(self._default)
            case {"type": "PARAM_UPDATE", "id": name}:
                self._wrong[name] = (
                    f"parameter `{name}` does not exist, only `{CONTROL}`; delete it"
                )
                self._report()
            case {"type": "PARAM_DELETED", "id": name}:
                self._wrong.pop(name, None)
                self._report()
        return False

    def _message(self, name: str, value: pa.Array, metadata: dict[str, Any], captured: int) -> None:
        """Raises GateRefused."""
        if name == CONTROL:
            self._select(value[0].as_py() if len(value) else None)
        elif name == STATE:
            self.gate.see(_numbers(value))
        elif name == EMERGENCY and _is_false(value):
            self.gate.end_emergency(captured, time.monotonic_ns())
        elif name == EMERGENCY and not _is_numeric(value):
            self.gate.alarm()
        elif name in self._sources:
            self.gate.add(name, _numbers(value), captured, time.monotonic_ns())
            self._newest[name] = value.type, metadata

    def _select(self, control: object) -> None:
        try:
            self.gate.select(control)
            self._wrong.pop(CONTROL, None)
        except GateRefused as refused:
            self._wrong[CONTROL] = f"{refused}; it stays {self.gate.control}"
        self._report()

    def cycle(self) -> None:
        """Send the action of this cycle."""
        now = time.monotonic_ns()
        action = self.gate.cycle(now)
        self._show(action, now)
        if action is None:
            return
        if action.command:
            self._obeyed = action.source
        kind, metadata = self._newest[self._obeyed]
        kept = {key: value for key, value in metadata.items() if key != "timestamp"}
        if not action.command:
            kept.pop("stamp", None)
        values = pa.array(action.values, kind if pa.types.is_floating(kind) else pa.float64())
        self._node.send_output(self._output, values, {**kept, "source": action.source})

    def _show(self, action: Action | None, now: int) -> None:
        """Log a change of the source, and show in lists why none is obeyed."""
        if action is not None and action.command:
            self._obeyed_at = now
            shown, absent = f"{action.source} is obeyed", action.source == EMERGENCY
        elif self.gate.emergency or now - self._obeyed_at >= PATIENCE_NS:
            rest = "sends nothing" if action is None else _RESTS[self.gate.settings.rest]
            shown, absent = f"{rest}: {self.gate.why_none}", True
        else:
            return
        if shown == self._shown:
            return
        self._shown, self._absent = shown, absent
        self._report()
        if not absent:
            self._node.log_info(shown)

    def _report(self) -> None:
        """Show in lists why no source is obeyed, and what is wrong."""
        texts = [self._shown] if self._absent else []
        text = "; ".join([*texts, *self._wrong.values()]) or None
        if text != self._reported:
            self._reported = text
            self._node.report_waiting(text)  # which also logs it

    def _warn(self, name: str, problem: str, effect: str) -> None:
        """Log a problem of an input, each kind once."""
        kind = (name, "".join(letter for letter in problem if letter not in "0123456789.e-+"))
        if kind not in self._warned:
            self._warned.add(kind)
            self._node.log_warn(f"input `{name}`: {problem}; {effect} (reported once)")


def _is_false(value: pa.Array) -> bool:
    return pa.types.is_boolean(value.type) and set(value.to_pylist()) == {False}


def _is_numeric(value: pa.Array) -> bool:
    """Whether all values are numbers."""
    numeric = pa.types.is_floating(value.type) or pa.types.is_integer(value.type)
    return bool(numeric and not value.null_count)


def _numbers(value: pa.Array) -> list[float]:
    """Raises GateRefused."""
    if not _is_numeric(value):
        raise GateRefused(f"a message is {value.type}; expected an array of numbers without null")
    return [float(number) for number in value.to_pylist()]


def _batches(node: Node) -> Iterator[list[Event]]:
    """Yield all waiting events as one batch, so that a tick follows the commands sent before it."""
    for event in node:
        batch: list[Event] = [event]
        while len(batch) < _MAX_EVENTS and (more := node.try_recv()) is not None:
            batch.append(more)
        yield batch


_MAX_EVENTS = 100
"""Most events that are handled before a cycle."""


def run(node: Node, arguments: list[str]) -> None:
    """Decide until the node stops."""
    config = node.node_config()
    try:
        options = read(arguments, config["inputs"], config["outputs"])
    except OptionsRefused as refused:
        sys.exit(f"dora-gate: {refused}")
    gate = GateNode(node, options, config["outputs"][0])
    for batch in _batches(node):
        ticks = [event for event in batch if gate.handle(event)]
        if ticks:
            gate.cycle()
        if batch[-1]["type"] == "STOP":
            return


def main() -> None:
    """The script `dora-gate`."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        option_parser().print_help()
        return
    run(Node(), arguments)


if __name__ == "__main__":
    main()
