"""Load a dataflow with its modules and types from files, or report all problems.

This module reads the files; the decisions are in the pure modules.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BeforeValidator

from dora_config import plugins
from dora_config.dataflow import descriptor
from dora_config.dataflow.expand import describe_dataflow
from dora_config.dataflow.fields import FreeTextField, Text, TextField, Written
from dora_config.dataflow.graph import check_graph
from dora_config.dataflow.modules import FlatNode, ModuleFile, SourceNode, programs_of
from dora_config.dataflow.reader import NodesFile, read_nodes_file
from dora_config.dataflow.resolve import Resolution, resolve
from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedNode
from dora_config.dataflow.types import TypeCheck, TypeDefinition
from dora_config.dataflow.variables import expand_path, find_variables
from dora_config.errors import ConfigError, Problem
from dora_config.yaml.document import Document, Place
from dora_config.yaml.reader import read_document
from dora_config.yaml.text_files import MAX_FILE_BYTES, in_order, is_file, read_text
from dora_config.yaml.validation import validate

MAX_MODULE_BYTES = 1 << 20
MAX_MODULE_DEPTH = 8
MAX_MODULE_USES = 1000
MAX_TYPE_FILES = 1000


def _parameter_names(value: Any) -> list[Any]:
    """Accept names as a list, as keys of a mapping, or as `name` of mappings in a list."""
    if isinstance(value, dict):
        return list(value)
    if not isinstance(value, list):
        raise ValueError("expected a list of parameter names")
    return [one.get("name") if isinstance(one, dict) else one for one in value]


ParameterNames = Annotated[list[Text], BeforeValidator(_parameter_names)]


class FieldOfType(Written):
    """One field of a Struct."""

    name: TextField
    type: TextField
    description: FreeTextField | None = None


class TypeOfFile(Written):
    """One type; `arrow` is `Struct`, or the Arrow type such as `Float32`."""

    arrow: TextField
    description: FreeTextField | None = None
    fields: list[FieldOfType] | None = None
    parameters: ParameterNames | None = None
    params: ParameterNames | None = None


class TypeFile(Written):
    """A file of types."""

    types: dict[TextField, TypeOfFile]


def _read_types(
    document: Document, file: PurePosixPath, problems: list[Problem]
) -> Iterator[TypeDefinition]:
    """Yield the types of a file below `types/`."""
    prefix, place = file.with_suffix("").as_posix(), Place(document)
    if prefix.partition("/")[0] == "std":
        message = "names std/... are reserved for dora's own types: move the file to another folder"
        problems.append(place.problem(message))
    read = validate(TypeFile, document.data, place, problems)
    for name, one in read.types.items() if read is not None else ():
        names = one.parameters if one.parameters is not None else one.params
        yield TypeDefinition(
            name=f"{prefix}/{name}",
            arrow=one.arrow,
            fields={part.name: part.type for part in one.fields or ()},
            parameters=None if names is None else frozenset(names),
        )


@dataclass(frozen=True)
class LoadedDataflow:
    """A valid dataflow with its warnings.

    `descriptor_dict` is the expanded dataflow, for `Node.dataflow_descriptor()`.
    """

    resolved: ResolvedDataflow
    warnings: tuple[Problem, ...]
    path: Path
    descriptor_dict: dict[str, Any]
    remarks: tuple[Problem, ...] = ()
    """Information, such as inferred types."""

    @property
    def directory(self) -> Path:
        """Absolute folder of the file, or of the symbolic link to it; base of relative paths."""
        return self.path.parent.resolve()


def load_dataflow(
    path: Path | str,
    *,
    strict_types: bool | None = None,
    environ: Mapping[str, str] = os.environ,
    check_paths: bool = False,
) -> LoadedDataflow:
    """Load a dataflow file; raise `ConfigError` with all problems.

    `strict_types` overrides the setting of the file. `$VAR` is expanded from `environ`. With
    `check_paths`, missing programs are reported as warnings.
    """
    path = Path(path)
    text = read_text(path, MAX_FILE_BYTES)
    return parse_dataflow(
        text, path=path, strict_types=strict_types, environ=environ, check_paths=check_paths
    )


def parse_dataflow(
    text: str,
    *,
    path: Path | str = "dataflow.yml",
    strict_types: bool | None = None,
    environ: Mapping[str, str] = os.environ,
    check_paths: bool = False,
    added: Document | None = None,
) -> LoadedDataflow:
    """Load a dataflow from a text; modules and types are searched beside `path`.

    `added`: document with the last nodes.
    """
    path = Path(path)
    loading = _Loading(path.parent)
    document = read_document(text, str(path))
    file = loading.read(document, descriptor.Descriptor)
    if added is not None:
        file.nodes += loading.read(added, descriptor.Descriptor).nodes
    nodes = loading.with_modules(file, "", ())
    root = file.root
    typed = _mentions_types(nodes) or (isinstance(root, descriptor.Descriptor) and root.type_rules)
    user_types = loading.user_types() if typed else []
    loading.raise_if_errors()  # edges are only checked in files without errors of their own
    assert isinstance(root, descriptor.Descriptor)
    resolution = resolve(root, file.place, nodes, environ)
    loading.problems.extend(resolution.problems)
    dataflow = resolution.dataflow
    if strict_types is not None:
        dataflow = dataflow.model_copy(update={"strict_types": strict_types})
    _check_graph(loading, resolution)
    for flat, node in zip(resolution.nodes, dataflow.nodes, strict=True):
        _check_arguments(loading, flat, node)
    if typed:
        check = TypeCheck(dataflow, file.place, resolution.nodes, user_types)
        dataflow = check.run()
        loading.problems.extend(check.problems)
    if check_paths:
        for flat, node in zip(resolution.nodes, dataflow.nodes, strict=True):
            _check_program(loading, flat, node, environ)
    loading.raise_if_errors()
    problems = in_order(loading.problems)
    return LoadedDataflow(
        resolved=dataflow,
        warnings=tuple(problem for problem in problems if problem.severity == "warning"),
        path=path,
        descriptor_dict=describe_dataflow(dataflow),
        remarks=tuple(problem for problem in problems if problem.severity == "info"),
    )


@dataclass
class _Loading:
    """Reads the files of one dataflow and collects their problems."""

    base: Path
    problems: list[Problem] = field(default_factory=list)
    module_uses: int = 0

    def raise_if_errors(self) -> None:
        """Raise `ConfigError` if any problem so far is an error."""
        if any(problem.severity == "error" for problem in self.problems):
            raise ConfigError(in_order(self.problems))

    def read(
        self, document: Document, model: type[descriptor.Descriptor] | type[descriptor.Module]
    ) -> NodesFile:
        """Read the nodes of a document and add its problems."""
        file = read_nodes_file(document, model)
        self.problems.extend(file.problems)
        return file

    def user_types(self) -> list[TypeDefinition]:
        """Read the types in files below `types/` beside the dataflow."""

        root = self.base / "types"
        found: list[TypeDefinition] = []
        named = (path for path in root.rglob("*") if path.suffix in (".yml", ".yaml"))
        files = sorted(path for path in named if is_file(path))
        if len(files) > MAX_TYPE_FILES:
            message = f"exceeds the limit of {MAX_TYPE_FILES} files of types"
            self.problems.append(Problem(str(root), 0, 0, message))
        for path in files[:MAX_TYPE_FILES]:
            try:
                text = read_text(path, MAX_MODULE_BYTES)
            except ConfigError as error:
                self.problems.extend(error.problems)
                continue
            document = read_document(text, str(path))
            self.problems.extend(document.problems)
            if document.data is not None or not document.problems:
                place = PurePosixPath(path.relative_to(root).as_posix())
                found.extend(_read_types(document, place, self.problems))
        return found

    def with_modules(
        self, file: NodesFile, directory: str, users: tuple[Path, ...]
    ) -> tuple[SourceNode, ...]:
        """Return the nodes of `file` with their module files."""
        return tuple(
            source
            if source.node.module is None
            else replace(source, module=self._module(source, directory, users))
            for source in file.nodes
        )

    def _module(
        self, source: SourceNode, directory: str, users: tuple[Path, ...]
    ) -> ModuleFile | None:
        name = source.node.module or ""
        place = source.place.at("module")
        where = f'node "{source.node.id}": module "{name}"'

        def refuse(message: str) -> None:
            self.problems.append(place.problem(f"{where} {message}"))

        if len(users) >= MAX_MODULE_DEPTH:
            refuse(f"is nested deeper than {MAX_MODULE_DEPTH} levels")
            return None
        relative = Path(directory, name)
        if Path(name).is_absolute():
            refuse("must be a relative path below the directory of the dataflow")
            return None
        self.module_uses += 1
        if self.module_uses > MAX_MODULE_USES:
            # report once: the number of further uses may be exponential
            if self.module_uses == MAX_MODULE_USES + 1:
                refuse(f"exceeds the limit of {MAX_MODULE_USES} modules in a dataflow")
            return None
        base = self.base.resolve()
        try:
            path = (self.base / relative).resolve()
            if not path.is_relative_to(base):
                refuse("lies outside the directory of the dataflow")
                return None
            if path in users:
                refuse("uses itself")
                return None
            text = read_text(path, MAX_MODULE_BYTES)
        except ConfigError as error:
            refuse(error.problems[0].message)
            return None
        except (OSError, RuntimeError, ValueError) as error:
            refuse(f"cannot be read: {error}")
            return None
        inner_document = read_document(text, str(self.base / relative))
        inner = self.read(inner_document, descriptor.Module)
        inner_directory = os.path.normpath(relative.parent) if str(relative.parent) != "." else ""
        nodes = self.with_modules(inner, inner_directory, (*users, path))
        if not isinstance(inner.root, descriptor.Module):
            return None
        return ModuleFile(inner.place, inner.root, inner_directory, nodes)


@dataclass(frozen=True)
class LoadedModule:
    """A valid module file."""

    interface: descriptor.ModuleInterface
    node_ids: tuple[str, ...]
    warnings: tuple[Problem, ...]


def load_module(path: Path | str) -> LoadedModule:
    """Check a module file with all inputs connected; raise `ConfigError`."""
    path = Path(path)
    loading = _Loading(path.parent)
    document = read_document(read_text(path, MAX_MODULE_BYTES), str(path))
    file = loading.read(document, descriptor.Module)
    nodes = loading.with_modules(file, "", (path.resolve(),))
    loading.raise_if_errors()
    assert isinstance(file.root, descriptor.Module)
    interface = file.root.module
    inner = ModuleFile(file.place, file.root, "", nodes)
    # connect the inputs to logs, which need no other node
    ports = [*(interface.inputs or ()), *(interface.inputs_optional or ())]
    names = set(find_variables("\n".join(_texts(inner))))
    parameters = {name.removeprefix("PARAM_") for name in names if name.startswith("PARAM_")}
    user = descriptor.Node(
        id="module",
        module=path.name,
        inputs={port: descriptor.Input(source="dora/logs") for port in ports},
        params=dict.fromkeys(parameters, "given"),
    )
    resolution = resolve(
        descriptor.Descriptor(nodes=[]),
        file.place,
        (SourceNode(user, file.place, module=inner),),
        dict.fromkeys(names, "set"),
    )
    loading.problems.extend(resolution.problems)
    _check_graph(loading, resolution)
    loading.raise_if_errors()
    return LoadedModule(
        interface,
        node_ids=tuple(node.id.removeprefix("module.") for node in resolution.dataflow.nodes),
        warnings=tuple(in_order(loading.problems)),
    )


def _texts(module: ModuleFile) -> Iterator[str]:
    """Yield the texts of a module and of the modules in it."""
    yield module.place.document.text
    for source in module.nodes:
        if source.module is not None:
            yield from _texts(source.module)


def _mentions_types(nodes: Iterable[SourceNode]) -> bool:
    return any(
        any(one.input_types or one.output_types for _, one, _ in programs_of(source.node))
        or (source.module is not None and _mentions_types(source.module.nodes))
        for source in nodes
    )


def _check_graph(loading: _Loading, found: Resolution) -> None:
    loading.problems.extend(check_graph(found.dataflow.nodes, found.nodes, found.unused_inputs))


def _check_arguments(loading: _Loading, flat: FlatNode, node: ResolvedNode) -> None:
    """Check the arguments of a node by name, if its plug-in provides a check."""
    if node.kind != "standard" or node.path is None or node.git is not None:
        return
    if "/" in node.path or node.path.endswith(".py") or is_file(loading.base / node.path):
        return
    place = flat.at("args" if node.args else "path")
    try:
        found = plugins.installed().find("dora.node_arguments", node.path)
        problems = [] if found is None else found.use(partial(_argument_problems, node))
    except plugins.PluginError as error:
        loading.problems.append(place.problem(str(error), severity="warning"))
        return
    for text in problems:
        loading.problems.append(place.problem(f'node "{flat.id}": {text}'))


def _argument_problems(
    node: ResolvedNode,
    check: Callable[[Sequence[str], Sequence[str], Sequence[str]], Iterable[str]],
) -> list[str]:
    return [str(text) for text in check(node.args, tuple(node.inputs), node.outputs)]


def _check_program(
    loading: _Loading, flat: FlatNode, node: ResolvedNode, environ: Mapping[str, str]
) -> None:
    """Warn about programs that do not exist on this machine."""
    if node.build or node.git is not None or not node.deploy.is_empty:
        return

    def warn(place: Place, message: str, hint: str | None = None) -> None:
        problem = place.problem(f'node "{flat.id}": {message}', hint, severity="warning")
        loading.problems.append(problem)

    if node.kind == "standard" and node.path is not None:
        path = expand_path(node.path, environ)
        if not _program_exists(loading.base, path, environ):
            looked = f"looked in {loading.base.resolve()}" + (
                "" if "/" in path or path.endswith(".py") else " and in PATH"
            )
            hint = plugins.missing_node(path) or looked
            warn(flat.at("path"), f'could not find source path "{path}"', hint)
    for operator in node.operators:
        if operator.python and not is_file(loading.base / operator.python):
            place = flat.at("python", f"{operator.id}/source")
            warn(place, f'could not find source path "{operator.python}"')
    if (block := flat.node.block) is not None:
        for path_in_block, message in block.kind.warnings(block.value, loading.base, flat.env):
            warn(flat.at(block.name).at(*path_in_block), message)


def _program_exists(base: Path, path: str, environ: Mapping[str, str]) -> bool:
    if is_file(base / path):
        return True
    if "/" in path or path.endswith(".py"):
        return False
    own = Path(sys.executable).parent / path
    return shutil.which(path, path=environ.get("PATH")) is not None or os.access(own, os.X_OK)
