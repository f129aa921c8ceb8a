"""Reads the target machine of a program from the first bytes of its file; pure."""

from __future__ import annotations

import struct
from typing import Final

HEADER: Final = 20
"""Bytes that are read."""

_MACHINES: Final = {
    3: "i386",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv",
    258: "loongarch",
}
_RUNS: Final = {
    "x86_64": {"x86_64", "i386"},
    "i686": {"i386"},
    "aarch64": {"aarch64", "arm"},
    "armv7l": {"arm"},
    "armv6l": {"arm"},
    "riscv64": {"riscv"},
    "ppc64le": {"ppc64"},
    "s390x": {"s390x"},
    "loongarch64": {"loongarch"},
}
"""Machines whose programs a kernel of that name can run."""


def made_for(header: bytes) -> str | None:
    """Return the machine in an ELF header; None for any other file."""
    if len(header) < HEADER or header[:4] != b"\x7fELF":
        return None
    order = "<" if header[5] == 1 else ">"
    (number,) = struct.unpack_from(f"{order}H", header, 18)
    return _MACHINES.get(number, f"machine {number}")


def wrong_machine(header: bytes, here: str) -> str | None:
    """Return the target of a program if a machine called ``here`` cannot run it."""
    found = made_for(header)
    if found is None or here not in _RUNS or found in _RUNS[here]:
        return None
    return found
