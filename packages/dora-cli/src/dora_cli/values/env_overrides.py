"""`--env KEY=VALUE` to a mapping. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def parse_env_overrides(pairs: Iterable[str]) -> dict[str, str]:
    """Variables by name; the last of a repeated name wins.

    A value reaches the nodes exactly as written, `01` and `true` included. ValueError says what is
    wrong with a pair: no `=`, an empty or malformed name, or a `$`, which nothing would expand.
    """
    overrides: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r}: expected KEY=VALUE")
        if not name:
            raise ValueError(f"{pair!r}: empty key, expected KEY=VALUE")
        if any(character.isspace() or character == "\0" for character in name):
            raise ValueError(f"{pair!r}: the name {name!r} holds white space")
        if "$" in value:
            raise ValueError(
                f"{pair!r}: variables are not expanded here; let the shell expand it "
                f'({name}="$NAME"), or write it in `env:` of the dataflow file'
            )
        overrides[name] = value
    return overrides
