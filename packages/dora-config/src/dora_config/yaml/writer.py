"""Plain values to YAML text; pure."""

from __future__ import annotations

from typing import Any

import yaml

from dora_config.yaml.scalars import STR, plain_tag


def dump_yaml(data: Any) -> str:
    """Return plain values as YAML text with unchanged order, which `read_document` reads equal."""
    text: str = yaml.dump(
        data,
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=False,
        allow_unicode=True,
        width=100,
    )
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes every string that YAML 1.1 or 1.2 would read as another value."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    has_controls = not all(c.isprintable() or c == "\n" for c in text)
    style = None
    if has_controls or plain_tag(text) != STR:
        style = '"'
    elif "\n" in text and text.strip() == text.rstrip("\n"):
        style = "|"
    return dumper.represent_scalar(STR, text, style=style)


_Dumper.add_representer(str, _represent_text)
