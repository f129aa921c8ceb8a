"""Replacement of nodes with a module by the nodes of its file; pure.

The result is flat. Inner nodes are named `user.inner`. An inner input from a port of the module
reads what the user connects to the port; a reader of the module's output reads the inner node that
has this output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from dora_config.dataflow import descriptor
from dora_config.dataflow.fields import split_words
from dora_config.dataflow.modules import FlatNode, ModuleFile, SourceNode, WiredInput, programs_of
from dora_config.dataflow.resolved import EnvValue
from dora_config.dataflow.sources import MODULE_PORT_PREFIX, LogSource, OutputSource, parse_source
from dora_config.dataflow.variables import (
    UndefinedVariable,
    expand_parameters,
    expand_variables,
    is_reserved,
)
from dora_config.errors import Problem
from dora_config.yaml.document import Place
from dora_config.yaml.scalars import for_a_program
from dora_config.yaml.suggest import closest
from dora_config.yaml.wording import show

Value = TypeVar("Value")

_PORT_NODE = MODULE_PORT_PREFIX.rstrip("/")


INHERITED = ("build", "deploy", "cpu_affinity", "warm")
"""Fields that a node of a module inherits from the node that uses the module."""


def _nearest(*values: Value | None) -> Value | None:
    """Return the first value that is set: of the node, of its module, of the module's user."""
    return next((value for value in values if value is not None), None)


@dataclass(frozen=True)
class _Scope:
    """Context of the nodes of one file at one use of the file."""

    directory: str = ""
    prefix: str = ""
    ports: Mapping[str, WiredInput | None] | None = None
    env: Mapping[str, EnvValue] = field(default_factory=dict)
    inherited: Mapping[str, Any] = field(default_factory=dict)
    """Values of `INHERITED`."""
    parameters: Mapping[str, str] = field(default_factory=dict)


def _inherited(node: descriptor.Node, scope: _Scope) -> dict[str, Any]:
    return {name: _nearest(getattr(node, name), scope.inherited.get(name)) for name in INHERITED}


