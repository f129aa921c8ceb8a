"""What a terminal gets of foreign text."""

from __future__ import annotations

import json

import pytest

from dora_config.terminal import one_line, visible

HARMLESS = "größe 日本語 👩\u200d🚀 נתיב\n\tnext"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (HARMLESS, HARMLESS),
        ("\x1b[2J\x1b[1;1Hgone", r"\u001b[2J\u001b[1;1Hgone"),
        ("\x1b]0;title\x07", r"\u001b]0;title\u0007"),
        ("\x9b2J\x9d0;t\x9c", r"\u009b2J\u009d0;t\u009c"),  # C1
        ("50%\r100%\x08\x7f\x00", r"50%\r100%\b\u007f\u0000"),
        ("a\u202egpj.exe\u2069\u200f", r"a\u202egpj.exe\u2069\u200f"),  # direction
        ("a\u200bb\ufeff\U000e0041\u2028", r"a\u200bb\ufeff\udb40\udc41\u2028"),  # invisible
        ("\ud800x\udc9b", r"\ud800x\udc9b"),  # surrogates without a partner
        ("\x1b", r"\u001b"),
        ("\x1b[31", r"\u001b[31"),  # the rest may be in the next line
        ("[2J", "[2J"),
        ("\x1b[\n31m", "\\u001b[\n31m"),
        ("\x1b[?31m\x1b[>4;1m\x1b[31 m", r"\u001b[?31m\u001b[>4;1m\u001b[31 m"),  # not SGR
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(text, colour=True) == shown


def test_colours_pass_to_terminals_and_end_with_the_text() -> None:
    text = "\x1b[1;38:5:196mred\x1b[0m and \x1b[32mgreen"
    assert visible(text) == "red and green"
    assert visible(text, colour=True) == f"{text}\x1b[0m"
    assert visible("\x1b[32mgreen\x1b[m\n", colour=True) == "\x1b[32mgreen\x1b[m\n"


def test_json_stays_the_same_json() -> None:
    value = {"text": "".join(map(chr, range(0x3000))) + "\ufeff\U000e0041"}
    shown = visible(json.dumps(value, ensure_ascii=False), colour=True)
    assert json.loads(shown) == value


def test_a_cell_is_one_line() -> None:
    assert one_line("\x1b[31mcamera\x1b[0m\nRunning\x07") == r"camera\nRunning\u0007"
