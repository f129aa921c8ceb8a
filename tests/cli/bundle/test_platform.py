"""From what a machine says to the wheels that run on it."""

from __future__ import annotations

from typing import Any

import pytest
from packaging.tags import cpython_tags

from dora_cli.bundle.dependencies import lock_text, parse_lock, wanted
from dora_cli.bundle.platform import Platform, UnknownPlatform

PI: dict[str, Any] = {
    "system": "Linux",
    "implementation": "cpython",
    "machine": "aarch64",
    "bits": 64,
    "libc": "glibc",
    "libc_version": "2.36",
    "python": [3, 11, 2],
    "free_threaded": False,
}


def test_a_pi() -> None:
    platform = Platform.from_probe(PI)
    assert platform.key == "aarch64-glibc2.36-py3.11"
    assert str(platform) == "aarch64, glibc 2.36, Python 3.11.2"
    tags = platform.tags()
    assert tags[0] == "manylinux_2_36_aarch64"
    assert "manylinux2014_aarch64" in tags
    assert "manylinux_2_37_aarch64" not in tags
    assert not any("x86" in tag for tag in tags)


@pytest.mark.parametrize(
    "key", ["aarch64-glibc2.36-py3.11", "x86_64-musl1.2-py3.13", "x86_64-glibc2.41-py3.14t"]
)
def test_a_key_names_a_platform(key: str) -> None:
    assert Platform.from_key(key).key == key


@pytest.mark.parametrize("key", ["", "aarch64", "aarch64-glibc2.36-py3.10", "a-b-c"])
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(UnknownPlatform):
        Platform.from_key(key)


def test_alpine() -> None:
    platform = Platform.from_probe(PI | {"libc": "musl", "libc_version": "1.2.4"})
    assert platform.tags()[0] == "musllinux_1_2_aarch64"
    assert not any("manylinux" in tag for tag in platform.tags())


def test_a_32_bit_python_on_a_64_bit_kernel() -> None:
    assert Platform.from_probe(PI | {"bits": 32}).machine == "armv7l"
    assert Platform.from_probe(PI | {"bits": 32, "machine": "x86_64"}).machine == "i686"


@pytest.mark.parametrize(
    "change",
    [
        {"libc": "", "libc_version": ""},
        {"libc_version": "two"},
        {"system": "Darwin"},
        {"implementation": "pypy"},
        {"python": None},
    ],
)
def test_what_nothing_can_be_made_for(change: dict[str, Any]) -> None:
    with pytest.raises(UnknownPlatform):
        Platform.from_probe(PI | change)


def test_the_tags_are_those_that_this_python_accepts() -> None:
    accepted = list(cpython_tags((3, 11), platforms=Platform.from_probe(PI).tags()))
    assert str(accepted[0]) == "cp311-cp311-manylinux_2_36_aarch64"


def test_the_lock_follows_the_markers_of_the_platform() -> None:
    pins = parse_lock(lock_text())
    names = {pin.requirement.name for pin in wanted(pins, Platform.from_probe(PI))}
    assert {"pyarrow", "eclipse-zenoh", "paramiko", "pip"} <= names
    assert "colorama" not in names  # of Windows
    old = wanted(parse_lock(MARKED), Platform.from_probe(PI))
    new = wanted(parse_lock(MARKED), Platform.from_probe(PI | {"python": [3, 13, 0]}))
    assert [pin.requirement.name for pin in old] == ["backport", "always"]
    assert [pin.requirement.name for pin in new] == ["always"]
    assert old[0].line() == f"backport==1.0 --hash=sha256:{'a' * 64}"


MARKED = f"""\
backport==1.0 ; python_full_version < '3.12' \\
    --hash=sha256:{"a" * 64}
always==2 \\
    --hash=sha256:{"b" * 64} \\
    --hash=sha256:{"c" * 64}
"""


def test_a_lock_pins() -> None:
    with pytest.raises(ValueError, match="not pinned"):
        parse_lock("loose>=1 --hash=sha256:" + "a" * 64)
    with pytest.raises(ValueError, match="not pinned"):
        parse_lock("nohash==1")