class Flattening:
    """Flattens the nodes of a file and its modules; collects problems."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[Problem] = []
        self.nodes: list[FlatNode] = []
        self.unused_inputs: list[FlatNode] = []
        """Nodes with a module, with those of their inputs that no inner node reads."""
        self.used_ports: set[tuple[str, str]] = set()
        """Ports that inner nodes read, as the prefix of the module's nodes and the port."""

    def run(self, nodes: tuple[SourceNode, ...]) -> None:
        """Append the flat nodes of a dataflow file to `self.nodes`."""
        self._flatten(nodes, _Scope())

    def environment(
        self,
        env: Mapping[str, EnvValue] | None,
        place: Place,
        where: str,
        parameters: Mapping[str, str] | None = None,
    ) -> dict[str, EnvValue]:
        """Return the variables of an `env`, expanded and without reserved names."""
        values: dict[str, EnvValue] = {}
        lookup = {**self._environ, **parameters} if parameters else self._environ
        for name, value in (env or {}).items():
            here = place.at(name)
            if is_reserved(name):
                message = f"{where}: environment variable {name} is reserved and is ignored"
                self.problems.append(here.problem(message, at_key=True, severity="warning"))
                continue
            if isinstance(value, str):
                try:
                    value = expand_variables(value, lookup)
                except UndefinedVariable as error:
                    hint = (
                        f"set it, write ${{{error.name}:-default}}, or {{__dora_env: {error.name}}}"
                        " to use the value of the node's machine"
                    )
                    self.report(here, f"{where}: env {name}: {error}", hint)
            values[name] = value
        return values

    def report(self, place: Place, message: str, hint: str | None = None) -> None:
        """Add an error at a place."""
        self.problems.append(place.problem(message, hint))

    def _flatten(self, nodes: tuple[SourceNode, ...], scope: _Scope) -> None:
        local = {source.node.id for source in nodes}
        outputs = {
            source.node.id: self._module_outputs(source.module)
            for source in nodes
            if source.module is not None
        }
        wiring = _Wiring(self, scope, local, outputs)
        for source in nodes:
            if source.module is not None:
                self._use_module(source, source.module, scope, wiring)
            else:
                self.nodes.append(self._flat_node(source, scope, wiring))

    def _flat_node(self, source: SourceNode, scope: _Scope, wiring: _Wiring) -> FlatNode:
        node = source.node
        where = f'node "{node.id}"'
        env = self.environment(node.env, source.place.at("env"), where, scope.parameters)
        inputs: dict[str, WiredInput] = {}
        for prefix, program, path in programs_of(node):
            wired = wiring.inputs(program.inputs, source.place.at(*path), where)
            inputs |= {prefix + name: value for name, value in wired.items()}
        own = {**_inherited(node, scope), "args": self._args(source, scope, where)}
        return FlatNode(
            id=scope.prefix + node.id,
            node=node.model_copy(update=own),
            place=source.place,
            directory=scope.directory,
            env={**scope.env, **env},
            inputs=inputs,
        )

    def _args(self, source: SourceNode, scope: _Scope, where: str) -> str | None:
        """Return `args` with the module's parameters, which must not break its quotes."""
        args = source.node.args
        if args is None or scope.ports is None:
            return args
        place = source.place.at("args")
        try:
            expanded = expand_parameters(args, scope.parameters)
            split_words(expanded, "node args once parameters are in place")
        except UndefinedVariable as error:
            name = error.name.removeprefix("PARAM_").lower()
            message = f"{where}: args contain ${error.name}, but the module has no such param"
            hint = f"set `params: {{{name}: ...}}` where the module is used"
            self.report(place, message, hint)
        except ValueError as error:
            self.report(place, f"{where}: {error}")
        else:
            return expanded
        return None

    def _use_module(
        self, source: SourceNode, module: ModuleFile, scope: _Scope, wiring: _Wiring
    ) -> None:
        node = source.node
        where = f'node "{node.id}"'
        given = wiring.inputs(node.inputs, source.place, where)
        ports = self._ports(source, module.root.module, given)
        parameters = {**scope.parameters, **self._parameters(source, scope)}
        env = self.environment(node.env, source.place.at("env"), where, scope.parameters)
        inherited = _inherited(node, scope)
        inner = _Scope(
            directory=module.directory,
            prefix=f"{scope.prefix}{node.id}.",
            ports=ports,
            env={**scope.env, **parameters, **env},
            inherited={**inherited, "build": _nearest(module.root.build, inherited["build"])},
            parameters=parameters,
        )
        self._flatten(module.nodes, inner)
        unused = {
            name: wired
            for name, wired in given.items()
            if (inner.prefix, name) not in self.used_ports
        }
        if unused:
            self.unused_inputs.append(
                FlatNode(
                    id=scope.prefix + node.id,
                    node=node,
                    place=source.place,
                    directory=scope.directory,
                    inputs=unused,
                )
            )

    def _ports(
        self,
        source: SourceNode,
        module: descriptor.ModuleInterface,
        given: Mapping[str, WiredInput],
    ) -> dict[str, WiredInput | None]:
        inputs, place = source.node.inputs or {}, source.place.at("inputs")
        required = module.inputs or []
        known = [*required, *(module.inputs_optional or ())]
        where = f'node "{source.node.id}": module "{module.name}"'
        for name in required:
            if name not in inputs:
                self.report(place, f'{where} requires input "{name}"')
        for name in inputs:
            if name not in known:
                expected = f"{', '.join(known) or 'none'}{closest(name, known)}"
                message = f'{where} has no input "{name}", expected {expected}'
                self.problems.append(place.at(name).problem(message, at_key=True))
        return {name: given.get(name) for name in known}

    def _parameters(self, source: SourceNode, scope: _Scope) -> dict[str, str]:
        parameters: dict[str, str] = {}
        for key, value in (source.node.params or {}).items():
            place = source.place.at("params", key)
            where = f'node "{source.node.id}": param "{key}"'
            if not isinstance(value, bool | int | float | str):
                message = f"{where}: expected a text, number or boolean, found {show(value)}"
                self.report(place, message)
                continue
            name = "PARAM_" + key.upper()
            if not name.replace("-", "_").isidentifier() or not name.isascii():
                message = f"{where}: expected a name of letters, digits and '_'"
                self.problems.append(place.problem(message, at_key=True))
                continue
            try:
                parameters[name] = expand_parameters(for_a_program(value), scope.parameters)
            except UndefinedVariable as error:
                self.report(place, f"{where}: parameter ${error.name} is not defined")
        return parameters

    def _module_outputs(self, module: ModuleFile) -> dict[str, tuple[str, str]]:
        """Return inner node (relative to the user's id) and output by output of the module."""
        makers: dict[str, list[tuple[str, str]]] = {}
        for source in module.nodes:
            node = source.node
            if source.module is not None:
                for name, (deeper, output) in self._module_outputs(source.module).items():
                    makers.setdefault(name, []).append((f"{node.id}.{deeper}", output))
            for prefix, program, _ in programs_of(node):
                for name in program.outputs or ():
                    makers.setdefault(name, []).append((node.id, prefix + name))
        outputs: dict[str, tuple[str, str]] = {}
        for index, name in enumerate(module.root.module.outputs or ()):
            found = makers.get(name, [])
            if found:
                outputs[name] = found[0]
            if len(found) > 1 or not found:
                who = ", ".join(node for node, _ in found) or "none of its nodes"
                message = (
                    f'output "{name}" of module "{module.root.module.name}" must be an output of '
                    f"exactly one inner node, found {who}"
                )
                problem = module.place.at("module", "outputs", index).problem(message)
                if problem not in self.problems:
                    self.problems.append(problem)
        return outputs


