"""The known name that a user probably meant; pure."""

from __future__ import annotations

from collections.abc import Iterable


def closest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name nearest to `name`, or None when nothing is near."""
    # imported here: a correct file never needs it
    from difflib import get_close_matches

    candidates = list(dict.fromkeys(known))
    folded = {candidate.lower().replace("-", "_"): candidate for candidate in candidates}
    near = get_close_matches(name[:200].lower().replace("-", "_"), folded, n=1, cutoff=0.6)
    return folded[near[0]] if near else None


def closest(name: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?` for the nearest known name, or nothing; goes behind a sentence."""
    near = closest_name(name, known)
    return f'; did you mean "{near}"?' if near else ""
