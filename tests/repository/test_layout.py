"""Imports point downwards, deciding modules are pure, functions are short, names are clear."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from itertools import chain

from packaging.requirements import Requirement
from support.sources import (
    PACKAGES,
    PLUGINS,
    ROOT,
    Source,
    packaged_sources,
    python_sources,
)

WHOLE = "dora-cli"
"""Depends on the core and on the plug-ins of the whole command line."""

MAY_IMPORT_TOO = {
    "dora_ros2.block": {"dora_config"},
    "dora_ros2.kind": {"dora_config"},
    "dora_ros2.commands": {"dora_cli", "dora_config"},
    "dora_ros2.plugin": {"dora_cli"},
    "dora_ros2.sessions": {"dora_cli"},
    "dora_ros2.bags": {"dora_config", "dora_cli", "dora_recordings"},
    "dora_testing.command": {"dora_cli"},
}
"""Modules behind entry points: what reads an entry point is installed when they are imported."""

COMMANDS_IN_PLUGINS = {
    "dora_recordings.commands.record": {"dora_cli.commands.run", "dora_cli.commands.dataflows"},
    "dora_recordings.commands.replay": {"dora_cli.commands.run"},
}
"""Modules of commands of the core that plug-ins import: `record` and `replay` are `run` and `start`
with one more thing, with the same options. Everything else that plug-ins use is no command."""

THIRD_PARTY = {
    "dora_config": {"pydantic", "pydantic_core", "typer", "yaml"},
    "dora_node_api": {"pyarrow"},
    "dora": {"pyarrow"},
    "dora_gate": {"pyarrow"},
    "lerobot_robot_dora": {"PIL", "numpy", "pyarrow"},
    "dora_ros2": {"pyarrow", "xxhash", "zenoh"},
}
"""Third-party modules that the light packages may import; others are not restricted."""

OPTIONAL = {
    "dora_ros2.dds": {"cyclonedds"},
    "lerobot_robot_dora.checkpoint": {"lerobot", "torch"},
    "lerobot_robot_dora.config": {"lerobot"},
    "lerobot_robot_dora.devices": {"lerobot"},
    "lerobot_robot_dora.dorarobot": {"lerobot"},
    "lerobot_robot_dora.dorateleoperator": {"lerobot"},
    "dora_ros2.block": {"pydantic"},
    "dora_ros2.bags": {"mcap", "typer", "yaml", "zstandard"},
    "dora_ros2.plugin": {"typer"},
    "dora_ros2.sessions": {"psutil"},
}
"""Third-party modules of sub-packages that are not imported unless they are installed."""

DECIDING = {
    "dora_config.dataflow.resolve",
    "dora_config.dataflow.graph",
    "dora_node_api.protocol.session",
    "dora_coordinator.state",
    "dora_coordinator.links",
    "dora_coordinator.dataflow",
    "dora_coordinator.coordinator",
    "dora_daemon.runner.machine",
    "dora_daemon.agent.state",
    "dora_daemon.agent.parts.part",
    "dora_daemon.agent.events",
    "dora_daemon.agent.commands",
    "dora_daemon.agent.records",
    "dora_daemon.agent.runners.pending_requests",
    "dora_daemon.inspection.intervals",
    "dora_daemon.inspection.samples",
    "dora_daemon.lifecycle_lines",
    "dora_daemon.link.protocol",
    "dora_cluster.decisions",
}
"""Modules and sub-packages that decide. A module with the word "pure" in the first line of its
docstring is checked as well."""

IMPURE = {
    "anyio", "asyncio", "ctypes", "fcntl", "multiprocessing", "os", "paramiko", "psutil", "random",
    "select", "selectors", "signal", "socket", "sqlite3", "subprocess", "tempfile", "threading",
    "time", "trio", "uvicorn", "websockets", "zenoh",
}  # fmt: skip

VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "core", "base"}

_TWO_PROTOCOLS = "a message of two protocols that share no code"
_TWO_MACHINES = "commands and events of the state machines of coordinator and runner"
_REPORTED = "an event in one process, and the report of it to another"
SAME_NAMES = {
    "ArmTimer": _TWO_MACHINES,
    "CancelTimer": _TWO_MACHINES,
    "CommandFailed": "`dora.CommandFailed` is public; the command line ends with its own error",
    "CoordinatorLost": "an event of the daemon; an error of the command line",
    "DeleteParam": _TWO_PROTOCOLS,
    "Hello": _TWO_PROTOCOLS,
    "InputRecovered": "an event of `Node`, and its entry in the history",
    "Log": "a command of the coordinator; a message of the node protocol",
    "Message": "base of the messages of nodes, which import no pydantic, and of all others",
    "Node": "`dora.Node` is public; the model has its name in the JSON schema",
    "NodeConnected": _REPORTED,
    "NodeFailed": "an event of `Node`; the report of a runner",
    "NodeSpawned": _REPORTED,
    "Operator": "`dora.builder` is public; the model has its name in the JSON schema",
    "Output": "`dora.builder` and `dora_testing.Output` are public",
    "Refused": _TWO_PROTOCOLS,
    "RequestRefused": "the error of coordinator and of runner that refuses a request",
    "RotateToken": "a request, and the command of the coordinator that carries it out",
    "SetParam": _TWO_PROTOCOLS,
    "StopDataflow": _TWO_PROTOCOLS,
    "StopNode": _TWO_PROTOCOLS,
    "TimerFired": _TWO_MACHINES,
    "UnknownMessage": _TWO_PROTOCOLS,
    "Welcome": _TWO_PROTOCOLS,
}
"""Names of classes of two packages, and why both have them."""

PIECE = re.compile(
    r"(Of|By|As|Or:?|And|Behind|Since|In|For|From|To|With|Without|On|After|At|Not|So|Until|Before|"
    r"Through|Else|Those|That of|The same|Also|Beside|Between|Like|When|If|They|What|How|Which|"
    r"Where|It|Its|Their|Everything|Something)\b(?!-)"
)
"""Beginnings of docstrings that are neither sentences nor names of what they describe."""

MAX_LINES_OF_A_FUNCTION = 60

OURS = {name for names in PACKAGES.values() for name in names}


def _dependencies(wheel: str) -> set[str]:
    """Return the wheels of this project that a wheel declares, also those of its extras."""
    file = ROOT / "packages" / wheel / "pyproject.toml"
    project = tomllib.loads(file.read_text())["project"]
    optional = chain.from_iterable(project.get("optional-dependencies", {}).values())
    lines = [*project["dependencies"], *optional]
    return {Requirement(line).name for line in lines} & set(PACKAGES)


def test_wheels_form_no_circle() -> None:
    """And the core depends on no plug-in."""
    graph = {wheel: _dependencies(wheel) for wheel in PACKAGES}
    TopologicalSorter(graph).prepare()
    core = set(PACKAGES) - set(PLUGINS) - {WHOLE}
    assert {wheel: graph[wheel] - core for wheel in core} == {wheel: set() for wheel in core}


def test_imports_are_of_declared_wheels() -> None:
    wrong = []
    for source in packaged_sources():
        wheels = (source.wheel, *_dependencies(source.wheel))
        allowed = {name for wheel in wheels for name in PACKAGES[wheel]}
        for module, more in MAY_IMPORT_TOO.items():
            if f"{source.module}.".startswith(f"{module}."):
                allowed |= more
        wrong += [
            f"{source.name}:{line}: {source.wheel} does not depend on the wheel of {name}"
            for line, name in source.imports(at_run_time=False)
            if name.partition(".")[0] in OURS - allowed
        ]
    assert not wrong, "\n".join(wrong)


def test_plug_ins_use_few_commands_of_the_core() -> None:
    found: dict[str, set[str]] = {}
    for source in packaged_sources():
        if source.top != "dora_cli":
            for _, name in source.imports(at_run_time=False):
                if name.startswith("dora_cli.commands."):
                    module = ".".join(name.split(".")[:3])
                    found.setdefault(source.module, set()).add(module)
    assert found == COMMANDS_IN_PLUGINS


def test_plug_ins_are_behind_the_door() -> None:
    """Modules of the core contain no name of a plug-in and of its modules."""
    wheels = [plugin.replace("-", "[-_]") for plugin in PLUGINS]
    modules = [re.escape(module) for modules in PLUGINS.values() for module in modules]
    names = re.compile(rf"\b({'|'.join([*wheels, *modules])})(?![-_\w])")
    named = [
        f"{source.name}:{number}: the core must not name a plug-in: {line.strip()}"
        for source in packaged_sources()
        if source.plugin is None
        for number, line in enumerate(source.text.splitlines(), start=1)
        if names.search(line)
    ]
    assert not named, "\n".join(named)


def test_light_packages_stay_light() -> None:
    wrong = []
    for source in packaged_sources():
        if source.top in THIRD_PARTY:
            allowed = THIRD_PARTY[source.top] | OURS | set(sys.stdlib_module_names)
            for package, modules in OPTIONAL.items():
                if f"{source.module}.".startswith(f"{package}."):
                    allowed |= modules
            optional = set(_optional_imports(source.tree))
            wrong += [
                f"{source.name}:{line}: {source.top} may not depend on {name}"
                for line, name in source.imports()
                if name.partition(".")[0] not in allowed and line not in optional
            ]
    assert not wrong, "\n".join(wrong)


def _optional_imports(tree: ast.Module) -> Iterator[int]:
    """Yield the lines of imports inside ``try: ... except ImportError``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any(
            handler.type is not None and "ImportError" in ast.dump(handler.type)
            for handler in node.handlers
        ):
            for child in ast.walk(node):
                if isinstance(child, ast.Import | ast.ImportFrom):
                    yield child.lineno


