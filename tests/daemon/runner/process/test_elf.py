"""Target machines of programs, by the first bytes of their files."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest

from dora_daemon.runner.process.elf import HEADER, wrong_machine


def header(number: int, *, big_endian: bool = False) -> bytes:
    order, data = (">", 2) if big_endian else ("<", 1)
    return b"\x7fELF" + bytes([2, data, 1]).ljust(12, b"\0") + struct.pack(f"{order}HH", 2, number)


@pytest.mark.parametrize(
    ("program", "here", "expected"),
    [
        (header(62), "x86_64", None),
        (header(3), "x86_64", None),
        (header(183), "x86_64", "aarch64"),
        (header(62), "i686", "x86_64"),
        (header(40), "aarch64", None),
        (header(62), "aarch64", "x86_64"),
        (header(22, big_endian=True), "x86_64", "s390x"),
        (header(999), "x86_64", "machine 999"),
        (header(183), "a kernel that is not listed", None),
        (b"#!/usr/bin/env python3\n", "x86_64", None),
        (header(183)[:-1], "x86_64", None),
        (b"", "x86_64", None),
    ],
)
def test_programs_of_other_machines(program: bytes, here: str, expected: str | None) -> None:
    assert wrong_machine(program, here) == expected


def test_the_program_of_this_process_is_made_for_this_machine() -> None:
    with Path(sys.executable).open("rb") as file:
        assert wrong_machine(file.read(HEADER), os.uname().machine) is None
