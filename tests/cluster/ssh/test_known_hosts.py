"""Host keys: lines of known_hosts as `ssh-keygen` finds them, new keys, and refusals."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import paramiko
import pytest
from paramiko.hostkeys import HostKeys

from dora_cluster.errors import HostKeyRefused
from dora_cluster.ssh.host_keys import KnownHosts, lines_of, shown
from dora_cluster.ssh.settings import settings_for

ONE = paramiko.ECDSAKey.generate()
TWO = paramiko.RSAKey.generate(2048)

Decide = Callable[[paramiko.PKey], None]


def line(patterns: str, key: paramiko.PKey, marker: str = "") -> str:
    return f"{marker} {patterns} {key.get_name()} {key.get_base64()} remark".strip() + "\n"


@pytest.fixture
def known(home: Path) -> Path:
    """A file of known hosts, empty."""
    path = home / ".ssh/known_hosts"
    path.parent.mkdir()
    path.touch()
    return path


def decision(host: str = "robot", port: int = 22, config: str = "") -> Decide:
    (Path.home() / ".ssh/config").write_text(config)
    policy = KnownHosts("robot (robot)", settings_for(host, None, port))
    return lambda key: policy.missing_host_key(None, None, key)


@pytest.mark.parametrize("hashed", ["no", "yes"])
@pytest.mark.parametrize("port", [22, 2222])
def test_a_new_key_is_recorded_and_found_again(known: Path, port: int, hashed: str) -> None:
    known.write_text("# a remark without a newline")
    config = f"HashKnownHosts {hashed}\n"
    decision(port=port, config=config)(ONE)
    text = known.read_text()
    assert text.startswith("# a remark without a newline\n")
    assert ("robot" in text) is (hashed == "no")
    name = "robot" if port == 22 else f"[robot]:{port}"
    (found,) = lines_of([str(known)], name)
    assert (str(found), found.kind) == (f"{known}:2", ONE.get_name())
    words = ["ssh-keygen", "-l", "-F", name, "-f", str(known)]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert shown(ONE.get_name(), ONE.asbytes()).split()[1] in printed
    decision(port=port, config=config)(ONE)
    assert known.read_text() == text
    with pytest.raises(HostKeyRefused, match="has CHANGED"):
        decision(port=port, config=config)(TWO)


def test_patterns_and_malformed_lines(known: Path) -> None:
    known.write_text(line("*.lab,!x.lab", ONE) + "a.lab ssh-rsa ***\na.lab\n|1|bad| ssh-rsa AAAA\n")
    decision("a.lab")(ONE)
    with pytest.raises(HostKeyRefused) as refused:
        decision("a.lab")(TWO)
    assert f"{known}:1 has {shown(ONE.get_name(), ONE.asbytes())}" in str(refused.value)
    assert f"ssh-keygen -f {known} -R 'a.lab'" in str(refused.value)
    decision("x.lab")(TWO)  # another host, whose key is new


def test_a_second_key_of_the_same_kind_is_known(known: Path) -> None:
    other = paramiko.ECDSAKey.generate()
    known.write_text(line("robot", other) + line("robot", ONE))
    decision()(ONE)
    decision()(other)


def test_a_revoked_key_is_refused(known: Path) -> None:
    known.write_text(line("robot", ONE) + line("*", ONE, "@revoked"))
    with pytest.raises(HostKeyRefused, match=r"is revoked in .*known_hosts:2$"):
        decision()(ONE)


def test_same_key_at_port_22_counts(known: Path) -> None:
    text = line("robot", ONE)
    known.write_text(text)
    decision(port=2222)(ONE)
    assert known.read_text() == text
    decision(port=2222, config="HashKnownHosts no\n")(TWO)  # another key is new there, not changed
    assert f"[robot]:2222 {TWO.get_name()}" in known.read_text()
    known.write_text(line("[robot]:2222", ONE))
    with pytest.raises(HostKeyRefused, match="StrictHostKeyChecking refuses new ones"):
        decision(config="StrictHostKeyChecking yes\n")(ONE)


def test_known_kinds_are_preferred(known: Path) -> None:
    class Options:
        key_types = ("ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256")

    known.write_text(line("robot", TWO))
    options = Options()
    KnownHosts("robot", settings_for("robot", None, None)).prefer_known(options)  # type: ignore[arg-type]
    assert list(options.key_types) == ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519"]


def test_a_new_key_that_cannot_be_recorded_is_refused(known: Path) -> None:
    known.unlink()
    known.mkdir()
    with pytest.raises(HostKeyRefused, match=r"cannot be recorded: .*known_hosts: Is a directory"):
        decision()(ONE)


def test_a_new_key_is_not_recorded_without_a_file(known: Path) -> None:
    none = "UserKnownHostsFile none\n"
    decision(config=none)(ONE)
    assert known.read_text() == ""
    with pytest.raises(HostKeyRefused, match="remove UserKnownHostsFile none"):
        decision(config=f"{none}StrictHostKeyChecking yes\n")(ONE)


def test_a_host_of_an_authority_needs_a_line_of_its_own(known: Path) -> None:
    known.write_text(line("robot", TWO, "@cert-authority"))
    with pytest.raises(HostKeyRefused, match="hosts:1 requires a certified host key"):
        decision()(ONE)
    known.write_text(line("robot", ONE) + line("*", TWO, "@cert-authority"))
    decision()(ONE)


def test_names_are_hashed_as_in_openssh(known: Path) -> None:
    known.write_text(line(HostKeys.hash_host("robot"), ONE))
    assert [found.blob for found in lines_of([str(known)], "robot")] == [ONE.asbytes()]
