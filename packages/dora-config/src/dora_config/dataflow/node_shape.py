"""Which fields go together in a node: its kind, and fields that the kind does not allow; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from dora_config.dataflow.descriptor import Node, ProgramFields
from dora_config.dataflow.fields import build_lines
from dora_config.yaml.document import KeyPath
from dora_config.yaml.findings import Finding
from dora_config.yaml.suggest import closest_name

DescriptorKind = Literal["path", "operator", "operators", "module", "ros2"]
KINDS: tuple[DescriptorKind, ...] = ("path", "operator", "operators", "module", "ros2")

SHARED_FIELDS = frozenset({"id", "name", "description", "env", "deploy", "cpu_affinity", "warm"})
"""Fields that nodes of every kind may have."""
ALLOWED_FIELDS: Mapping[DescriptorKind, frozenset[str]] = {
    "operator": SHARED_FIELDS | {"operator"},
    "operators": SHARED_FIELDS | {"operators"},
    "module": SHARED_FIELDS | {"module", "inputs", "params", "build"},
    "ros2": frozenset(Node.model_fields)
    - {"path", "path_sha256", "args", "git", "branch", "tag", "rev", "params", "hub"}
    - {"operator", "operators", "module"},
}
_OPERATOR_FIELDS = frozenset(ProgramFields.model_fields) - SHARED_FIELDS
_REFUSED = {
    "hub": "`hub` references are not supported: use `path`, with `build` or `git`",
}
_STANDARD_FIELDS = (
    frozenset(Node.model_fields) - SHARED_FIELDS - _OPERATOR_FIELDS - _REFUSED.keys() - set(KINDS)
)
_REFERENCES = ("branch", "tag", "rev")

NODE_HINTS = {
    "custom": "dora 0.x: move its fields into the node; `source` is now called `path`",
    "source": "the program of a node is called `path`",
    "communication": "no longer used: remove it",
    "queue_size": "it belongs to an input: `inputs: {name: {source: node/output, queue_size: 1}}`",
    "queue_policy": "it belongs to an input, beside its `source`",
    "input_timeout": "it belongs to an input, beside its `source`",
    "python": "it belongs in `operator`",
    "machine": "it belongs in `deploy`",
    "labels": "it belongs in `deploy`",
    "working_dir": "it belongs in `deploy`",
    "distribute": "it belongs in `deploy`",
    "finish_grace": "it is called `finish_grace_secs`",
}
ROOT_HINTS = {
    "communication": "dora 0.x: no longer used, remove it",
    "publish_all_messages_to_zenoh": "write `debug: {enable_debug_inspection: true}` instead",
    "enable_debug_inspection": "it belongs in `debug`",
    "daemon_config": "dora 0.x: no longer used, remove it",
    "operators": "operators belong in a node",
    "module": "this is a module file: use it from a node with `module: FILE`",
    "name": "a dataflow is named when it is started: `dora start FILE --name NAME`",
}


def node_kind(node: Mapping[str, Any]) -> DescriptorKind | None:
    """Return the kind of the node, or None when it has none or several."""
    present = [kind for kind in KINDS if node.get(kind) is not None]
    return present[0] if len(present) == 1 else None


def shape_findings(node: Mapping[str, Any], path: KeyPath, where: str) -> Iterator[Finding]:
    """Yield all problems in the combination of fields of the raw `node` at `path`."""
    present = {key for key, value in node.items() if value is not None}
    for field in sorted(present & _REFUSED.keys()):
        yield Finding((*path, field), f"{where}: {_REFUSED[field]}", at_key=True)
    yield from _kind_findings(present, path, where)
    kind = node_kind(node)
    if kind == "path":
        yield from _standard_findings(node, present, path, where)
    elif kind is not None:
        yield from _misplaced_findings(kind, present, path, where)
    yield from _git_findings(present, path, where)
    yield from _build_findings(node, path, where)


def _kind_findings(present: set[str], path: KeyPath, where: str) -> Iterator[Finding]:
    kinds = [kind for kind in KINDS if kind in present]
    expected = f"expected exactly one of {', '.join(KINDS)}"
    if not kinds and not present & {*_REFUSED, "custom"}:
        others = present - _STANDARD_FIELDS - _OPERATOR_FIELDS - SHARED_FIELDS
        if not any(closest_name(field, KINDS) for field in others):  # else it is misspelt
            yield Finding(path, f"{where} has no program: {expected}")
    if len(kinds) > 1:
        named = " and ".join(f"`{kind}`" for kind in kinds)
        yield Finding((*path, kinds[1]), f"{where} has {named}: {expected}", at_key=True)


def _standard_findings(
    node: Mapping[str, Any], present: set[str], path: KeyPath, where: str
) -> Iterator[Finding]:
    if "params" in present:
        message = f"{where}: `params` are not allowed on standard nodes"
        yield Finding((*path, "params"), message, "only a node with `module` accepts them", True)
    program = node["path"]
    is_url = isinstance(program, str) and program.startswith(("http://", "https://"))
    if "path_sha256" in present and not is_url:
        message = f"{where}: `path_sha256` is only allowed when `path` is an http(s) URL"
        yield Finding((*path, "path_sha256"), message, at_key=True)
    if program == "shell" and "args" not in present:
        message = f"{where}: a shell node needs `args`, the command line for the shell"
        yield Finding((*path, "path"), message)
    if program == "dynamic":
        for field in sorted(present & {"args", "build", "git"}):
            message = (
                f"{where}: `{field}` has no effect on a dynamic node, which is started by hand"
            )
            yield Finding((*path, field), message, at_key=True, severity="warning")


def _misplaced_findings(
    kind: DescriptorKind, present: set[str], path: KeyPath, where: str
) -> Iterator[Finding]:
    kinds: set[str] = set(KINDS)
    known = present - ALLOWED_FIELDS[kind] - _REFUSED.keys() - kinds - NODE_HINTS.keys()
    for field in sorted(known):
        if field not in _OPERATOR_FIELDS | _STANDARD_FIELDS:
            continue
        message = f"{where}: `{field}` is among the fields that are not allowed on {kind} nodes"
        if kind == "module":
            hint = "module nodes accept only inputs, params and build beside " + ", ".join(
                sorted(SHARED_FIELDS)
            )
        elif kind == "ros2":
            hint = "the program of a ros2 node is that of dora-ros2"
        elif field in _OPERATOR_FIELDS:
            hint = f"move it into the `{kind}` block"
        else:
            shared = ", ".join(sorted(SHARED_FIELDS))
            hint = f"{kind} nodes accept only {shared} beside the {kind} block"
        yield Finding((*path, field), message, hint, at_key=True)


def _git_findings(present: set[str], path: KeyPath, where: str) -> Iterator[Finding]:
    references = [field for field in _REFERENCES if field in present]
    if len(references) > 1:
        message = f"{where}: only one of branch, tag and rev is allowed, found " + " and ".join(
            references
        )
        yield Finding((*path, references[1]), message, at_key=True)
    if references and "git" not in present:
        message = f"{where}: `{references[0]}` needs a repository: `git` source required"
        yield Finding((*path, references[0]), message, at_key=True)


_SHELL_WORDS = frozenset({"&&", "||", "|", ">", ">>", "<"})


def _build_findings(node: Mapping[str, Any], path: KeyPath, where: str) -> Iterator[Finding]:
    """Warn about shell syntax, which is passed to the program as an argument."""
    build = node.get("build")
    for line in build_lines(build) if isinstance(build, str) else ():
        word = next((w for w in line.split() if w in _SHELL_WORDS or w[1:].endswith(";")), None)
        # in quotes it is intended, as for `sh -c "..."`
        if word is not None and not {"'", '"', "\\"} & set(line):
            message = f"{where}: build line {line[:80]!r}: {word!r} is an argument of the program"
            hint = 'build lines run without a shell: write one command per line, or sh -c "..."'
            yield Finding((*path, "build"), message, hint, severity="warning")


def operator_findings(operator: Any, path: KeyPath, where: str) -> Iterator[Finding]:
    """Yield problems with the code of the raw `operator` at `path`."""
    if not isinstance(operator, dict):
        return
    if operator.get("shared-library") is not None:
        message = f"{where}: `shared-library` operators are not supported, only `python` ones"
        yield Finding((*path, "shared-library"), message, at_key=True)
    elif operator.get("python") is None:
        message = f"{where} has no program: expected `python: FILE`"
        yield Finding(path, message)
    yield from _build_findings(operator, path, where)
    python = operator.get("python")
    if isinstance(python, dict) and python.get("conda_env") is not None:
        message = f"{where}: `conda_env` is not supported"
        hint = "start dora inside that environment, or give the node a `build` and use --uv"
        yield Finding((*path, "python", "conda_env"), message, hint, at_key=True)
