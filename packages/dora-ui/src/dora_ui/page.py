"""The files of the page, and the headers that restrict it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import quote

STATIC: Final = Path(__file__).parent / "static"
INDEX: Final = STATIC / "index.html"

_INLINE: Final = re.compile(rb"<script type=\"importmap\">(.*?)</script>", re.DOTALL)


def libraries() -> dict[str, str]:
    """Return the files of libraries, below the folder of the page, by imported name."""
    (inline,) = _INLINE.findall(INDEX.read_bytes())
    imports: dict[str, str] = json.loads(inline)["imports"]
    return imports


@cache
def headers(port: int) -> dict[str, str]:
    """Return the headers of every response: the page may only use this server."""
    (inline,) = _INLINE.findall(INDEX.read_bytes())
    digest = base64.b64encode(hashlib.sha256(inline).digest()).decode()
    sources = f"'self' ws://127.0.0.1:{port} ws://localhost:{port}"
    policy = {
        "default-src": "'none'",
        "script-src": f"'self' 'sha256-{digest}'",
        "style-src": "'self'",
        "img-src": "'self' blob:",
        "connect-src": sources,
        "worker-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }


def enter(root: str, dataflow: str | None) -> str:
    """Return the answer to the link with the key, which leads to a dataflow or to the fleet.

    The answer is not a redirect, because browsers send no cookie after one from another site.
    """
    target = root if dataflow is None else f"{root}#/dataflow/{quote(dataflow)}"
    return f"""<!doctype html><meta charset="utf-8"><title>dora</title>
<meta name="color-scheme" content="light dark">
<link rel="icon" href="{root}static/icon.svg"><meta http-equiv="refresh" content="0;url={target}">
<p><a href="{target}">Continue</a></p>
"""
