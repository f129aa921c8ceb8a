"""The lock that a release carries satisfies what the packages ask for."""

from __future__ import annotations

import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.sources import PACKAGES, ROOT

from dora_cli.bundle.dependencies import pins_for
from dora_cli.bundle.platform import Platform

NOT_SENT = ("uv",)
"""Only the machine that puts dora on others needs it."""


def test_every_dependency_is_pinned_to_a_version_that_is_asked_for() -> None:
    lines = pins_for(Platform.from_key("x86_64-glibc2.36-py3.11"))
    pins = [Requirement(line.partition(" --hash=")[0]) for line in lines]
    pinned = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}
    for name in PACKAGES:
        project = tomllib.loads((ROOT / "packages" / name / "pyproject.toml").read_text())
        for text in project["project"]["dependencies"]:
            asked = Requirement(text)
            if asked.name in (*PACKAGES, *NOT_SENT):
                continue
            version = pinned.get(canonicalize_name(asked.name))
            assert version is not None, f"{asked.name}: run `python scripts/lock.py`"
            assert version in asked.specifier, f"{text} is pinned to {version}"
