"""`out/<stem>.dora-session.yaml` beside the dataflow file: the session's id and the last build.

The id stays the same until the file is deleted or unreadable. A change of what is built (sources,
build lines, uv) only makes the last build unknown.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dora_config import ResolvedDataflow
from dora_config.yaml.reader import read_document
from dora_config.yaml.writer import dump_yaml
from dora_daemon.build.errors import SessionFileError
from dora_daemon.out_dir import OUT_DIR, prepare_out_dir


@dataclass(frozen=True, slots=True)
class BuiltNode:
    """Where a prepared node runs, with which interpreter (None: chosen at start) and commit."""

    node: str
    working_dir: Path
    python: Path | None = None
    commit: str | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """What is remembered of a dataflow file between commands; `build_id` None: not built."""

    session_id: str
    build_id: str | None = None
    fingerprint: str | None = None
    nodes: tuple[BuiltNode, ...] = field(default=())
    """What was built on this machine."""
    built_on: Mapping[str, str] = field(default_factory=dict)
    """What was built by daemons: the daemon of each node."""

    def after_build(
        self,
        build_id: str,
        print_: str,
        nodes: tuple[BuiltNode, ...] = (),
        *,
        built_on: Mapping[str, str] | None = None,
    ) -> Session:
        """The same session with a new last build."""
        return replace(
            self, build_id=build_id, fingerprint=print_, nodes=nodes, built_on=built_on or {}
        )


def session_file_path(dataflow: Path) -> Path:
    """The session file of a dataflow file."""
    return dataflow.parent / OUT_DIR / f"{dataflow.stem}.dora-session.yaml"


def fingerprint(dataflow: ResolvedDataflow, *, uv: bool) -> str:
    """Changes when anything changes that a build looks at."""
    facts = [
        [
            node.id,
            node.git.model_dump() if node.git else None,
            node.build,
            {name: str(value) for name, value in sorted(node.env.items())} if node.build else None,
        ]
        for node in dataflow.nodes
    ]
    return hashlib.sha256(json.dumps([facts, uv]).encode()).hexdigest()[:16]


def read_session(dataflow: Path, *, current: str | None = None) -> Session:
    """The session of a dataflow file, a new one when there is none that can be read.

    With `current`, a last build of another fingerprint is left out.
    """
    path = session_file_path(dataflow)
    try:
        session = _parse(read_document(path.read_text(), str(path)).data)
    except (OSError, KeyError, TypeError, ValueError):
        return Session(str(uuid.uuid4()))
    if current is not None and session.fingerprint != current:
        return Session(session.session_id)
    return session


def _parse(document: Any) -> Session:
    """ValueError, KeyError or TypeError for what is no session."""
    if not isinstance(document, dict):
        raise TypeError("expected a mapping")
    session_id = str(uuid.UUID(str(document["session_id"])))
    try:
        nodes = tuple(
            BuiltNode(
                str(node),
                Path(entry["working_dir"]),
                Path(entry["python"]) if entry["python"] else None,
                entry["commit"],
            )
            for node, entry in dict(document["nodes"]).items()
        )
        build_id = document["build_id"]
        last = str(uuid.UUID(str(build_id))) if build_id else None
        daemons = dict(document.get("built_on") or {})
        built_on = {str(node): str(daemon) for node, daemon in daemons.items()}
        return Session(session_id, last, document["build_fingerprint"], nodes, built_on)
    except (KeyError, TypeError, ValueError):
        return Session(session_id)  # written by another version, or the peer: the id still counts


def write_session(dataflow: Path, session: Session) -> None:
    """Replace the session file as a whole; `out/` is kept out of version control."""
    path = session_file_path(dataflow)
    document = {
        "session_id": session.session_id,
        "build_id": session.build_id,
        "build_fingerprint": session.fingerprint,
        "nodes": {
            one.node: {
                "working_dir": str(one.working_dir),
                "python": str(one.python) if one.python else None,
                "commit": one.commit,
            }
            for one in session.nodes
        },
        "built_on": dict(session.built_on),
    }
    try:
        prepare_out_dir(path.parent)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(dump_yaml(document))
        partial.replace(path)
    except OSError as error:
        raise SessionFileError(f"{path}: cannot be written: {error.strerror}") from error
