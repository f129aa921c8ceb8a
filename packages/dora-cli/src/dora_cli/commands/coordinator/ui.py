"""`dora ui`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, is_named

Port = Annotated[
    int,
    typer.Option("--port", min=0, max=65535, help="Port of the page on this computer; 0: any."),
]
NoBrowser = Annotated[
    bool, typer.Option("--no-browser", help="Print the link without opening a browser.")
]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="Allow no changes from the page.")]
Local = Annotated[
    bool, typer.Option("--local", help="Show the runs of `dora run` on this computer.")
]


def main(
    port: Port = 0,
    no_browser: NoBrowser = False,
    read_only: ReadOnly = False,
    local: Local = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show machines, dataflows, logs, images and plots in the browser.

    Serves a page on this computer only, until Ctrl-C. The printed link works once. If no
    coordinator is named or runs on this computer, the page shows its runs of `dora run`.
    """
    from dora_cli.ui.page_process import Source, show
    from dora_config.access import endpoint

    if local and (coordinator_addr is not None or coordinator_port is not None):
        raise typer.BadParameter("--local cannot be used with the address of a coordinator")
    target = endpoint(coordinator_addr, coordinator_port)
    chosen = is_named(coordinator_addr, coordinator_port)
    source = Source(
        host=target.host,
        port=target.port,
        local=local or (not chosen and not _listens(target.host, target.port) and _has_runs()),
    )
    show(source, port=port, read_only=read_only, open_browser=not no_browser)


def _listens(host: str, port: int) -> bool:
    import socket

    try:
        socket.create_connection((host, port), 1.0).close()
    except OSError:
        return False
    return True


def _has_runs() -> bool:
    from dora_daemon.agent.local_runs import local_runs

    return bool(local_runs())
