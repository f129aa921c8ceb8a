"""Platforms from facts about machines, and the wheels for them."""

from __future__ import annotations

from typing import Any

import pytest
from packaging.tags import cpython_tags

from dora_cluster.bundle.dependencies import Platform, UnknownPlatform, pins_for

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


def test_raspberry_pi() -> None:
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
def test_key_is_read_back(key: str) -> None:
    assert Platform.from_key(key).key == key


@pytest.mark.parametrize("key", ["", "aarch64", "aarch64-glibc2.36-py3.10", "a-b-c"])
def test_invalid_keys_are_refused(key: str) -> None:
    with pytest.raises(UnknownPlatform):
        Platform.from_key(key)


def test_alpine() -> None:
    platform = Platform.from_probe(PI | {"libc": "musl", "libc_version": "1.2.4"})
    assert platform.tags()[0] == "musllinux_1_2_aarch64"
    assert not any("manylinux" in tag for tag in platform.tags())


def test_32_bit_python_on_a_64_bit_kernel() -> None:
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
def test_unsupported_platforms_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UnknownPlatform):
        Platform.from_probe(PI | change)


def test_tags_match_those_of_this_python() -> None:
    accepted = list(cpython_tags((3, 11), platforms=Platform.from_probe(PI).tags()))
    assert str(accepted[0]) == "cp311-cp311-manylinux_2_36_aarch64"


def test_lines_of_the_lock_follow_the_markers_of_the_platform() -> None:
    names = {line.partition("==")[0] for line in pins_for(Platform.from_probe(PI))}
    assert {"pyarrow", "eclipse-zenoh", "paramiko", "pip"} <= names
    assert "colorama" not in names  # of Windows
    old = list(pins_for(Platform.from_probe(PI), MARKED))
    new = list(pins_for(Platform.from_probe(PI | {"python": [3, 13, 0]}), MARKED))
    always = f"always==2 --hash=sha256:{'b' * 64} --hash=sha256:{'c' * 64}"
    assert old == [f"backport==1.0 --hash=sha256:{'a' * 64}", always]
    assert new == [always]


MARKED = f"""\
backport==1.0 ; python_full_version < '3.12' \\
    --hash=sha256:{"a" * 64}
always==2 \\
    --hash=sha256:{"b" * 64} \\
    --hash=sha256:{"c" * 64}
"""


@pytest.mark.parametrize(
    ("libc_version", "expected"),
    [
        ("2.17", "aarch64-manylinux_2_17"),
        ("2.27", "aarch64-manylinux_2_17"),
        ("2.30", "aarch64-manylinux_2_28"),
        ("2.31", "aarch64-manylinux_2_31"),
        ("2.36", "aarch64-manylinux_2_36"),
        ("2.99", "aarch64-manylinux_2_40"),
    ],
)
def test_name_for_uv_is_not_newer_than_the_machine(libc_version: str, expected: str) -> None:
    assert Platform.from_probe(PI | {"libc_version": libc_version}).uv_name() == expected


def test_name_for_uv_on_alpine() -> None:
    platform = Platform.from_probe(PI | {"libc": "musl", "libc_version": "1.2.4"})
    assert platform.uv_name() == "aarch64-unknown-linux-musl"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"machine": "armv7l", "bits": 32}, "no wheels for armv7l"),
        ({"bits": 32}, "no wheels for armv7l"),
        ({"free_threaded": True}, "no wheels for free-threaded Python"),
        ({"libc_version": "2.12"}, "needs glibc 2.17 or newer"),
    ],
)
def test_platforms_without_wheels_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnknownPlatform, match=reason):
        Platform.from_probe(PI | change).uv_name()
