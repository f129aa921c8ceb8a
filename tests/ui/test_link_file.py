"""The key of the link is not readable by other users of the computer."""

from __future__ import annotations

import stat
from pathlib import Path
from queue import Queue
from urllib.parse import unquote, urlsplit

import pytest

from dora_ui import page_process
from dora_ui.page_process import advice, opened_in_browser, redirect_file

LINK = "http://127.0.0.1:4100/?key=secret"
SSH = {"SSH_CONNECTION": "192.168.1.7 51000 192.168.1.20 22"}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Queue[str]:
    """Addresses that were opened in the browser, in a thread."""
    found: Queue[str] = Queue()

    def note(address: str) -> bool:
        found.put(address)
        return True

    monkeypatch.setattr("webbrowser.open", note)
    monkeypatch.setattr("sys.platform", "linux")
    return found


def test_the_browser_gets_the_path_of_a_private_file(opened: Queue[str]) -> None:
    with opened_in_browser(LINK, {"DISPLAY": ":0"}):
        address = opened.get(timeout=30)
        assert "secret" not in address
        file = Path(unquote(urlsplit(address).path))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert f'url={LINK}"' in file.read_text()
    assert not file.exists()


def test_without_a_display_nothing_is_opened(opened: Queue[str]) -> None:
    with opened_in_browser(LINK, {}):
        pass
    assert opened.empty()


def test_the_editor_of_another_computer_gets_the_link(opened: Queue[str]) -> None:
    with opened_in_browser(LINK, {"BROWSER": "helper.sh", "VSCODE_IPC_HOOK_CLI": "/run/sock"}):
        assert opened.get(timeout=30) == LINK


def test_browsers_from_snaps_read_the_home_folder(tmp_path: Path) -> None:
    home, snap = tmp_path / "home", tmp_path / "snap"
    home.mkdir()
    snap.mkdir()
    elsewhere = redirect_file(LINK, home=home, snap=snap)
    elsewhere.unlink()
    assert elsewhere.parent != home
    (snap / "firefox").touch()
    file = redirect_file(LINK, home=home, snap=snap)
    assert file.parent == home
    assert not file.name.startswith(".")
    file.unlink()
    elsewhere = redirect_file(LINK, home=tmp_path / "missing", snap=snap)
    assert elsewhere.exists()
    elsewhere.unlink()


def test_over_ssh_the_forwarding_of_the_port_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_process, "getuser", lambda: "ada")
    (line,) = advice(4100, SSH)
    assert "ssh -L 4100:127.0.0.1:4100 ada@192.168.1.20" in line
    (line,) = advice(4100, {"SSH_CONNECTION": SSH["SSH_CONNECTION"] + "22"})
    assert "ssh -L 4100:127.0.0.1:4100 -p 2222 ada@192.168.1.20" in line
    assert advice(4100, {}) == []
    assert advice(4100, {"SSH_CONNECTION": "odd"}) == []


def test_the_page_is_served_when_the_file_cannot_be_written(
    opened: Queue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page_process, "redirect_file", refuse)
    with opened_in_browser(LINK, {"DISPLAY": ":0"}):
        pass
    assert opened.empty()
