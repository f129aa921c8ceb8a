"""Settings of a host: those of `ssh -G`."""

from __future__ import annotations

from pathlib import Path

import pytest

from dora_cluster.ssh.settings import ConfigProblem, HostSettings, settings_for


def read(home: Path, text: str, host: str = "robot") -> HostSettings:
    folder = home / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    config = folder / "config"
    config.write_text(text)
    config.chmod(0o600)
    return settings_for(host, None, None)


def test_defaults_without_a_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    found = settings_for("robot", None, None)
    assert (found.host, found.port, found.host_key_name) == ("robot", 22, "robot")
    assert f"{home}/.ssh/id_ed25519" in found.identity_files
    assert not found.identities_given
    assert found.known_hosts == [f"{home}/.ssh/known_hosts", f"{home}/.ssh/known_hosts2"]
    assert found.accept_new
    assert (found.proxy_jump, found.proxy_command, found.agent) == ("", "", "")
    assert (found.connect_timeout, found.alive_interval, found.silence) == (10, 10, 30)
    given = settings_for("robot", "me2", 7)
    assert (given.user, given.port) == ("me2", 7)


def test_first_value_wins_and_identities_accumulate(home: Path) -> None:
    found = read(
        home,
        "Host rob*\n  HostName 10.0.0.2\n  User ubuntu\n  IdentityFile ~/.ssh/a\n"
        "  ProxyCommand nc %h %p\n  HostKeyAlias alias\n  IdentitiesOnly yes\n"
        "Host *\n  User other\n  Port 2222\n  IdentityFile %d/.ssh/%r\n  HashKnownHosts yes\n"
        "  StrictHostKeyChecking yes\n  UserKnownHostsFile none\n  IdentityAgent /run/agent\n"
        "  ConnectTimeout 3\n  ServerAliveInterval 20\n  ServerAliveCountMax 2\n",
    )
    assert (found.host, found.user, found.port) == ("10.0.0.2", "ubuntu", 2222)
    assert found.identity_files[0] == f"{home}/.ssh/a"
    assert found.identity_files[1].endswith("/.ssh/ubuntu")
    assert found.proxy_command == "nc 10.0.0.2 2222"
    assert (found.host_key_name, found.known_hosts) == ("alias", [])
    assert found.identities_only
    assert found.identities_given
    assert found.hash_known_hosts
    assert not found.accept_new
    assert found.agent == "/run/agent"
    assert (found.connect_timeout, found.alive_interval, found.silence) == (3, 20, 40)
    assert read(home, "ProxyJump a@b:22,c\n").proxy_jump == "a@b:22,c"
    assert read(home, "ProxyJump none\n").proxy_jump == ""


def test_match_and_include_are_those_of_the_client(home: Path) -> None:
    (home / ".ssh/config.d/old").mkdir(parents=True)
    (home / ".ssh/config.d/robots").write_text("Host robot\n  Port 2222\n")
    text = f'Include {home}/.ssh/config.d/*\nMatch final exec "test %n = robot"\n  User of-match\n'
    found = read(home, text)
    assert (found.port, found.user) == (2222, "of-match")
    assert read(home, text, "other").user != "of-match"


def test_malformed_line_is_named(home: Path) -> None:
    with pytest.raises(ConfigProblem, match=r"`ssh -G robot` failed: .*/config.* line 2: .*port"):
        read(home, "User me\nPort many\n")


def test_a_command_that_does_not_end_is_an_error(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dora_cluster.ssh.settings._SECONDS", 0.2)
    with pytest.raises(ConfigProblem, match=r"did not end within 0.2 s; check `Match exec`"):
        read(home, 'Match exec "exec sleep 5"\n  Port 1\n')


def test_a_missing_client_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home))
    with pytest.raises(ConfigProblem, match=r"the command ssh was not found; install the OpenSSH"):
        settings_for("robot", None, None)
