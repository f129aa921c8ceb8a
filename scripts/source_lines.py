"""Print the lines and files of each sub-package of the wheels; `nox -s lint` runs it."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

PACKAGES = Path(__file__).parent.parent / "packages"
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
    for path in sorted(PACKAGES.glob("*/src/**/*.py")):
        text = path.read_text()
        folder = path.parent.relative_to(PACKAGES).parts[2:]
        held = code_lines(text)
        all_of = "dora_ros2" if folder[0] == "dora_ros2" else "all five packages"
        for name in {all_of, folder[0], ".".join(folder)}:
            lines[name] += text.count("\n")
            code[name] += held
            files[name] += 1
    print(f"{'':44} {'code':>7} {'lines':>7} {'files':>6}")
    for name in sorted(files):
        print(f"{name:44} {code[name]:7} {lines[name]:7} {files[name]:6}")


if __name__ == "__main__":
    main()
