"""Lines of known_hosts, command lines and errors of sudo."""

from __future__ import annotations

import base64
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from dora_cluster.ssh.client_config import settings_for
from dora_cluster.ssh.connection import command_line, sudo_problem
from dora_cluster.ssh.errors import HostKeyRefused
from dora_cluster.ssh.host_keys import (
    Key,
    Known,
    check_host_key,
    find_known,
    names,
    new_line,
    preferred,
)

ONE = Key("ssh-ed25519", b"\0\0\0\x0bssh-ed25519one")
TWO = Key("ssh-rsa", b"\0\0\0\x07ssh-rsatwo")


def line(patterns: str, key: Key, marker: str = "") -> str:
    return f"{marker} {patterns} {key.kind} {base64.b64encode(key.blob).decode()} remark".strip()


@given(st.from_regex(r"[a-z0-9.:-]{1,20}", fullmatch=True), st.integers(1, 65535), st.booleans())
def test_new_line_is_found_again(host: str, port: int, hashed: bool) -> None:
    written = new_line(host, port, ONE, b"salt" * 5 if hashed else None)
    assert hashed == written.startswith("|1|")
    known = find_known([("known", f"# remark\n{written}\n")], host, port)
    assert known.has(ONE)
    assert not known.has(TWO)
    assert [found.place for found in known.lines] == ["known:2"]
    assert not find_known([("known", written)], f"not-{host}", port).lines


def test_patterns_markers_and_malformed_keys() -> None:
    text = "\n".join(
        [
            line("*.lab,!x.lab", ONE),
            line("a.lab", TWO, "@revoked"),
            line("a.lab", TWO, "@cert-authority"),
            "a.lab ssh-rsa ***",
            "a.lab",
            "|1|bad| ssh-rsa AAAA",
        ]
    )
    known = find_known([("k", text)], "a.lab", 22)
    assert known.has(ONE)
    assert [found.place for found in known.keys] == ["k:1"]
    revoked = known.revoked(TWO)
    assert revoked is not None
    assert revoked.place == "k:2"
    assert [found.place for found in known.authorities] == ["k:3"]
    assert not find_known([("k", text)], "x.lab", 22).keys


def test_same_key_at_port_22_counts() -> None:
    known = find_known([("k", line("robot", ONE))], "robot", 2222)
    assert known.has(ONE)
    assert not known.keys  # another key would be new, not changed
    assert find_known([("k", line("[robot]:2222", ONE))], "robot", 2222).keys
    assert not find_known([("k", line("[robot]:2222", ONE))], "robot", 22).has(ONE)


def test_known_kinds_are_preferred() -> None:
    offered = ("ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256")
    assert preferred(["ssh-rsa"], offered) == ("rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519")
    assert preferred([], offered) == offered


@pytest.mark.integration
def test_ssh_keygen_finds_new_lines(home: Path) -> None:
    assert shutil.which("ssh-keygen") is not None, "the package openssh-client is needed"
    public = home / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(public)], check=True)
    kind, blob = (home / "key.pub").read_text().split()[:2]
    key = Key(kind, base64.b64decode(blob))
    for number, salt in enumerate((None, bytes(range(20)))):
        known = home / f"known{number}"
        known.write_text(new_line("robot", 2222, key, salt) + "\n")
        words = ["ssh-keygen", "-l", "-F", "[robot]:2222", "-f", str(known)]
        assert key.fingerprint in subprocess.run(words, capture_output=True, text=True).stdout
        done = subprocess.run(["ssh-keygen", "-H", "-f", str(known)], capture_output=True)
        assert done.returncode == 0
        assert find_known([("k", known.read_text())], "robot", 2222).has(key)
    assert names("robot,10.0.0.2", "10.0.0.2")


def test_words_are_quoted() -> None:
    assert command_line(["a b", "$x", "it's"]) == """'a b' '$x' 'it'"'"'s'"""
    assert command_line(["id"], sudo=True) == ("env LC_ALL=C.UTF-8 LANGUAGE= sudo -n -- id")
    with pytest.raises(ValueError, match="NUL"):
        command_line(["a\0b"])


def test_errors_of_sudo_are_distinguished_from_those_of_the_command() -> None:
    assert sudo_problem("sudo: a password is required", "u") is not None
    assert sudo_problem("env: „sudo“: Datei oder Verzeichnis nicht gefunden", "u") is not None
    assert sudo_problem("systemctl: a password is required for x", "u") is None
    assert sudo_problem("mkdir: Permission denied", "u") is None


def test_a_new_key_that_cannot_be_recorded_is_refused(home: Path) -> None:
    (home / ".ssh/known_hosts").mkdir(parents=True)
    settings = settings_for("robot", None, None)
    with pytest.raises(HostKeyRefused, match=r"cannot be recorded: .*known_hosts: Is a directory"):
        check_host_key("robot", settings, Known(()), ONE)


def test_a_new_key_is_not_recorded_without_a_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh/config").write_text("UserKnownHostsFile none\n")
    monkeypatch.chdir(home)
    settings = settings_for("robot", None, None)
    check_host_key("robot", settings, Known(()), Key("ssh-ed25519", b"key"))
    assert not (home / "none").exists()
    strict = replace(settings, accept_new=False)
    with pytest.raises(HostKeyRefused, match="remove UserKnownHostsFile none"):
        check_host_key("robot", strict, Known(()), Key("ssh-ed25519", b"key"))


def test_a_host_of_an_authority_needs_a_line_of_its_own(home: Path) -> None:
    settings = settings_for("robot", None, None)
    known = find_known([("k", line("robot", TWO, "@cert-authority"))], "robot", 22)
    with pytest.raises(HostKeyRefused, match="k:1 requires a certified host key, and dora does"):
        check_host_key("robot", settings, known, ONE)
    known = find_known(
        [("k", f"{line('robot', ONE)}\n{line('*', TWO, '@cert-authority')}")], "robot", 22
    )
    check_host_key("robot", settings, known, ONE)
