"""`out/<stem>.dora-session.yaml` beside the dataflow file: id of the session and last build.

The id stays the same until the file is deleted or unreadable. When the sources, build lines or the
use of uv change, only the last build becomes unknown.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from dora_config.atomic_write import write_file
from dora_config.dataflow.resolved import NodeLocation, ResolvedDataflow
from dora_config.protocol.builds import BuiltNode
from dora_config.protocol.envelope import Message
from dora_config.yaml.reader import read_document
from dora_config.yaml.writer import dump_yaml
from dora_daemon.build.errors import SessionFileError
from dora_daemon.out_dir import OUT_DIR, folder, prepare_out_dir


class BuildSession(Message):
    """State of a dataflow file between commands; `build_id` None: not built."""

    session_id: str
    build_id: str | None = None
    fingerprint: str | None = None
    nodes: tuple[BuiltNode, ...] = ()
    """Nodes that were built on this machine."""
    built_on: Mapping[str, str] = Field(default_factory=dict)
    """Daemon of each node that was built by a daemon."""

    def places(self, base_dir: Path) -> dict[str, NodeLocation]:
        """Return the locations of nodes; a working directory that equals `base_dir` is left out."""
        found = {}
        for built in self.nodes:
            own_dir = None if built.place.working_dir == str(base_dir) else built.place.working_dir
            found[built.node] = built.place.model_copy(update={"working_dir": own_dir})
        return found


def session_file_path(dataflow: Path) -> Path:
    """Return the session file of a dataflow file."""
    return folder(dataflow.parent, OUT_DIR) / f"{dataflow.stem}.dora-session.yaml"


def fingerprint(dataflow: ResolvedDataflow, *, uv: bool) -> str:
    """Return a text that changes when any input of the build changes."""
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


def read_session(dataflow: Path, *, current: str | None = None) -> BuildSession:
    """Return the session of a dataflow file; a new one if it has none that can be read.

    With `current`, a last build of another fingerprint is left out.
    """
    path = session_file_path(dataflow)
    try:
        document = read_document(path.read_text(), str(path)).data
        session_id = str(uuid.UUID(str(document["session_id"])))
    except (OSError, KeyError, TypeError, ValueError):
        return BuildSession(session_id=str(uuid.uuid4()))
    try:
        session = BuildSession.model_validate(document)
    except ValidationError:
        return BuildSession(session_id=session_id)  # written by another version, or by dora-rs
    if current is not None and session.fingerprint != current:
        return BuildSession(session_id=session_id)
    return session


def record_build(
    dataflow: Path,
    build_id: str,
    fingerprint: str,
    *,
    nodes: tuple[BuiltNode, ...] = (),
    built_on: Mapping[str, str] | None = None,
) -> BuildSession:
    """Write the last build into the session file. Raises SessionFileError."""
    session = BuildSession(
        session_id=read_session(dataflow).session_id,
        build_id=build_id,
        fingerprint=fingerprint,
        nodes=nodes,
        built_on=built_on or {},
    )
    path = session_file_path(dataflow)
    try:
        prepare_out_dir(path.parent)
        write_file(path, dump_yaml(session.model_dump(mode="json")))
    except OSError as error:
        raise SessionFileError(f"{path}: cannot be written: {error.strerror}") from error
    return session