@dataclass(frozen=True)
class _Wiring:
    """Translates the sources in one file to sources of the flat dataflow."""

    flattening: Flattening
    scope: _Scope
    local: set[str]
    module_outputs: Mapping[str, Mapping[str, tuple[str, str]]]

    def inputs(
        self, inputs: Mapping[str, descriptor.Input] | None, place: Place, where: str
    ) -> dict[str, WiredInput]:
        """Return the inputs of the node at `place`, except those of unconnected optional ports."""
        wired: dict[str, WiredInput] = {}
        for name, wanted in (inputs or {}).items():
            one = self._input(wanted, place.at("inputs", name), f'{where}: input "{name}"')
            if one is not None:
                wired[name] = one
        return wired

    def _input(self, wanted: descriptor.Input, place: Place, where: str) -> WiredInput | None:
        source = parse_source(wanted.source)
        own = WiredInput(source, wanted, place)
        match source:
            case OutputSource(node=node, output=port) if node == _PORT_NODE:
                return self._from_port(own, port, where)
            case OutputSource(node=node, output=output) if node in self.module_outputs:
                return self._from_module(own, node, output, where)
            case OutputSource(node=node) if node in self.local or self.scope.prefix:
                pass
            case LogSource(node=str(node)) if node in self.local:
                pass
            case _:
                return own
        return replace(own, source=source.model_copy(update={"node": self.scope.prefix + node}))

    def _from_port(self, own: WiredInput, port: str, where: str) -> WiredInput | None:
        ports = self.scope.ports
        if ports is None:
            message = f"{where}: `_mod/` is an input of a module and allowed in module files only"
            self.flattening.report(own.place.at("source"), message)
            return None
        if port not in ports:
            message = (
                f'{where}: the module has no input "{port}", '
                f"expected {', '.join(ports) or 'none'}{closest(port, ports)}"
            )
            self.flattening.report(own.place.at("source"), message)
            return None
        self.flattening.used_ports.add((self.scope.prefix, port))
        given = ports[port]
        if given is None:
            return None
        settings = own.written.model_dump(include=own.written.model_fields_set - {"source"})
        return replace(given, written=given.written.model_copy(update=settings))

    def _from_module(
        self, own: WiredInput, node: str, output: str, where: str
    ) -> WiredInput | None:
        outputs = self.module_outputs[node]
        if output not in outputs:
            message = (
                f"{where}: output `{own.written.source}` does not exist: module node "
                f'"{node}" has outputs '
                f"{', '.join(outputs) or 'none'}{closest(output, outputs)}"
            )
            self.flattening.report(own.place.at("source"), message)
            return None
        inner, inner_output = outputs[output]
        target = OutputSource(node=f"{self.scope.prefix}{node}.{inner}", output=inner_output)
        return replace(own, source=target)
