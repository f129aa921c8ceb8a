"""Run the operators of a runtime node in one process: `python -m dora_node_api.operators`.

The node's inputs and outputs are named `operator/port`. An event goes to its operator, with the
names of the operator's ports; all operators run on the main thread, in the order of their events.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dora_node_api.backends.backend import TimedOut
from dora_node_api.errors import OperatorError, SetUpError
from dora_node_api.protocol.launch_config import CONFIG_VARIABLE, LaunchConfig
from dora_node_api.protocol.messages import NodeConfig, OperatorConfig

if TYPE_CHECKING:
    from dora_node_api.joined import SampleQueue
    from dora_node_api.node import Node
    from dora_node_api.protocol.session import Event

SendOutput = Callable[..., None]
_INSTALLED = frozenset(("site-packages", "dist-packages"))
_MODULE_PREFIX = "dora_operator_"


class DoraStatus(Enum):
    """Result of an operator's `on_event`."""

    CONTINUE = 0
    STOP = 1
    """End this operator."""
    STOP_ALL = 2
    """Stop the whole dataflow."""


def _module_name(config: OperatorConfig) -> str:
    return f"{_MODULE_PREFIX}{config.id}"


def load_class(config: OperatorConfig) -> type[Any]:
    """Import an operator's file and return its class `Operator`. Raises OperatorError."""
    path = Path(config.python).absolute()
    if not path.is_file():
        raise OperatorError(f"operator `{config.id}`: file {path} does not exist")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    name = _module_name(config)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise OperatorError(f"operator `{config.id}`: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Pickling and dataclasses in the file look the module up here.
    sys.modules[name] = module
    if isinstance(spec.loader, SourceFileLoader):
        # Its cache may contain another version of a file that was saved twice within a second.
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)
    else:
        spec.loader.exec_module(module)
    operator = getattr(module, "Operator", None)
    if not isinstance(operator, type):
        raise OperatorError(f"operator `{config.id}`: {path} has no `class Operator`")
    return operator


def _own_modules(folder: Path) -> dict[str, Path]:
    """Return the imported modules in a folder of operators or below, with their files."""
    found: dict[str, Path] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or name == "__main__" or name.startswith(_MODULE_PREFIX):
            continue
        path = Path(file)
        if path.is_relative_to(folder) and not _INSTALLED.intersection(path.parts):
            found[name] = path
    return found


def _saved_since(path: Path, moment_ns: int) -> bool:
    try:
        return path.stat().st_mtime_ns > moment_ns
    except OSError:  # removed: a new import fails, and the old version continues
        return True


def construct(operators: Iterable[OperatorConfig]) -> dict[str, Any]:
    """Import the files of operators and return an object of each. Raises OperatorError."""
    return {config.id: load_class(config)() for config in operators}