def _decides(source: Source) -> bool:
    in_list = any(f"{source.module}.".startswith(f"{name}.") for name in DECIDING)
    return in_list or "pure" in re.findall(r"[a-z]+", source.docstring().partition("\n")[0].lower())


def test_listed_modules_exist() -> None:
    known = {source.module for source in packaged_sources()}
    assert known >= DECIDING


def test_modules_that_decide_are_pure() -> None:
    wrong = []
    for source in packaged_sources():
        if _decides(source):
            wrong += [
                f"{source.name}:{line}: a module that decides must not import {name}"
                for line, name in source.imports()
                if name.partition(".")[0] in IMPURE
            ]
            wrong += [
                f"{source.name}:{node.lineno}: a module that decides must not wait"
                for node in ast.walk(source.tree)
                if isinstance(node, ast.Await | ast.AsyncFunctionDef)
            ]
    assert not wrong, "\n".join(wrong)


def test_modules_have_a_docstring() -> None:
    wrong = [
        f"{source.name}: the module needs a docstring"
        for source in packaged_sources()
        if source.text.strip() and source.path.name != "_version.py" and not source.docstring()
    ]
    assert not wrong, "\n".join(wrong)


def test_docstrings_begin_with_a_noun_or_a_verb() -> None:
    wrong = [
        f"{source.name}:{line}: piece of a sentence; begin with what it is or does: {text}"
        for source in packaged_sources()
        for line, text in _docstrings(source.tree)
        if PIECE.match(text)
    ]
    assert not wrong, "\n".join(wrong)


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and text of each string that is a statement: docstrings, also of attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.lineno, str(node.value.value)


