"""The lock that a release carries satisfies what the packages ask for."""

from __future__ import annotations

import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.sources import PACKAGES, ROOT

from dora_cli.bundle.dependencies import lock_text, parse_lock


def test_every_dependency_is_pinned_to_a_version_that_is_asked_for() -> None:
    pinned = {
        canonicalize_name(pin.requirement.name): next(iter(pin.requirement.specifier)).version
        for pin in parse_lock(lock_text())
    }
    for name in PACKAGES:
        project = tomllib.loads((ROOT / "packages" / name / "pyproject.toml").read_text())
        for text in project["project"]["dependencies"]:
            asked = Requirement(text)
            if asked.name in PACKAGES:
                continue
            version = pinned.get(canonicalize_name(asked.name))
            assert version is not None, f"{asked.name}: run `python scripts/lock.py`"
            assert version in asked.specifier, f"{text} is pinned to {version}"
