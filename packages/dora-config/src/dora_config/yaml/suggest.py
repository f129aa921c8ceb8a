"""Suggestions for misspelt names; pure."""

from __future__ import annotations

from collections.abc import Iterable


def closest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to `name`, or None if none is close."""
    # imported here, since valid files do not need it
    from difflib import get_close_matches

    candidates = list(dict.fromkeys(known))
    folded = {candidate.lower().replace("-", "_"): candidate for candidate in candidates}
    near = get_close_matches(name[:200].lower().replace("-", "_"), folded, n=1, cutoff=0.6)
    return folded[near[0]] if near else None


def did_you_mean(name: str | None) -> str | None:
    """Return `did you mean "x"?`, or None without a name."""
    return f'did you mean "{name}"?' if name is not None else None


def closest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean "x"?` with the closest known name, or an empty text."""
    near = closest_name(name, known)
    return f'; did you mean "{near}"?' if near else ""
