"""The reference pages that people write know every variable of the code, and nothing else."""

from __future__ import annotations

import ast
import re

from support.sources import ROOT, packaged_sources

VARIABLE = re.compile(r"DORA_[A-Z][A-Z_]*[A-Z]")
DROPPED = re.compile(
    r"DORA_RUNTIME_CONFIG|DORA_ZENOH_\w*|DORA_ZENOH|DORA_RUN_PARENT_PID|DORA_HUB\w*"
)
"""Names of the peer that are only known in order to be kept from nodes."""


def _in_code() -> dict[str, str]:
    """Each variable that a string of the packages names as a whole, with one place of it."""
    found: dict[str, str] = {}
    for source in packaged_sources():
        for node in ast.walk(source.tree):
            name = node.value if isinstance(node, ast.Constant) else None
            if isinstance(name, str) and VARIABLE.fullmatch(name) and not DROPPED.fullmatch(name):
                found.setdefault(name, f"{source.name}:{getattr(node, 'lineno', 0)}")
    return found


def test_environment_variables_are_documented() -> None:
    documented = set(VARIABLE.findall((ROOT / "docs/reference/environment.md").read_text()))
    used = _in_code()
    missing = [f"{place}: {name}" for name, place in used.items() if name not in documented]
    assert not missing, "not in docs/reference/environment.md:\n" + "\n".join(missing)
    unknown = documented - set(used)
    assert not unknown, f"nothing reads {sorted(unknown)}, which environment.md names"
