"""The platform of a machine, and which wheels fit it; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dora_config.errors import DoraError

OLDEST_PYTHON = (3, 11)

_KEY = re.compile(r"(\w+)-(glibc|musl)(\d+)\.(\d+)-py(\d+)\.(\d+)(t?)")
_LEGACY = {(2, 5): "manylinux1", (2, 12): "manylinux2010", (2, 17): "manylinux2014"}
_FIRST_GLIBC = {"x86_64": 5, "i686": 5}
"""Minor version of the oldest glibc 2 that wheels are tagged for; 17 on other machines."""
_UV_GLIBC = (17, 28, *range(31, 41))
"""Minor versions of glibc 2 that uv has a name for."""
_NARROW = {"x86_64": "i686", "aarch64": "armv7l", "armv8l": "armv7l"}
"""Machine name for a 32-bit Python on such a kernel."""


class UnknownPlatform(DoraError):
    """Dora cannot be installed on that machine; ``str()`` gives the reason."""


@dataclass(frozen=True, slots=True)
class Platform:
    """The properties of a machine that decide which wheels run there."""

    machine: str
    """As in names of wheels: x86_64, aarch64, ..."""
    libc: Literal["glibc", "musl"]
    libc_version: tuple[int, int]
    python: tuple[int, int, int]
    free_threaded: bool = False

    @classmethod
    def from_probe(cls, facts: Mapping[str, Any]) -> Platform:
        """Read the facts of ``remote_program.versions``; raises UnknownPlatform."""
        try:
            machine = str(facts["machine"])
            if int(facts["bits"]) == 32:
                machine = _NARROW.get(machine, machine)
            major, minor, micro = (int(number) for number in facts["python"])
            libc = str(facts["libc"])
            words = [int(number) for number in str(facts["libc_version"]).split(".")[:2]]
            if libc not in ("glibc", "musl") or len(words) != 2:
                raise ValueError
        except (KeyError, TypeError, ValueError) as error:
            raise UnknownPlatform(
                "its C library is not glibc or musl of a known version, and others have no wheels; "
                f"facts about the machine: {dict(facts)}"
            ) from error
        if facts.get("system") != "Linux" or facts.get("implementation") != "cpython":
            raise UnknownPlatform(
                f"it has {facts.get('implementation')} on {facts.get('system')}; dora needs "
                "CPython on Linux"
            )
        return cls(
            machine,
            "glibc" if libc == "glibc" else "musl",
            (words[0], words[1]),
            (major, minor, micro),
            bool(facts.get("free_threaded")),
        )

    @classmethod
    def from_key(cls, key: str) -> Platform:
        """Read a :attr:`key`; raises UnknownPlatform."""
        found = _KEY.fullmatch(key)
        if found is None:
            raise UnknownPlatform(
                f"{key!r}: expected MACHINE-LIBC-PYTHON, for example aarch64-glibc2.36-py3.11"
            )
        machine, libc, first, second, major, minor, threaded = found.groups()
        python = (int(major), int(minor))
        if python < OLDEST_PYTHON:
            raise UnknownPlatform(f"{key!r}: dora needs Python 3.11 or newer")
        return cls(
            machine,
            "glibc" if libc == "glibc" else "musl",
            (int(first), int(second)),
            (*python, 0),
            threaded == "t",
        )

    @property
    def python_name(self) -> str:
        """Part of a tree's name: ``py3.11``."""
        return f"py{self.python[0]}.{self.python[1]}{'t' if self.free_threaded else ''}"

    @property
    def abi(self) -> str:
        return f"cp{self.python[0]}{self.python[1]}{'t' if self.free_threaded else ''}"

    def __str__(self) -> str:
        libc = f"{self.libc} {self.libc_version[0]}.{self.libc_version[1]}"
        return f"{self.machine}, {libc}, Python {'.'.join(map(str, self.python))}"

    @property
    def key(self) -> str:
        """Name of archives for it; the last number of Python's version does not matter."""
        libc = f"{self.libc}{self.libc_version[0]}.{self.libc_version[1]}"
        return f"{self.machine}-{libc}-{self.python_name}"

    def tags(self) -> tuple[str, ...]:
        """Return platform tags of wheels that run there, newest first."""
        major, minor = self.libc_version
        if self.libc == "musl":
            return tuple(f"musllinux_{major}_{n}_{self.machine}" for n in range(minor, -1, -1))
        tags = []
        for number in range(minor, _FIRST_GLIBC.get(self.machine, 17) - 1, -1):
            tags.append(f"manylinux_{major}_{number}_{self.machine}")
            if (major, number) in _LEGACY:
                tags.append(f"{_LEGACY[major, number]}_{self.machine}")
        return (*tags, f"linux_{self.machine}")

    def uv_name(self) -> str:
        """Return uv's name of the newest kind of wheel that runs there; raises UnknownPlatform."""
        if self.free_threaded or self.machine not in ("x86_64", "aarch64"):
            kind = "free-threaded Python" if self.free_threaded else self.machine
            raise UnknownPlatform(
                f"{self}: dora cannot be installed, because Apache Arrow and Zenoh have no wheels "
                f"for {kind}"
            )
        if self.libc == "musl":
            return f"{self.machine}-unknown-linux-musl"
        fitting = [minor for minor in _UV_GLIBC if (2, minor) <= self.libc_version]
        if not fitting:
            raise UnknownPlatform(f"{self}: dora needs glibc 2.17 or newer")
        return f"{self.machine}-manylinux_2_{fitting[-1]}"

    def markers(self) -> dict[str, str]:
        """Return the variables of environment markers (``; python_version < "3.12"``) there."""
        major, minor, micro = self.python
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{major}.{minor}.{micro}",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{major}.{minor}.{micro}",
            "python_version": f"{major}.{minor}",
            "sys_platform": "linux",
            "extra": "",
        }
