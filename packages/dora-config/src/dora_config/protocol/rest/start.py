"""Makes a specification from a descriptor in a request; reads its modules and types."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dora_config.dataflow.loader import parse_dataflow
from dora_config.errors import ConfigError
from dora_config.process_identity import boot_id
from dora_config.protocol.dataflow import DataflowSpec, Origin
from dora_config.protocol.rest.errors import OperationFailed
from dora_config.protocol.rest.models import StartDataflowFile

_FILE_NAME = "dataflow.yml"
# JSON allows these characters in texts; YAML refuses them or reads them as line breaks.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufffe\uffff]")


def specification(wanted: StartDataflowFile) -> tuple[DataflowSpec, tuple[str, ...]]:
    """Return the specification and warnings; raises OperationFailed."""
    directory, origin = _directory(wanted.directory)
    given = wanted.descriptor
    text = given if isinstance(given, str) else _as_yaml(given)
    path = Path(_FILE_NAME) if directory is None else directory / _FILE_NAME
    try:
        loaded = parse_dataflow(text, path=path, environ=wanted.env)
        name = wanted.name or loaded.resolved.name
        spec = DataflowSpec(
            resolved=loaded.resolved,
            descriptor=loaded.descriptor_dict,
            name=name,
            origin=origin,
            workspace=_workspace(directory, name),
            env_overrides=wanted.env,
            exit_when_nodes_finish=loaded.resolved.exit_when_nodes_finish,
        )
    except ConfigError as error:
        raise OperationFailed("invalid", f"invalid dataflow:\n{error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise OperationFailed("invalid", f"{field}: {first['msg']}") from error
    return spec, tuple(str(problem) for problem in loaded.warnings)


def _as_yaml(descriptor: dict[str, Any]) -> str:
    text = json.dumps(descriptor, ensure_ascii=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _directory(text: str) -> tuple[Path | None, Origin]:
    """Return the folder of relative paths and its identity; raises OperationFailed."""
    if not text:
        return None, Origin()
    path = Path(text)
    if not path.is_absolute():
        raise OperationFailed("invalid", f'directory: "{text}" is not an absolute path')
    try:
        folder = path.stat()
        if stat.S_ISDIR(folder.st_mode):
            directory = path.resolve()
            return directory, _origin(directory, folder)
    except (OSError, ValueError):
        pass  # reported below
    raise OperationFailed(
        "invalid",
        f'directory: "{text}" is not a folder on the coordinator\'s machine; omit it if the '
        "nodes need no files of that folder",
    )


def _origin(directory: Path, folder: os.stat_result) -> Origin:
    return Origin(
        boot_id=boot_id(),
        directory=str(directory),
        device=folder.st_dev,
        inode=folder.st_ino,
        file_name=_FILE_NAME,
    )


def _workspace(directory: Path | None, name: str | None) -> str:
    """Return a readable folder name that is the same at each start of the same dataflow."""
    digest = hashlib.sha256(f"{directory}\0{name}".encode()).hexdigest()
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", name or "dataflow")[:100]
    return f"{stem}-{digest[:8]}"
