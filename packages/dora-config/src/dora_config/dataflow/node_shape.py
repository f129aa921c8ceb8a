"""Checks between the fields of one node: its kind, what the kind does not allow; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

from dora_config.dataflow import node_kinds
from dora_config.dataflow.compression import library_problem, option_problem
from dora_config.dataflow.descriptor import LOG_SETTINGS, Node, Operator, ProgramFields
from dora_config.dataflow.fields import OLD_NAMES, build_lines
from dora_config.dataflow.modules import operators_as_written, operators_of
from dora_config.dataflow.variables import find_variables
from dora_config.errors import Problem
from dora_config.yaml.document import Place
from dora_config.yaml.validation import unknown_field
from dora_config.yaml.wording import describe_place

DescriptorKind = Literal["path", "operator", "operators", "module"]
KINDS: tuple[DescriptorKind, ...] = ("path", "operator", "operators", "module")

SHARED_FIELDS = frozenset({"id", "name", "description", "env", "deploy", "cpu_affinity", "warm"})
"""Fields that nodes of every kind may have."""
ALLOWED_FIELDS: Mapping[DescriptorKind, frozenset[str]] = {
    "operator": SHARED_FIELDS | {"operator"},
    "operators": SHARED_FIELDS | {"operators"},
    "module": SHARED_FIELDS | {"module", "inputs", "params", "build"},
}
FIELDS_BESIDE_A_BLOCK = (
    frozenset(Node.model_fields)
    - {"path", "path_sha256", "args", "git", "branch", "tag", "rev", "params", "hub"}
    - {"operator", "operators", "module"}
)
"""Fields that nodes of a plug-in's kind may have."""
_OPERATOR_FIELDS = frozenset(ProgramFields.model_fields) - SHARED_FIELDS
_GIT_REFERENCES = ("branch", "tag", "rev")

_OLD_HINTS = {
    old: f"it is the old name of `{new}`: only one of them is allowed"
    for new, old in OLD_NAMES.items()
}
NODE_HINTS = {
    **_OLD_HINTS,
    "custom": "dora 0.x: move its fields into the node; `source` is now called `path`",
    "source": "the program of a node is called `path`",
    "communication": "no longer used: remove it",
    "queue_size": "it belongs to an input: `inputs: {name: {source: node/output, queue_size: 1}}`",
    "queue_policy": "it belongs to an input, beside its `source`",
    "input_timeout": "it belongs to an input, beside its `source`",
    "compress": "it belongs to an input, beside its `source`",
    "python": "it belongs in `operator`",
    "machine": "it belongs in `deploy`",
    "labels": "it belongs in `deploy`",
    "working_dir": "it belongs in `deploy`",
    "distribute": "it belongs in `deploy`",
    "finish_grace": "it is called `finish_grace_secs`",
}
ROOT_HINTS = {
    "required nodes": 'a dataflow has a list `nodes:` with one "- id: NAME" for each node',
    **_OLD_HINTS,
    "communication": "dora 0.x: no longer used, remove it",
    "publish_all_messages_to_zenoh": "write `debug: {enable_debug_inspection: true}` instead",
    "enable_debug_inspection": "it belongs in `debug`",
    "daemon_config": "dora 0.x: no longer used, remove it",
    "operators": "operators belong in a node",
    "module": "this is a module file: use it from a node with `module: FILE`",
    "name": "a dataflow is named when it is started: `dora start FILE --name NAME`",
}


def node_problems(node: Node, place: Place) -> Iterator[Problem]:
    """Yield all problems between the fields of a node."""
    where = describe_place(place)
    present = node.model_fields_set
    kinds: list[str] = [kind for kind in KINDS if kind in present]
    kinds += [node.block.name] if node.block is not None else []
    if "hub" in present:
        message = f"{where}: `hub` references are not supported"
        yield place.at("hub").problem(message, _instead_of_hub(node.hub), at_key=True)
    elif not kinds:
        yield place.problem(f"{where} has no program: {_one_of_the_kinds()}")
    if len(kinds) > 1:
        named = " and ".join(f"`{kind}`" for kind in kinds)
        yield place.at(kinds[1]).problem(f"{where} has {named}: {_one_of_the_kinds()}", at_key=True)
    elif kinds == ["path"]:
        yield from _standard_problems(node, place, where)
    elif kinds:
        yield from _misplaced_fields(kinds[0], present, place, where)
    yield from _git_problems(present, place, where)
    yield from _program_problems(node, place, where)
    yield from _operator_problems(node, place, where)
    if node.restart_policy in (None, "never"):
        for field in ("max_restarts", "restart_delay", "max_restart_delay", "restart_window"):
            if getattr(node, field):
                message = f"{where}: `{field}` has no effect while restart_policy is never"
                hint = "add `restart_policy: on-failure`"
                yield place.at(field).problem(message, hint, at_key=True, severity="warning")
    if (block := node.block) is not None:
        ports = list(node.inputs or ()), node.outputs or []
        yield from block.kind.problems(block.value, *ports, place.at(block.name), where)


