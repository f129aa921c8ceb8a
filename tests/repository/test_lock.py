"""The pinned versions of a release satisfy the requirements of the packages."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.sources import PACKAGES, ROOT

from dora_cluster.bundle.dependencies import FOR_MACHINES, Platform, pins_for
from dora_cluster.bundle.own_packages import CORE
from dora_config.dataflow import compression
from dora_config.installation import with_needed


def test_pins_satisfy_the_requirements() -> None:
    lines = pins_for(Platform.from_key("x86_64-glibc2.36-py3.11"))
    pins = [Requirement(line.partition(" --hash=")[0]) for line in lines]
    pinned = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}
    for name in PACKAGES:
        project = tomllib.loads((ROOT / "packages" / name / "pyproject.toml").read_text())
        for text in project["project"]["dependencies"]:
            required = Requirement(text)
            if required.name in PACKAGES:
                continue
            version = pinned.get(canonicalize_name(required.name))
            assert version is not None, f"{required.name}: run `python scripts/lock.py`"
            assert version in required.specifier, f"{text} is pinned to {version}"


def test_what_machines_need_is_in_the_lock() -> None:
    lines = pins_for(Platform.from_key("x86_64-glibc2.36-py3.11"))
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines}
    sent = set((files("dora_cluster.bundle") / FOR_MACHINES).read_text().split())
    for name in with_needed(CORE):
        project = tomllib.loads((ROOT / "packages" / name / "pyproject.toml").read_text())
        needed = {Requirement(text).name for text in project["project"]["dependencies"]}
        missing = (needed & pinned) - sent - {"uv"}
        assert not missing, f"{name} needs {missing}: run `python scripts/lock.py --keep`"


def test_codecs_are_locked_for_machines_of_computers_that_have_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = tomllib.loads((ROOT / "packages" / "dora-daemon" / "pyproject.toml").read_text())
    (library,) = map(Requirement, project["project"]["optional-dependencies"]["h264"])
    platform = Platform.from_key("aarch64-glibc2.36-py3.11")
    names = {Requirement(line.partition(" --hash=")[0]).name for line in pins_for(platform)}
    assert library.name in names
    monkeypatch.setattr(compression, "find_spec", lambda _: None)
    names = {Requirement(line.partition(" --hash=")[0]).name for line in pins_for(platform)}
    assert library.name not in names
