"""Makes the specification that `dora start` and `dora build` send."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Literal

from dora_config.errors import DoraError
from dora_config.protocol.dataflow import DataflowSpec, Origin, workspace_of
from dora_daemon.build.session_file import fingerprint, read_session

if TYPE_CHECKING:
    from dora_config.dataflow.loader import LoadedDataflow


class NotUtf8(DoraError):
    """The path of the dataflow file, or the value of a variable, is not valid UTF-8."""


def make_spec(
    loaded: LoadedDataflow,
    *,
    name: str | None = None,
    uv: bool = False,
    debug: bool = False,
    env_overrides: dict[str, str] | None = None,
    exit_when_nodes_finish: bool | None = None,
    allow_unlinked: bool = False,
    offline: Literal["run", "wait"] = "run",
) -> DataflowSpec:
    """Return all that daemons need, with the result of the last local build if it is current.

    Raises NotUtf8.
    """
    path = loaded.directory / loaded.path.name
    _require_utf8(str(path), "path", "rename the folder or file, or use `dora run`")
    for key, value in (env_overrides or {}).items():
        _require_utf8(f"{key}={value}", "value of --env", "change it, or use `dora run`")
    resolved = loaded.resolved
    if debug:
        resolved = resolved.model_copy(update={"debug_inspection": True})
    session = read_session(path, current=fingerprint(resolved, uv=uv))
    finish = resolved.exit_when_nodes_finish
    if exit_when_nodes_finish is not None:
        finish = exit_when_nodes_finish
    return DataflowSpec(
        resolved=resolved,
        descriptor=loaded.descriptor_dict,
        name=name or resolved.name,
        origin=Origin.of(path.parent),
        workspace=workspace_of(path.stem, f"{socket.gethostname()}{path}"),
        places=session.places(path.parent),
        env_overrides=env_overrides or {},
        uv=uv,
        exit_when_nodes_finish=finish,
        allow_unlinked=allow_unlinked,
        offline=offline,
        build_id=session.build_id,
        built_on=dict(session.built_on),
    )


def _require_utf8(text: str, what: str, remedy: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NotUtf8(
            f"{text}: {what} is not valid UTF-8 and cannot be sent to a daemon; {remedy}"
        ) from None
