"""Write plain Python values as YAML, without a YAML library, which nodes do not have."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

# Text that needs no quotes: YAML reads it as a string.
_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+-]*(?: [A-Za-z0-9_./+=-]+)*\Z")
_RESERVED = frozenset(
    {"null", "true", "false", "yes", "no", "on", "off", "y", "n", ".inf", ".nan", "~"}
)


def to_yaml(value: Any) -> str:
    """Return `value` (dicts, lists, str, numbers, bool, None) as a YAML document.

    Raises TypeError for anything else.
    """
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _under(f"{_scalar(str(key))}:", item)
    elif isinstance(value, list | tuple) and value:
        for item in value:
            if isinstance(item, Mapping | list | tuple) and item:
                first, *rest = _lines(item)
                yield f"- {first}"
                yield from (f"  {line}" for line in rest)
            else:
                yield f"- {_scalar(item)}"
    else:
        yield _scalar(value)


def _under(head: str, item: Any) -> Iterable[str]:
    if isinstance(item, Mapping | list | tuple) and item:
        yield head
        yield from (f"  {line}" for line in _lines(item))
    else:
        yield f"{head} {_scalar(item)}"


def _scalar(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            if math.isfinite(value):
                # YAML 1.1 requires a dot in a number with an exponent.
                text = repr(value)
                return text.replace("e", ".0e") if "e" in text and "." not in text else text
            return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
        case str():
            return _string(value)
        case Mapping():
            return "{}"
        case list() | tuple():
            return "[]"
    raise TypeError(f"{type(value).__name__} cannot be written to a dataflow file: {value!r}")


def _string(text: str) -> str:
    if _PLAIN.match(text) and text.lower() not in _RESERVED and not text.startswith("."):
        return text
    # JSON's strings are YAML's double-quoted ones, except for characters that YAML must escape.
    quoted = json.dumps(text, ensure_ascii=False)
    return re.sub(r"[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]", _escape, quoted)


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
