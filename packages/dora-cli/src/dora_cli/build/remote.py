"""A build that daemons do, as it looks in the terminal; its result goes to the session file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dora_cli import output
from dora_cli.build.local import STOPPED_BY_USER, LockChoice, locked_commits, write_lock
from dora_cli.coordinator.client import Client
from dora_cli.coordinator.start_spec import make_spec
from dora_cli.errors import CommandFailed
from dora_cli.shipping import send
from dora_config.protocol.builds import (
    BuildDataflow,
    BuildProgress,
    BuildSettings,
    BuildTriggered,
    Built,
    NodeBuildEvent,
)
from dora_config.yaml.quantities import show_duration
from dora_daemon.build import session_file

if TYPE_CHECKING:
    from dora_config import LoadedDataflow
    from dora_config.protocol.control import ControlProgress


def build_on_daemons(
    client: Client,
    loaded: LoadedDataflow,
    *,
    uv: bool,
    offline: bool,
    parallel: bool,
    rebuild: bool,
    lock: LockChoice,
) -> str:
    """Have every node built where it will run; the id of the build.

    Raises RequestFailed with all that went wrong; CommandFailed when the user interrupts.
    """
    settings = BuildSettings(
        offline=offline,
        parallel=parallel,
        rebuild=rebuild,
        commits=locked_commits(loaded, lock),
    )
    spec = make_spec(loaded, uv=uv).model_copy(
        update={"build_id": None, "places": {}, "built_on": {}}
    )
    spec = send(client, spec)
    progress = BuildOutput()
    try:
        built = client.ask(BuildDataflow(spec=spec, settings=settings), Built, progress.show)
    except KeyboardInterrupt:
        output.failure("the build was interrupted, and ends on the daemons too; run it again")
        raise CommandFailed(STOPPED_BY_USER) from None
    if lock.write:
        commits = {one.node: one.commit for one in built.nodes if one.commit is not None}
        write_lock(loaded, commits, lock.file(loaded.path))
    session = session_file.read_session(loaded.path)
    current = session_file.fingerprint(loaded.resolved, uv=uv)
    built_on = {one.node: one.daemon for one in built.nodes}
    after = session.after_build(built.build_id, current, built_on=built_on)
    session_file.write_session(loaded.path, after)
    return built.build_id


class BuildOutput:
    """Prints what happens, a line each, with machine and node in front."""

    def __init__(self) -> None:
        self._colour = output.wants_colour(sys.stdout)

    def show(self, progress: ControlProgress) -> None:
        match progress:
            case BuildTriggered(build_id=build_id):
                output.write(f"dataflow build triggered: {build_id}")
            case BuildProgress(daemon=daemon, news=news, left_out=left_out):
                if left_out:
                    output.write(f"{daemon}: ({left_out} lines came too fast and are left out)")
                for one in news:
                    output.write(f"{daemon}/{one.node}: {self._text(one)}")

    def _text(self, news: NodeBuildEvent) -> str:
        match news.what:
            case "step":
                return output.styled(news.text, "bold", colour=self._colour)
            case "output":
                return f"  {news.text}"
            case "built":
                return f"ready after {show_duration(news.seconds)}"
            case "failed":
                return "failed"
            case "skipped":
                return news.text
