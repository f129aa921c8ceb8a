"""The page as a command, and as a process beside `dora run` and `dora start`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from json import dumps, loads

from dora_cli import output
from dora_config.access import address_text, endpoint
from dora_config.errors import DoraError
from dora_config.spawn_argv import run_module

END_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Source:
    """A coordinator, or with ``local`` the runs on this computer."""

    host: str = ""
    port: int = 0
    local: bool = False
    dataflow: str | None = None
    """UUID of the dataflow to show first; of local runs, the only one to show."""


def show(
    source: Source,
    *,
    port: int = 0,
    read_only: bool = False,
    open_browser: bool = True,
    until_input_ends: bool = False,
) -> None:
    """Serve the page until SIGINT or SIGTERM, or until standard input ends."""
    from dora_cli.ui.browser import advice, opened_in_browser
    from dora_cli.ui.connection import CoordinatorConnection, LocalRuns
    from dora_cli.ui.server import listen, new_access, serve

    coordinator = (
        LocalRuns(source.dataflow)
        if source.local
        else CoordinatorConnection(
            address_text(source.host, source.port), partial(endpoint, source.host, source.port)
        )
    )
    try:
        listening = listen(port)
    except OSError as error:
        raise DoraError(
            f"cannot use port {port} of this computer ({error.strerror}); choose another one with "
            "--port"
        ) from error
    with listening as listener, suppress(KeyboardInterrupt), ExitStack() as opened:
        access = new_access(
            listener.getsockname()[1], read_only=read_only, dataflow=source.dataflow
        )
        output.remark(f"dora ui: {access.link}")
        for line in advice(access.port, os.environ):
            output.remark(line)
        if open_browser:
            opened.enter_context(opened_in_browser(access.link, os.environ))
        serve(listener, access, coordinator, until_input_ends=until_input_ends)


@contextmanager
def page_beside(source: Source) -> Iterator[None]:
    """Serve the page in a process of its own for the block; it ends with this process."""
    process = subprocess.Popen(
        [*run_module("dora_cli.ui"), dumps(asdict(source))],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main(argument: str) -> None:
    """Serve the page for `page_beside`."""
    show(Source(**loads(argument)), until_input_ends=True)
