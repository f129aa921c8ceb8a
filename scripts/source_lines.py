"""Print the lines and files of each wheel and its sub-packages; `nox -s lint` runs it."""

from __future__ import annotations

import ast
import io
import json
import tokenize
from collections import Counter
from pathlib import Path

PACKAGES = Path(__file__).parent.parent / "packages"
NEEDS: dict[str, list[str]] = json.loads(
    (PACKAGES / "dora-config" / "src" / "dora_config" / "wheels.json").read_text()
)
CORE = {*NEEDS["dora-cli-core"], "dora-cli-core"}
_LAYOUT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENCODING, tokenize.ENDMARKER,
}  # fmt: skip


def code_lines(text: str) -> int:
    """Return the number of lines that are not blank, comment or docstring."""
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _LAYOUT:
            held.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                held.difference_update(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(held)


def main() -> None:
    lines: Counter[str] = Counter()
    code: Counter[str] = Counter()
    files: Counter[str] = Counter()
    parts: dict[str, set[str]] = {}
    for path in sorted(PACKAGES.glob("*/src/**/*.py")):
        text = path.read_text()
        wheel, _, *folder = path.parent.relative_to(PACKAGES).parts
        held = code_lines(text)
        part = f"  {'.'.join(folder)}"
        parts.setdefault(wheel, set()).add(part)
        for name in {"all wheels", "core" if wheel in CORE else "plug-ins", wheel, part}:
            lines[name] += text.count("\n")
            code[name] += held
            files[name] += 1
    print(f"{'':46} {'code':>7} {'lines':>7} {'files':>6}")
    wheels = sorted(parts, key=lambda wheel: (wheel not in CORE, wheel))
    for name in [name for wheel in wheels for name in (wheel, *sorted(parts[wheel]))]:
        print(f"{name:46} {code[name]:7} {lines[name]:7} {files[name]:6}")
    print()
    for name in (*wheels, "core", "plug-ins", "all wheels"):
        print(f"{name:46} {code[name]:7} {lines[name]:7} {files[name]:6}")


if __name__ == "__main__":
    main()
