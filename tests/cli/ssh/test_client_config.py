"""Reading of `~/.ssh/config`, compared with `ssh -G` if that is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from dora_cli.ssh.client_config import ConfigProblem, HostQuery, HostSettings, matches, read_config

HOME = "/home/me"


def read(text: str, host: str = "robot", **query: object) -> HostSettings:
    values = {"local_user": "me", "home": HOME} | query
    return read_config(HostQuery(host, **values), [("config", text)])  # type: ignore[arg-type]


def test_defaults_without_a_file() -> None:
    found = read("")
    assert (found.host, found.user, found.port) == ("robot", "me", 22)
    assert f"{HOME}/.ssh/id_ed25519" in found.identity_files
    assert not found.identities_given
    assert found.known_hosts[0] == f"{HOME}/.ssh/known_hosts"
    assert found.accept_new
    assert not found.hash_known_hosts


def test_first_value_wins_and_identities_accumulate() -> None:
    found = read(
        "Host rob*\n  HostName 10.0.0.2\n  User ubuntu\n  IdentityFile ~/.ssh/a\n"
        "Host *\n  User other\n  Port=2222\n  IdentityFile %d/.ssh/%r@%h\n"
    )
    assert (found.host, found.user, found.port) == ("10.0.0.2", "ubuntu", 2222)
    assert found.identity_files == (f"{HOME}/.ssh/a", f"{HOME}/.ssh/ubuntu@10.0.0.2")
    assert read("User x\nPort 1\n", user="me2", port=7).user == "me2"
    assert read("User x\nPort 1\n", user="me2", port=7).port == 7


def test_the_first_of_the_two_proxies_wins() -> None:
    both = "ProxyJump a\nProxyCommand nc %h %p\n"
    assert read(both).proxy_jump == "a"
    assert read(both).proxy_command is None
    other = read("ProxyCommand nc %h %p # not a comment\nProxyJump a\n")
    assert (other.proxy_jump, other.proxy_command) == (None, "nc robot 22 # not a comment")
    assert read("ProxyJump none\n").proxy_jump is None
    assert read("UserKnownHostsFile none\nIdentityFile none\n").known_hosts == ()


def test_criteria_of_match() -> None:
    text = (
        'Match host "10.*" user ubuntu\n  Port 1\n'
        "Match originalhost robot !user ubuntu\n  Port 2\n"
        "Match localuser me\n  IdentitiesOnly yes\n"
        "Match final\n  Port 3\nMatch all\n  Port 4\n"
    )
    assert read("HostName 10.1.1.1\nUser ubuntu\n" + text).port == 1
    found = read(text)
    assert (found.port, found.identities_only) == (2, True)
    assert read(text, host="other").port == 4


def test_command_runs_only_if_all_criteria_before_it_match() -> None:
    query = HostQuery("robot", "me", HOME)
    ran = []

    def runs(command: str) -> bool:
        ran.append(command)
        return True

    text = 'Match host no exec "test 1"\n  Port 1\nMatch exec "test %h"\n  Port 2\n'
    assert read_config(query, [("c", text)], runs=runs).port == 2
    assert ran == ["test robot"]


def test_an_included_file_ends_with_its_own_block() -> None:
    query = HostQuery("robot", "me", HOME)
    files = {"more": "Host other\n  Port 9\n", "always": "User of-always\n"}

    def include(name: str, pattern: str) -> list[tuple[str, str]]:
        return [(pattern, files[pattern])]

    text = "Include more\nPort 5\nHost nobody\n  Include always\nHost robot\n  Include always\n"
    found = read_config(query, [("config", text)], include)
    assert (found.port, found.user) == (5, "of-always")
    with pytest.raises(ConfigProblem, match="deep"):
        read_config(query, [("c", "Include c\n")], lambda _n, _p: [("c", "Include c\n")])


def test_malformed_line_is_named() -> None:
    with pytest.raises(ConfigProblem, match=r'config:2: .*"x'):
        read('Port 22\nUser "x\n')
    with pytest.raises(ConfigProblem, match="not a port"):
        read("Port many\n")


def test_patterns() -> None:
    assert matches("robot", ["*"])
    assert matches("Robot", ["rob?t"])
    assert not matches("robot", ["*", "!robot"])
    assert not matches("robot", ["!other"])
    assert not matches("r[1]", ["r[0-9]"])


_NAME = st.sampled_from(["robot", "gpu", "rob*", "*", "!gpu", "g?u", "10.0.0.1"])
_LINE = st.one_of(
    st.builds("Host {} {}".format, _NAME, _NAME),
    st.builds("Match host {}".format, _NAME.filter(lambda name: not name.startswith("!"))),
    st.builds("Match originalhost {} user u1".format, st.sampled_from(["robot", "gpu", "*"])),
    st.sampled_from(["Match all", "# a remark", "", "  "]),
    st.builds("HostName {}".format, st.sampled_from(["10.0.0.1", "%h.example", "gpu"])),
    st.builds("User {}".format, st.sampled_from(["u1", '"u2"', "u3 # why"])),
    st.builds("Port {}".format, st.integers(1, 65535)),
    st.builds("port={}".format, st.integers(1, 65535)),
    st.builds("IdentityFile {}".format, st.sampled_from(["/k/a", "/k/b", "/k/%h"])),
    st.builds("IdentitiesOnly {}".format, st.sampled_from(["yes", "no"])),
    st.builds("ProxyJump {}".format, st.sampled_from(["j1", "u@j2:99", "none"])),
    st.builds("StrictHostKeyChecking {}".format, st.sampled_from(["yes", "no", "accept-new"])),
    st.builds("HashKnownHosts {}".format, st.sampled_from(["yes", "no"])),
    st.builds("HostKeyAlias {}".format, st.sampled_from(["alias", "other"])),
)


@pytest.mark.integration
@given(st.lists(_LINE, max_size=12), st.sampled_from(["robot", "gpu", "10.0.0.1"]))
def test_result_is_that_of_openssh(lines: list[str], host: str) -> None:
    ssh = shutil.which("ssh")
    assert ssh is not None, "the package openssh-client is needed"
    text = "\n".join(lines) + "\n"
    folder = Path("/tmp") if not Path.home().is_dir() else Path.home()
    path = folder / "conformance-config"
    path.write_text(text)
    done = subprocess.run([ssh, "-G", "-F", path, host], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    theirs: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        theirs.setdefault(keyword, []).append(value)
    ours = read_config(HostQuery(host, theirs["user"][0], "/root"), [("config", text)])
    if not any(line.startswith("User") for line in lines):
        assert ours.user == theirs["user"][0]
    else:
        ours = read_config(HostQuery(host, _local_user(ssh, host), "/root"), [("config", text)])
        assert ours.user == theirs["user"][0]
    assert ours.host == theirs["hostname"][0]
    assert ours.port == int(theirs["port"][0])
    if ours.identities_given:
        given_files = [word.replace("%h", ours.host) for word in theirs["identityfile"]]
        assert list(ours.identity_files) == given_files
    assert ours.identities_only == (theirs["identitiesonly"][0] == "yes")
    assert (ours.proxy_jump or "none") == theirs.get("proxyjump", ["none"])[0]
    assert ours.accept_new != (theirs["stricthostkeychecking"][0] in ("true", "yes"))
    assert ours.hash_known_hosts == (theirs["hashknownhosts"][0] == "yes")
    assert ours.host_key_name == theirs.get("hostkeyalias", [ours.host])[0]


def _local_user(ssh: str, host: str) -> str:
    done = subprocess.run([ssh, "-G", "-F", "/dev/null", host], capture_output=True, text=True)
    return next(x.split()[1] for x in done.stdout.splitlines() if x.startswith("user "))
