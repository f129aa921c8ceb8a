"""Parser of `--env KEY=VALUE`; pure."""

from __future__ import annotations

from collections.abc import Iterable


def parse_env_overrides(pairs: Iterable[str]) -> dict[str, str]:
    """Return variables by name; the last of a repeated name wins.

    Values are passed to nodes exactly as written, such as `01` and `true`. Raises ValueError for a
    missing `=`, an empty or malformed name, or a `$`, which would not be expanded.
    """
    overrides: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r}: expected KEY=VALUE")
        if not name:
            raise ValueError(f"{pair!r}: empty key, expected KEY=VALUE")
        if any(character.isspace() or character == "\0" for character in name):
            raise ValueError(f"{pair!r}: white space in the name {name!r}")
        if "$" in value:
            raise ValueError(
                f"{pair!r}: variables are not expanded; let the shell expand it "
                f'({name}="$NAME"), or use `env:` in the dataflow file'
            )
        overrides[name] = value
    return overrides
