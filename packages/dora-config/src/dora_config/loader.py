"""Files to a resolved dataflow, or every problem in them with line and column.

Reads the dataflow, its module files and its own types; the decisions are in the pure modules.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dora_config import descriptor
from dora_config.errors import ConfigError, Problem
from dora_config.graph import Unreadable, check_graph
from dora_config.modules import ModuleFile, SourceNode
from dora_config.reader import NodesFile, read_nodes_file
from dora_config.resolve import Places, resolve
from dora_config.resolved import ResolvedDataflow
from dora_config.validation import Finding
from dora_config.yaml_text import Document, read_document

MAX_FILE_BYTES = 16 << 20
MAX_MODULE_BYTES = 1 << 20
MAX_MODULE_DEPTH = 8


@dataclass(frozen=True)
class LoadedDataflow:
    """A dataflow that can be started, and what its author should know about it.

    `descriptor_dict` is the YAML as parsed, for `Node.dataflow_descriptor()`.
    """

    resolved: ResolvedDataflow
    warnings: tuple[Problem, ...]
    source_text: str
    path: Path
    descriptor_dict: dict[str, Any]
    remarks: tuple[Problem, ...] = ()
    """Information, such as types that were inferred."""


def load_dataflow(
    path: Path | str,
    *,
    strict_types: bool | None = None,
    environ: Mapping[str, str] = os.environ,
    check_paths: bool = False,
) -> LoadedDataflow:
    """Reads a dataflow file; raises `ConfigError` with all its problems.

    `strict_types` overrides the file's own setting. `environ` is what `$VAR` expands from. With
    `check_paths`, programs that are files must exist.
    """
    path = Path(path)
    text = _read_text(path, MAX_FILE_BYTES)
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
) -> LoadedDataflow:
    """The same for a text; modules and types are looked up beside `path`."""
    path = Path(path)
    loading = _Loading(path.parent)
    document = read_document(text, str(path))
    file = loading.read(document, descriptor.Descriptor)
    root = file.root if isinstance(file.root, descriptor.Descriptor) else None
    if root is None or not file.nodes:
        loading.raise_if_errors()
    modules = loading.modules(file, "", ())
    if root is None:
        root = descriptor.Descriptor(nodes=[])
    resolution = resolve(root, document, file.nodes, modules, environ)
    loading.problems.extend(resolution.problems)
    dataflow = resolution.dataflow
    if strict_types is not None:
        dataflow = dataflow.model_copy(update={"strict_types": strict_types})
    _check_graph(loading, dataflow, resolution.places)
    loading.raise_if_errors()
    problems = _in_order(loading.problems)
    return LoadedDataflow(
        resolved=dataflow,
        warnings=tuple(problem for problem in problems if problem.severity == "warning"),
        source_text=text,
        path=path,
        descriptor_dict=document.data,
        remarks=tuple(problem for problem in problems if problem.severity == "info"),
    )


def _read_text(path: Path, limit: int) -> str:
    try:
        with open(path, "rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError([Problem(str(path), 0, 0, f"cannot be read: {reason}")]) from error
    except ValueError as error:  # a NUL character in the name
        raise ConfigError([Problem(str(path), 0, 0, f"cannot be read: {error}")]) from error
    if len(data) > limit:
        message = f"is larger than {limit >> 20} MiB"
        raise ConfigError([Problem(str(path), 0, 0, message)])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        message = f"is not UTF-8 text: byte 0x{data[error.start]:02x}"
        raise ConfigError([Problem(str(path), line, column, message)]) from None


def _in_order(problems: list[Problem]) -> list[Problem]:
    """Without repetitions, by file in the order of their first problem, then by position."""
    files = {problem.file: index for index, problem in reversed(list(enumerate(problems)))}
    unique = dict.fromkeys(problems)
    return sorted(unique, key=lambda problem: (files[problem.file], problem.line, problem.column))


@dataclass
class _Loading:
    """The problems found while one dataflow is loaded, and the files of its modules."""

    base: Path
    problems: list[Problem] = field(default_factory=list)
    lost_nodes: bool = False

    def raise_if_errors(self) -> None:
        """Raises `ConfigError` if anything found so far is an error."""
        if any(problem.severity == "error" for problem in self.problems):
            raise ConfigError(_in_order(self.problems))

    def read(
        self,
        document: Document,
        model: type[descriptor.Descriptor] | type[descriptor.Module],
    ) -> NodesFile:
        """The nodes of a document, its problems added to those found so far."""
        self.problems.extend(document.problems)
        if document.problems and not isinstance(document.data, dict):
            self.lost_nodes = True
            return NodesFile(document)
        file = read_nodes_file(document, model)
        self.report(document, file.findings)
        self.lost_nodes |= file.lost_nodes or bool(document.problems)
        return file

    def report(self, document: Document, findings: list[Finding]) -> None:
        for finding in findings:
            self.problems.append(
                document.problem(
                    finding.path,
                    finding.message,
                    hint=finding.hint,
                    at_key=finding.at_key,
                    severity=finding.severity,
                )
            )

    def modules(
        self, file: NodesFile, directory: str, users: tuple[Path, ...]
    ) -> dict[str, ModuleFile]:
        """The module files that the nodes of `file` name, by node id."""
        found: dict[str, ModuleFile] = {}
        for source in file.nodes:
            if source.node.module is not None:
                module = self._module(file.document, source, directory, users)
                if module is not None:
                    found[source.node.id] = module
                else:
                    self.lost_nodes = True
        return found

    def _module(
        self, document: Document, source: SourceNode, directory: str, users: tuple[Path, ...]
    ) -> ModuleFile | None:
        name = source.node.module or ""
        place = (*source.path, "module")
        where = f'node "{source.node.id}": module "{name}"'

        def refuse(message: str, hint: str | None = None) -> None:
            self.problems.append(document.problem(place, f"{where} {message}", hint=hint))

        if len(users) >= MAX_MODULE_DEPTH:
            refuse(f"is nested deeper than {MAX_MODULE_DEPTH} levels")
            return None
        relative = Path(directory, name)
        if Path(name).is_absolute():
            refuse("must be a relative path, which stays below the directory of the dataflow")
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
            text = _read_text(self.base / relative, MAX_MODULE_BYTES)
        except ConfigError as error:
            refuse(error.problems[0].message)
            return None
        except (OSError, RuntimeError, ValueError) as error:
            refuse(f"cannot be read: {error}")
            return None
        inner_document = read_document(text, str(self.base / relative))
        inner = self.read(inner_document, descriptor.Module)
        if not isinstance(inner.root, descriptor.Module):
            return None
        inner_directory = os.path.normpath(relative.parent) if str(relative.parent) != "." else ""
        return ModuleFile(
            document=inner_document,
            directory=inner_directory,
            interface=inner.root.module,
            build=inner.root.build,
            nodes=inner.nodes,
            modules=self.modules(inner, inner_directory, (*users, path)),
        )


def _check_graph(loading: _Loading, dataflow: ResolvedDataflow, places: Places) -> None:
    unreadable = Unreadable(
        nodes=frozenset(node.id for node in dataflow.nodes if places.is_incomplete(node.id)),
        some_node_lost=loading.lost_nodes,
    )
    written = {
        (flat.id, name): wired.written
        for flat in places.flat.values()
        for name, wired in flat.inputs.items()
    }
    for finding in check_graph(dataflow, unreadable, written):
        loading.problems.append(
            places.problem(
                finding.node,
                finding.path,
                finding.message,
                hint=finding.hint,
                severity=finding.severity,
            )
        )