def test_functions_stay_small() -> None:
    wrong = [
        f"{source.name}:{node.lineno}: {node.name} has {length} lines of code"
        for source in packaged_sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := _lines_of_code(node)) > MAX_LINES_OF_A_FUNCTION
    ]
    assert not wrong, "\n".join(wrong)


def test_public_classes_have_different_names() -> None:
    places: dict[str, list[Source]] = defaultdict(list)
    for source in packaged_sources():
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(source)
    several = {name: found for name, found in places.items() if len(found) > 1}
    wrong = [
        f"{name}: {', '.join(source.name for source in found)}"
        for name, found in several.items()
        if name not in SAME_NAMES or len({source.top for source in found}) < len(found)
    ]
    wrong += [f"{name}: one class has this name" for name in SAME_NAMES.keys() - several.keys()]
    assert not wrong, "\n".join(wrong)


def _lines_of_code(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of the body, without the docstring.

    A ``match`` counts as its longest case: a table of states and events is best read in one piece.
    """
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    if any(isinstance(statement, ast.Match) for statement in body):
        rest = sum(_length(statement) for statement in body if not isinstance(statement, ast.Match))
        cases = [case for match in body if isinstance(match, ast.Match) for case in match.cases]
        return rest + max(_length(case.body[-1]) for case in cases)
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _length(node: ast.stmt) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


def test_no_file_has_a_vague_name() -> None:
    wrong = [source.name for source in python_sources() if source.path.stem in VAGUE_NAMES]
    assert not wrong
