"""The page of `dora graph`: one file with the scripts of `dora ui` and the dataflow."""

from __future__ import annotations

import base64
import gzip
import json
import re
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, Final

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedNode
from dora_ui import page
from dora_ui.rows import Row, graph_node

_SCRIPTS: Final = page.STATIC / "js"
_IMPORT: Final = re.compile(r'(?<=from)( ?)"([^"]+)"')


def graph_page(dataflow: ResolvedDataflow, title: str) -> str:
    """Return the page; `title` is usually the name of the file."""
    nodes = [
        {**graph_node(node, _place(node)), "details": _details(node)} for node in dataflow.nodes
    ]
    parts = {
        "TITLE": escape(title),
        "THEME": (_SCRIPTS / "theme.js").read_text(encoding="utf-8"),
        "STYLE": (page.STATIC / "app.css").read_text(encoding="utf-8"),
        "IMPORTS": _json({"imports": _modules()}),
        "DATAFLOW": _json({"title": title, "nodes": nodes}),
    }
    text = (page.STATIC / "graph.html").read_text(encoding="utf-8")
    return re.sub(r"@([A-Z]+)@", lambda mark: parts[mark[1]], text)


def _json(value: Any) -> str:
    """Return JSON without `</script>`, which would end the script around it."""
    return json.dumps(value).replace("<", "\\u003c")


def _modules() -> dict[str, str]:
    """Return the scripts of the page by name, as URLs that contain them.

    A relative import has no meaning in such a URL, so it is replaced with the name.
    """
    libraries = {name: page.STATIC.parent / path for name, path in page.libraries().items()}
    worker = gzip.compress(libraries["elkjs-worker"].read_bytes(), mtime=0)
    found = {"elkjs-worker": _url("application/gzip", worker)}
    pending = [_SCRIPTS / "graph" / "page.js"]

    def named(folder: Path, imported: re.Match[str]) -> str:
        name = imported[2]
        path = libraries.get(name)
        if name.startswith("."):
            path = (folder / name).resolve()
            name = _name(path)
        if path is not None and name not in found:
            pending.append(path)
            libraries[name] = path
        return f'{imported[1]}"{name}"'

    names = {path.resolve(): name for name, path in libraries.items()}
    while pending:
        path = pending.pop()
        text = path.read_text(encoding="utf-8")
        name = names.get(path.resolve()) or _name(path)
        found[name] = _url(
            "text/javascript", _IMPORT.sub(partial(named, path.parent), text).encode()
        )
    return found


def _name(path: Path) -> str:
    return f"dora/{path.relative_to(_SCRIPTS.resolve())}"


def _url(media: str, content: bytes) -> str:
    return f"data:{media};base64,{base64.b64encode(content).decode()}"


def _place(node: ResolvedNode) -> str | None:
    """Return the machine or the labels of a node."""
    deploy = node.deploy
    if deploy.machine is not None:
        return deploy.machine
    return ", ".join(f"{key}={value}" for key, value in deploy.labels.items()) or None


def _details(node: ResolvedNode) -> Row:
    """Return the displayed details of a node; of its environment only the names."""
    restart, types = node.restart.policy, node.output_types
    lines = {
        "Name": node.name,
        "Description": node.description,
        "Kind": node.kind,
        "Path": node.path,
        "Arguments": " ".join(node.args),
        "Operators": "\n".join(f"{one.id}: {one.python}" for one in node.operators),
        "Build": "\n".join(node.build),
        "Git": node.git.url if node.git is not None else None,
        "Runs on": _place(node),
        "Restart": restart if restart != "never" else None,
        "Environment": ", ".join(node.env),
        "Inputs": "\n".join(f"{name} ← {one.source}" for name, one in node.inputs.items()),
        "Outputs": "\n".join(
            f"{output}: {types[output]}" if output in types else output for output in node.outputs
        ),
    }
    return {label: value for label, value in lines.items() if value}
