"""The page as a command, and as a process beside `dora run` and `dora start`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from getpass import getuser
from html import escape
from json import dumps, loads
from pathlib import Path
from socket import gethostname
from tempfile import NamedTemporaryFile
from typing import Final

from dora_cli import output
from dora_cli.page import PageSource
from dora_config.access import address_text, endpoint
from dora_config.errors import DoraError
from dora_config.spawn_argv import run_module

END_SECONDS = 5.0
"""Time for the process of the page to end."""

DISPLAYS: Final = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
SNAP_BROWSERS: Final = ("firefox", "chromium", "brave", "opera")
REDIRECT: Final = """<!doctype html><meta charset="utf-8"><title>dora</title>
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="0;url={link}"><p><a href="{link}">Continue</a></p>
"""


def advice(port: int, environ: Mapping[str, str]) -> list[str]:
    """Return how to open the link from another computer, if the terminal is an SSH session."""
    connection = environ.get("SSH_CONNECTION", "").split()
    if len(connection) != 4 or "VSCODE_IPC_HOOK_CLI" in environ:
        return []
    try:
        user = f"{getuser()}@"
    except (OSError, KeyError):
        user = ""
    host = connection[2] or gethostname()
    options = f"-L {port}:127.0.0.1:{port}"
    if connection[3] != "22":
        options += f" -p {connection[3]}"
    return [f"  on your computer: ssh {options} {user}{host}, then open the link"]


@contextmanager
def opened_in_browser(link: str, environ: Mapping[str, str]) -> Iterator[None]:
    """Open the link for the block, if this computer has a display and a file can be written."""
    if sys.platform == "linux" and not any(environ.get(name) for name in DISPLAYS):
        yield
    elif "VSCODE_IPC_HOOK_CLI" in environ:
        # The browser is on the computer of the editor, which forwards the port.
        _open(link)
        yield
    else:
        file = None
        with suppress(OSError, RuntimeError):  # the account may not have a home
            file = redirect_file(link, home=Path.home(), snap=Path("/snap/bin"))
        try:
            if file is not None:
                _open(file.as_uri())
            yield
        finally:
            if file is not None:
                file.unlink(missing_ok=True)


def _open(address: str) -> None:
    """Open an address; a browser in the foreground returns only when it is closed."""
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def redirect_file(link: str, *, home: Path, snap: Path) -> Path:
    """Write a page that leads to the link, with mode 0600, and return its path.

    Browsers from snaps read only files in the home folder that are not hidden.
    """
    folder = home if any((snap / name).exists() for name in SNAP_BROWSERS) else None
    content = REDIRECT.format(link=escape(link))
    with suppress(OSError):
        return _written(content, folder)
    return _written(content, None)


def _written(content: str, folder: Path | None) -> Path:
    with NamedTemporaryFile(
        "w", encoding="utf-8", dir=folder, prefix="dora-ui-", suffix=".html", delete=False
    ) as file:
        try:
            file.write(content)
            file.flush()
        except OSError:
            Path(file.name).unlink()
            raise
    return Path(file.name)


def show(
    source: PageSource,
    *,
    port: int = 0,
    read_only: bool = False,
    open_browser: bool = True,
    until_input_ends: bool = False,
) -> None:
    """Serve the page until SIGINT or SIGTERM, or until standard input ends."""
    from dora_ui.connection import CoordinatorConnection, LocalRuns
    from dora_ui.server import Access, listen, serve

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
        access = Access(listener.getsockname()[1], read_only=read_only, dataflow=source.dataflow)
        output.remark(f"dora ui: {access.link}")
        for line in advice(access.port, os.environ):
            output.remark(line)
        if open_browser:
            opened.enter_context(opened_in_browser(access.link, os.environ))
        serve(listener, access, coordinator, until_input_ends=until_input_ends)


@contextmanager
def page_beside(source: PageSource) -> Iterator[None]:
    """Serve the page in a process of its own for the block; it ends with this process."""
    process = subprocess.Popen(
        [*run_module("dora_ui"), dumps(asdict(source))],
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
    show(PageSource(**loads(argument)), until_input_ends=True)
