"""JSON without surrogates, which UTF-8 cannot encode."""

from __future__ import annotations

import json


def without_surrogates(text: str) -> str:
    r"""Return JSON with "?" for each unpaired surrogate, such as ``\ud83d``.

    Raises ValueError, or RecursionError for deeply nested values.
    """
    if r"\u" not in text:
        return text
    return json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace").decode()