def _one_of_the_kinds() -> str:
    return f"expected exactly one of {', '.join([*KINDS, *node_kinds.names()])}"


_HUB_REFERENCE = re.compile(
    r"(?:.*/)?(?P<name>[\w.-]+)(?:@(?P<operator>[~^=]?)(?P<numbers>\d+(?:\.\d+)*))?"
)


def _instead_of_hub(reference: object) -> str:
    """Return the lines that replace `hub` for a Python node; PyPI has the hub's packages."""
    found = _HUB_REFERENCE.fullmatch(str(reference))
    if found is None:
        return "write `build: pip install NAME` and `path: NAME` for a node in Python"
    name, operator, numbers = found["name"], found["operator"], found["numbers"]
    library = name + ("" if numbers is None else _pip_version(operator, numbers.split(".")))
    return f"for a node in Python write `build: pip install {library}` and `path: {name}`"


def _pip_version(operator: str, numbers: list[str]) -> str:
    """Return a version of Cargo (`^0.5`, `~1.2.3`) as pip writes it."""
    written = ".".join(numbers)
    if operator == "=":
        return f"=={written}"
    # number of components that must be equal; the next one may be larger
    fixed = 2 if len(numbers) > 1 and (operator == "~" or numbers[0] == "0") else 1
    compatible = [*numbers, "0", "0"][: fixed + 1]
    exact = f",>={written}" if len(numbers) > len(compatible) else ""
    return f"~={'.'.join(compatible)}{exact}"


def _standard_problems(node: Node, place: Place, where: str) -> Iterator[Problem]:
    present = node.model_fields_set
    if "params" in present:
        message = f"{where}: `params` are not allowed on standard nodes"
        hint = "only a node with `module` accepts them"
        yield place.at("params").problem(message, hint, at_key=True)
    program = node.path or ""
    if "path_sha256" in present and not program.startswith(("http://", "https://")):
        message = f"{where}: `path_sha256` is only allowed when `path` is an http(s) URL"
        yield place.at("path_sha256").problem(message, at_key=True)
    if program == "shell" and "args" not in present:
        message = f"{where}: a shell node needs `args`, the command line for the shell"
        yield place.at("path").problem(message)
    variables = [one for one in find_variables(node.args or "") if not one.startswith("PARAM_")]
    if variables and program not in ("shell", "dynamic"):
        message = f"{where}: ${variables[0]} in `args` is not expanded; the node gets this text"
        hint = "variables are replaced in `env`, where the node can read them, and in shell nodes"
        yield place.at("args").problem(message, hint, severity="warning")
    if program == "dynamic":
        for field in sorted(present & {"args", "build", "git"}):
            message = (
                f"{where}: `{field}` has no effect on a dynamic node, which is started by hand"
            )
            yield place.at(field).problem(message, at_key=True, severity="warning")


def _misplaced_fields(kind: str, present: set[str], place: Place, where: str) -> Iterator[Problem]:
    shared = ", ".join(sorted(SHARED_FIELDS))
    allowed = next((ALLOWED_FIELDS[one] for one in KINDS if one == kind), FIELDS_BESIDE_A_BLOCK)
    for field in sorted(present - allowed - {"hub"}):
        message = f"{where}: `{field}` is among the fields that are not allowed on {kind} nodes"
        if kind == "module":
            hint = f"module nodes accept only inputs, params and build beside {shared}"
        elif kind not in KINDS:
            hint = f"a {kind} node runs the program of its plug-in"
        elif field in _OPERATOR_FIELDS:
            hint = f"move it into the `{kind}` block"
        else:
            hint = f"{kind} nodes accept only {shared} beside the {kind} block"
        yield place.at(field).problem(message, hint, at_key=True)