class RunningOperator:
    """One operator: its object, its open inputs, and whether it has ended."""

    def __init__(
        self,
        config: OperatorConfig,
        made: Any,
        node: Node,
        node_config: NodeConfig,
        loaded: dict[Path, int],
    ) -> None:
        """`loaded`: when the modules in a folder were imported; shared by all operators."""
        self.config = config
        self.ended = False
        self._node = node
        self._descriptor = node_config.descriptor
        self._tolerant = False
        """Exceptions are only logged after a reload."""
        self._prefix = f"{config.id}/"
        own = [entry for entry in node_config.inputs if entry.id.startswith(self._prefix)]
        self.inputs = {entry.id: entry for entry in own}
        kinds = ("output",) if node_config.exit_when_nodes_finish else ("output", "timer", "logs")
        self._open = {entry.id for entry in own if entry.source_kind in kinds}
        self.object = made
        self._samples = self._join(made)
        made.dataflow_descriptor = self._descriptor
        self._folder = Path(config.python).absolute().parent
        self._loaded = loaded
        loaded.setdefault(self._folder, time.time_ns())

    def _join(self, made: Any) -> SampleQueue | None:
        """Return the join of the inputs that the operator names in `joined`.

        Raises OperatorError.
        """
        if (join := getattr(made, "joined", None)) is None:
            return None
        from dora_node_api.joined import Join, SampleQueue

        if not isinstance(join, Join):
            raise OperatorError(
                f"operator `{self.config.id}`: `joined` is {join!r:.80}; expected"
                ' dora.Join("INPUT", ..., within=SECONDS)'
            )
        try:
            return SampleQueue(join, self._node._backend, self._prefix)
        except ValueError as error:
            raise OperatorError(f"operator `{self.config.id}`: {error}") from None

    def reload(self) -> None:
        """Import the file again; the new object takes over the attributes of the old one.

        If one of its own modules was saved since, all of them are imported again: others have
        names that they took from it.
        """
        name = _module_name(self.config)
        former = {name: sys.modules[name]}
        own, begin = _own_modules(self._folder), time.time_ns()
        if any(_saved_since(path, self._loaded[self._folder]) for path in own.values()):
            former.update((module, sys.modules.pop(module)) for module in own)
            importlib.invalidate_caches()
        try:
            fresh = load_class(self.config)()
            fresh.dataflow_descriptor = self._descriptor
            fresh.__dict__.update(self.object.__dict__)  # fails with __slots__
            samples = self._join(fresh)
        except (Exception, SystemExit):  # noqa: BLE001 - user code: the old version continues
            sys.modules.update(former)
            self._report("cannot be reloaded; the old version continues")
            return
        self.object = fresh
        if samples is None or self._samples is None or samples.join != self._samples.join:
            self._samples = samples
        self._loaded[self._folder] = begin
        self._tolerant = True

    def concerned(self, event: Event) -> Event | None:
        """Return the event with the operator's names; None if it is another operator's."""
        match event["type"]:
            case "INPUT" | "INPUT_CLOSED" | "INPUT_RECOVERED" | "INPUT_ENDED":
                if event["id"] not in self.inputs:
                    return None
                own = event.copy()
                own["id"] = event["id"].removeprefix(self._prefix)
                return own
            case "NODE_RESTARTED":
                sources = {entry.source_node for entry in self.inputs.values()}
                return event if event["id"] in sources else None
            case "NODE_FAILED":
                value = event["value"]
                affected = [
                    name.removeprefix(self._prefix)
                    for name in value["affected_input_ids"]
                    if name in self.inputs
                ]
                if not affected:
                    return None
                return {**event, "value": {**value, "affected_input_ids": affected}}
            case _:
                return event

    def seconds_left(self) -> float | None:
        """Return when `handle_samples` may have a sample although nothing arrives; None: never."""
        return None if self._samples is None else self._samples.seconds_left()

    def handle_samples(self) -> DoraStatus:
        """Pass the samples that are complete, and events that waited for them, to the operator."""
        status = DoraStatus.CONTINUE
        while self._samples is not None and status is DoraStatus.CONTINUE:
            try:
                event = self._samples.take()
            except LookupError:
                break
            if event is not None:
                status = self._handle(event)
        return status

    def handle(self, event: Event) -> DoraStatus:
        """Pass an event to the operator; return STOP after its last input."""
        if self._samples is None:
            return self._handle(event)
        self._samples.put(event)
        return self.handle_samples()

    def _handle(self, event: Event) -> DoraStatus:
        if event["type"] == "INPUT_ENDED":
            self._open.discard(self._prefix + event["id"])
            if self._open:
                return DoraStatus.CONTINUE
            event = {"type": "STOP", "id": "ALL_INPUTS_CLOSED", "kind": "dora"}
        status = self._call(event)
        if event["type"] == "STOP" and status is DoraStatus.CONTINUE:
            return DoraStatus.STOP
        return status

    def _call(self, event: Event) -> DoraStatus:
        try:
            returned = self.object.on_event(event, self.send_output)
        except Exception:
            if not self._tolerant:
                raise
            self._report("raised an exception after a reload; the event is skipped")
            return DoraStatus.CONTINUE
        try:
            return DoraStatus(getattr(returned, "value", None))
        except ValueError:
            raise OperatorError(
                f"operator `{self.config.id}` returned {returned!r} from on_event; expected"
                " DoraStatus.CONTINUE, STOP or STOP_ALL"
            ) from None

    def send_output(
        self, output_id: str, data: Any, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Send a message of the operator."""
        self._node.send_output(self._prefix + output_id, data, metadata)

    def end(self) -> None:
        """End the operator: it gets no more events and its outputs close."""
        self.ended = True
        self._node.close_outputs(tuple(self._prefix + output for output in self.config.outputs))

    def _report(self, what: str) -> None:
        message = f"operator `{self.config.id}` {what}\n{traceback.format_exc()}"
        self._node.log_error(message, target=self.config.id)


class OperatorHost:
    """All operators of a node."""

    def __init__(self, node: Node, config: NodeConfig, made: Mapping[str, Any]) -> None:
        """`made`: the object of each operator."""
        self._node = node
        loaded: dict[Path, int] = {}
        self.operators = [
            RunningOperator(entry, made[entry.id], node, config, loaded)
            for entry in config.operators
        ]

    @property
    def ended(self) -> bool:
        """Whether all operators have ended."""
        return all(operator.ended for operator in self.operators)

    def handle(self, event: Event) -> None:
        """Pass an event to its operators. Exceptions of operators pass through."""
        if event["type"] == "RELOAD":
            for operator in self.operators:
                if event.get("id") in (None, operator.config.id) and not operator.ended:
                    operator.reload()
            return
        for operator in self.operators:
            if not operator.ended and (own := operator.concerned(event)) is not None:
                self._react(operator, operator.handle(own))

    def handle_samples(self) -> None:
        """Pass the samples that are complete to their operators."""
        for operator in self.operators:
            if not operator.ended:
                self._react(operator, operator.handle_samples())

    def seconds_left(self) -> float | None:
        """Return when to call `handle_samples` although nothing arrives; None: never."""
        left = (operator.seconds_left() for operator in self.operators if not operator.ended)
        return min((seconds for seconds in left if seconds is not None), default=None)

    def _react(self, operator: RunningOperator, status: DoraStatus) -> None:
        if status is not DoraStatus.CONTINUE:
            operator.end()
        if status is DoraStatus.STOP_ALL:
            self._node.stop_dataflow(f"operator `{operator.config.id}` returned STOP_ALL")


def main() -> int:
    """Run the operators of the node that DORA_NODE_CONFIG describes; return the exit code."""
    from dora_node_api.logging.logging_bridge import install
    from dora_node_api.node import Node

    try:
        made = {}
        if config := os.environ.get(CONFIG_VARIABLE):
            launch = LaunchConfig.from_text(config)
            install(launch.node_id)
            # Before the node counts as ready: imports and models of operators take time.
            made = construct(launch.operators)
        node = Node()
        host = OperatorHost(node, node.run_config(), made)
        while not host.ended and (event := node.next(host.seconds_left())) is not None:
            if isinstance(event, TimedOut):
                host.handle_samples()
            else:
                host.handle(event)
    except (SetUpError, OperatorError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Exception:  # noqa: BLE001 - user code: the node fails
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
