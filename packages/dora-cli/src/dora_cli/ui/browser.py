"""Opens the link of `dora ui` in the browser of this computer.

Other users can read the arguments of a browser. They contain only the path of a file with the link,
which no other account can read.
"""

from __future__ import annotations

import sys
import threading
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from getpass import getuser
from html import escape
from pathlib import Path
from socket import gethostname
from tempfile import NamedTemporaryFile
from typing import Final

DISPLAYS: Final = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
SNAP_BROWSERS: Final = ("firefox", "chromium", "brave", "opera")
REDIRECT: Final = """<!doctype html><meta charset="utf-8"><title>dora</title>
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="0;url={link}"><p><a href="{link}">Continue</a></p>
"""


def advice(port: int, environ: Mapping[str, str]) -> list[str]:
    """Return how to open the link from another computer, if this one is reached over SSH."""
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
        with suppress(OSError, RuntimeError):  # of an account without a home
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
