"""The environment of a node's process, layer by layer; pure.

Later layers override earlier ones: the runner's own environment without dora's private names; the
dataflow's and the node's ``env`` and ``--env``; variables of dora itself. Reserved names in the
second layer are dropped, with a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dora_config.dataflow.resolved import EnvValue, FromMachine
from dora_config.dataflow.variables import is_private, is_reserved
from dora_config.zygote_process import with_tunables


@dataclass(frozen=True, slots=True)
class NodeEnvironment:
    """The variables, with warnings and problems."""

    variables: dict[str, str]
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def merge_environment(
    inherited: Mapping[str, str],
    root: Mapping[str, EnvValue],
    overrides: Mapping[str, str],
    own: Mapping[str, EnvValue],
) -> NodeEnvironment:
    """Merge the layers that users control.

    ``own`` is a resolved node's ``env``, into which the dataflow's ``env`` was merged already:
    ``overrides`` (``--env``) replace values that equal those of ``root``, but not the node's own.
    """
    variables = {k: v for k, v in inherited.items() if not is_private(k)}
    warnings: list[str] = []
    problems: list[str] = []
    from_root = {k: v for k, v in own.items() if k in root and root[k] == v}
    layers: tuple[Mapping[str, EnvValue], ...] = (
        {**root, **from_root},
        overrides,
        {k: v for k, v in own.items() if k not in from_root},
    )
    for layer in layers:
        for name, value in layer.items():
            if is_reserved(name):
                warnings.append(f"env variable {name} is reserved and was not set")
            elif not isinstance(value, FromMachine):
                variables[name] = value
            elif value.name in inherited:
                variables[name] = inherited[value.name]
            else:
                problems.append(
                    f"env variable {name} takes the value of {value.name} on this machine"
                    f" (__dora_env), where {value.name} is not set"
                )
    return NodeEnvironment(variables, tuple(dict.fromkeys(warnings)), tuple(problems))


def with_packages(variables: Mapping[str, str], folder: str) -> dict[str, str]:
    """Return the variables with ``folder`` first on PYTHONPATH and tunables of glibc."""
    rest = variables.get("PYTHONPATH", "")
    path = f"{folder}:{rest}" if rest else folder
    return with_tunables({**variables, "PYTHONPATH": path})