def _git_problems(present: set[str], place: Place, where: str) -> Iterator[Problem]:
    references = [field for field in _GIT_REFERENCES if field in present]
    if len(references) > 1:
        found = " and ".join(references)
        message = f"{where}: only one of branch, tag and rev is allowed, found {found}"
        yield place.at(references[1]).problem(message, at_key=True)
    if references and "git" not in present:
        message = f"{where}: `{references[0]}` needs a repository: `git` source required"
        yield place.at(references[0]).problem(message, at_key=True)


_SHELL_WORDS = frozenset({"&&", "||", "|", ">", ">>", "<"})


def _program_problems(program: ProgramFields, place: Place, where: str) -> Iterator[Problem]:
    """Warn about build lines, outputs and queues of a node or operator."""
    for line in build_lines(program.build or ""):
        # shell syntax is passed as an argument; in quotes it is intended, as for `sh -c "..."`
        word = next((w for w in line.split() if w in _SHELL_WORDS or w[1:].endswith(";")), None)
        if word is not None and not {"'", '"', "\\"} & set(line):
            message = f"{where}: build line {line[:80]!r}: {word!r} is an argument of the program"
            hint = 'build lines run without a shell: write one command per line, or sh -c "..."'
            yield place.at("build").problem(message, hint, severity="warning")
    outputs = program.outputs or []
    first = {output: index for index, output in reversed([*enumerate(outputs)])}
    for index, output in enumerate(outputs):
        if first[output] != index:
            message = f'{where}: output "{output}" is listed twice'
            yield place.at("outputs", index).problem(message, severity="warning")
    for name, wanted in (program.inputs or {}).items():
        if wanted.queue_size == 0:
            message = f'{where}: input "{name}": queue_size 0 is treated as 1'
            yield place.at("inputs", name, "queue_size").problem(message, severity="warning")
        if (asked := wanted.compress) is not None:
            wrong = option_problem(asked.codec, asked.quality, asked.level)
            if wrong is not None:
                message = f'{where}: input "{name}": {wrong}'
                yield place.at("inputs", name, "compress").problem(message)
            elif (missing := library_problem(asked.codec)) is not None:
                message = f'{where}: input "{name}": {missing}'
                yield place.at("inputs", name, "compress").problem(message, severity="warning")


def _operator_problems(node: Node, place: Place, where: str) -> Iterator[Problem]:
    operators = node.operators or []
    if node.operators == []:
        message = f"{where}: `operators` must contain at least one operator"
        yield place.at("operators").problem(message)
    for setting in LOG_SETTINGS:
        users = [index for index, one in enumerate(operators) if getattr(one, setting) is not None]
        if len(users) > 1:
            message = f"{where}: at most one operator may set `{setting}`"
            yield place.at("operators", users[1], setting).problem(message, at_key=True)
    seen: set[str] = set()
    for operator, path in operators_as_written(node):
        own = place.at(*path)
        yield from _code_problems(operator, own)
        if operator.id is None:
            if node.operator is None:
                yield own.problem(f"{describe_place(own)}: field `id` is required")
            continue
        if "/" in operator.id:
            message = f"{where}: operator id \"{operator.id}\" must not contain '/'"
            yield own.at("id").problem(message)
        if operator.id in seen:
            message = f'{where}: duplicate operator id "{operator.id}": ids must be unique'
            yield own.at("id").problem(message)
        seen.add(operator.id)
    for operator_id, operator, path in operators_of(node):
        named = f'{where}: operator "{operator_id}"'
        if operator.pattern is not None and not operator.outputs:
            message = f"{named}: `pattern` {operator.pattern} needs an output"
            yield place.at(*path, "pattern").problem(message)
        yield from _program_problems(operator, place.at(*path), named)


def _code_problems(operator: Operator, place: Place) -> Iterator[Problem]:
    for name in operator.model_extra or ():
        yield replace(unknown_field(Operator, place, name), severity="warning")
    where = describe_place(place)
    if operator.shared_library is not None:
        message = f"{where}: `shared-library` operators are not supported, only `python` ones"
        yield place.at("shared-library").problem(message, at_key=True)
    elif operator.python is None:
        yield place.problem(f"{where} has no program: expected `python: FILE`")
    elif operator.python.conda_env is not None:
        message = f"{where}: `conda_env` is not supported"
        hint = "start dora inside that environment, or give the node a `build` and use --uv"
        yield place.at("python", "conda_env").problem(message, hint, at_key=True)
