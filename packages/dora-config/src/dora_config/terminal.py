"""Text for terminals: control characters shown escaped, colours passed to terminals only; pure."""

from __future__ import annotations

import json
import re
from typing import Final

RESET: Final = "\x1b[0m"
_SPECIAL: Final = re.compile(
    r"\x1b\[([0-9;:]*)m"  # SGR: colours and styles
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 except tab and newline, DEL, C1
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # direction of text
    r"\u2028\u2029\u200b\u2060-\u2065\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # invisible
    r"\ud800-\udfff]"  # surrogates
)


def visible(text: str, *, colour: bool = False) -> str:
    r"""Return a text that cannot control a terminal.

    Control characters except newline and tab are shown as in JSON (`\u001b`), as are those that
    reorder or hide text; what JSON contains remains the same JSON. Complete SGR sequences (colours)
    remain if ``colour``, with a reset at the end, and are removed otherwise.
    """
    if text.isprintable():
        return text
    style = ""

    def shown(found: re.Match[str]) -> str:
        nonlocal style
        if found[1] is None:
            return json.dumps(found[0])[1:-1]
        style = found[1]
        return found[0] if colour else ""

    result = _SPECIAL.sub(shown, text)
    return result + RESET if colour and style.strip("0") else result


def one_line(text: str) -> str:
    """Return a text as :func:`visible` does, without colours, its newlines escaped too."""
    return visible(text).replace("\n", "\\n")


def clean_text(text: str, *, limit: int = 2000) -> str:
    """Escape control characters and shorten a text, for log lines and messages."""
    if len(text) > limit:
        text = text[:limit] + "..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
