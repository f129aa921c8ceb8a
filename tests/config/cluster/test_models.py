"""Cluster files: the guide's own, every mistake, and what is filled in."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given, strategies as st

from dora_config.cluster.loader import load_cluster, parse_cluster
from dora_config.cluster.models import Cluster, Coordinator, Machine
from dora_config.errors import ConfigError

GUIDE = """\
coordinator:
  addr: 10.0.0.1
  port: 6013
machines:
  - id: edge-01
    host: 10.0.0.2
    user: ubuntu
    labels:
      gpu: "true"
      arch: arm64
  - id: edge-02
    host: 10.0.0.3
    labels:
      arch: arm64
"""


def errors(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_cluster(dedent(text))
    return [str(problem).removeprefix("cluster.yml:") for problem in caught.value.errors]


def test_the_guide() -> None:
    assert parse_cluster(GUIDE).cluster == Cluster(
        coordinator=Coordinator(addr="10.0.0.1", port=6013),
        machines=(
            Machine(
                id="edge-01",
                host="10.0.0.2",
                user="ubuntu",
                labels={"gpu": "true", "arch": "arm64"},
            ),
            Machine(id="edge-02", host="10.0.0.3", labels={"arch": "arm64"}),
        ),
    )


def test_defaults() -> None:
    cluster = parse_cluster("coordinator: {addr: '::1'}\nmachines: [{id: a, host: b}]").cluster
    assert cluster.coordinator.port == 6013
    machine = cluster.machine("a")
    assert (machine.port, machine.daemon_port, machine.zenoh_port) == (None, 53291, None)
    assert (machine.user, machine.labels, machine.zenoh_addr) == (None, {}, None)
    assert machine.target == "b"
    with pytest.raises(KeyError):
        cluster.machine("b")


def test_optional_fields() -> None:
    machine = parse_cluster("""\
coordinator: {addr: 192.0.2.10}
machines:
  - {id: s, host: s.lan, user: pi, port: 2222, daemon_port: 5,
     zenoh_addr: 192.0.2.30, zenoh_port: 7}
""").cluster.machines[0]
    assert machine.target == "pi@s.lan"
    assert (machine.port, machine.daemon_port) == (2222, 5)
    assert (machine.zenoh_addr, machine.zenoh_port) == ("192.0.2.30", 7)
    machine = parse_cluster(
        base("{id: a, host: 192.0.2.2, zenoh_port: 7, identity_file: ~/k, dora: /opt/x/dora}")
    ).cluster.machines[0]
    assert (machine.zenoh_addr, machine.zenoh_port) == ("192.0.2.2", 7)
    assert (machine.identity_file, machine.dora) == ("~/k", "/opt/x/dora")
    machine = parse_cluster(
        base("{id: a, host: b, prefix: //data/./dora/, env: {CUDA: 1, OFF: no, A_B: x y, R: 007}}")
    ).cluster.machines[0]
    assert machine.prefix == "/data/dora"
    assert machine.env == {"CUDA": "1", "OFF": "no", "A_B": "x y", "R": "007"}


@pytest.mark.parametrize(
    ("written", "means"),
    [("~/k", "~/k"), ("/keys/k", "/keys/k"), ("k", "{folder}/k"), ("../k", "{folder}/../k")],
)
def test_a_key_is_looked_for_beside_the_cluster_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, means: str
) -> None:
    folder = tmp_path / "robots"
    folder.mkdir()
    (folder / "cluster.yml").write_text(base(f"{{id: a, host: b, identity_file: {written}}}"))
    monkeypatch.chdir(tmp_path)
    machine = load_cluster("robots/cluster.yml").cluster.machines[0]
    assert machine.identity_file == means.format(folder=folder)
    key = f"{{addr: 192.0.2.1, host: c, identity_file: {written}}}"
    (folder / "cluster.yml").write_text(f"coordinator: {key}\nmachines: [{{id: a, host: b}}]")
    coordinator = load_cluster("robots/cluster.yml").cluster.coordinator
    assert coordinator.identity_file == means.format(folder=folder)


def test_the_machine_of_the_coordinator() -> None:
    coordinator = parse_cluster("""\
coordinator: {addr: 192.0.2.1, host: c.lan, user: op, ssh_port: 2222, dora: /opt/x/dora}
machines: [{id: a, host: b}]
""").cluster.coordinator
    assert (coordinator.target, coordinator.ssh_port) == ("op@c.lan", 2222)
    assert coordinator.dora == "/opt/x/dora"
    assert Coordinator(addr="192.0.2.1", host="c.lan").target == "c.lan"
    assert parse_cluster(base("{id: a, host: b}")).cluster.coordinator.target is None


def base(machine: str, root: str = "") -> str:
    return f"coordinator: {{addr: 192.0.2.1}}\nmachines:\n  - {machine}\n{root}"


MISTAKES = [
    ("", "1:1: the file is empty"),
    ("[1]", "expected a mapping with `coordinator` and `machines`"),
    ("machines: [{id: a, host: b}]", "field `coordinator` is required"),
    (
        "coordinator: {addr: 1.2.3.4, user: op}\nmachines: [{id: a, host: b}]",
        "`user` of the coordinator needs `host`",
    ),
    (
        "coordinator: {addr: 1.2.3.4, host: '-c'}\nmachines: [{id: a, host: b}]",
        "host '-c' must not start with '-'",
    ),
    ("coordinator: {addr: 1.2.3.4}", "field `machines` is required"),
    (
        "coordinator: {addr: 1.2.3.4}\nmachines: []",
        "2:1: machines: expected at least one machine",
    ),
    (
        "coordinator: {addr: 1.2.3.4}\nmachines: []\nbogus: 1",
        "2:1: machines: expected at least one machine",
    ),
    ("coordinator: {addr: 1.2.3.4}\nmachines: x", '2:11: machines: expected a list, found "x"'),
    (
        "coordinator: {addr: host.lan}\nmachines: [{id: a, host: b}]",
        "1:21: coordinator addr: expected",
    ),
    ("coordinator: {addr: 10.0.0}\nmachines: [{id: a, host: b}]", "expected an IP address such as"),
    ("coordinator: {}\nmachines: [{id: a, host: b}]", "coordinator: field `addr` is required"),
    ("coordinator: {addr: 1.2.3.4, prt: 1}\nmachines: [{id: a, host: b}]", "did you mean `port`?"),
    (
        base("{id: a, host: b}", "xyzzy: 1"),
        "4:1: unknown field `xyzzy`, expected one of coordinator",
    ),
    (base("{host: b}"), "3:5: machine 1: field `id` is required"),
    (base("{id: a}"), '3:5: machine "a": field `host` is required'),
    (base("{id: '', host: b}"), "machine id must not be empty"),
    (base("{id: a b, host: b}"), "contains invalid character ' ': allowed are letters, digits"),
    (base("{id: -a, host: b}"), "machine id '-a' must not start with '-'"),
    (base("{id: [5], host: b}"), "expected a text, found a list"),
    (base("{id: a, host: b}\n  - {id: a, host: c}"), '4:10: duplicate machine id "a"'),
    (base("{id: a, host: ''}"), '3:19: machine "a": host: host must not be empty'),
    (base("{id: a, host: -oProxyCommand=x}"), "host '-oProxyCommand=x' must not start with '-'"),
    (base("{id: a, host: pi@b}"), "write the user in `user`"),
    (base("{id: a, host: 'a b'}"), "host 'a b' contains invalid character ' '"),
    (base("{id: a, host: 'a;b'}"), "host 'a;b' contains invalid character ';'"),
    (base("{id: a, host: b, user: $(id)}"), "user '$(id)' contains invalid character '$'"),
    (base("{id: a, host: b, user: -x}"), "user '-x' must not start with '-'"),
    (base("{id: a, host: b, port: 0}"), "port: must be at least 1, found 0"),
    (base("{id: a, host: b, port: 65536}"), "port: must not exceed 65535, found 65536"),
    (base("{id: a, host: b, port: ssh}"), 'port: expected a whole number, found "ssh"'),
    (base("{id: a, host: b, daemon_port: 0}"), "daemon_port: must be at least 1, found 0"),
    (base("{id: a, host: b, zenoh_port: 0}"), "zenoh_port: must be at least 1, found 0"),
    (base("{id: a, host: b, zenoh_port: 7}"), "`zenoh_port` requires an address"),
    (base("{id: a, host: b, dora: bin/dora}"), "expected an absolute path on that machine"),
    (base("{id: a, host: b, prefix: dora}"), "expected an absolute path on that machine"),
    (base("{id: a, host: b, prefix: /}"), "expected a separate folder for dora's versions"),
    (base("{id: a, host: b, prefix: /usr}"), "expected a separate folder for dora's versions"),
    (base("{id: a, host: b, prefix: /data/../usr}"), "expected a separate folder for dora's"),
    (base("{id: a, host: b, prefix: /o/d, dora: /o/d/dora}"), "and `dora` an existing one"),
    (base("{id: a, host: b, env: {A-B: x}}"), "invalid name of an environment variable 'A-B'"),
    (base("{id: a, host: b, env: {HOME: x}}"), "`HOME` is used by the daemon itself"),
    (base("{id: a, host: b, env: {A: [x]}}"), "expected a text, number or boolean"),
    (base('{id: a, host: b, env: {A: "x\\ny"}}'), "must be one line of text, found '\\n'"),
    (base("{id: a, host: b, environment: {A: x}}"), "(it is called `env`)"),
    (base("{id: a, host: b, zenoh_addr: b}"), "zenoh_addr: expected an IP address"),
    (base("{id: a, host: b, zenoh_addr: 0.0.0.0}"), '"0.0.0.0" means every address of a machine'),
    (base("{id: a, host: b, zenoh_addr: '0::0'}"), '"0::0" means every address of a machine'),
    (base("{id: a, host: b, zenoh_addr: 'fe80::1%eth0'}"), "is valid on one machine only"),
    (base("{id: a, host: 'fe80::1%eth0', zenoh_port: 7}"), "`zenoh_port` requires an address"),
    (base("{id: a, host: 0.0.0.0, zenoh_port: 7}"), "`zenoh_port` requires an address"),
    (base("{id: a, host: b, labels: {a b: c}}"), "label key 'a b' contains invalid character ' '"),
    (base("{id: a, host: b, labels: {a: b c}}"), "label value 'b c' contains invalid character"),
    (base("{id: a, host: b, labels: {-a: b}}"), "label key '-a' must not start with '-'"),
    (base("{id: a, host: b, labels: {gpu: [true]}}"), "expected a text, found a list"),
    (base("{id: a, host: b, hostname: c}"), "unknown field `hostname` (it is called `host`)"),
    (base("{id: a, host: b, usr: c}"), "did you mean `user`?"),
    (base("{id: a, host: b}", "links: none"), "links: expected one of tls, plain"),
    (
        base("{id: a, host: 8.8.8.8}", "links: plain"),
        "3:19: `links: plain` is refused at the public address 8.8.8.8",
    ),
    (
        base("{id: a, host: b, zenoh_addr: 8.8.8.8}", "links: plain"),
        "`links: plain` is refused at the public address 8.8.8.8",
    ),
    (base("{id: a, host: b}", "zenoh_peer: b:1"), "expected an endpoint tcp/HOST:PORT"),
    (base("{id: a, host: b}", "zenoh_peer: tcp/b:0"), "expected an endpoint tcp/HOST:PORT"),
    (base("{id: a, host: b, zenoh_port: 1}", "zenoh_peer: tcp/b:1"), "are mutually exclusive"),
    (base("{id: a, host: b, zenoh_addr: 1.2.3.4}", "zenoh_peer: tcp/b:1"), "mutually exclusive"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_mistakes(text: str, message: str) -> None:
    found = errors(text)
    assert any(message in error for error in found), found


def test_all_mistakes_at_once() -> None:
    found = errors(base("{id: a b, host: -x, port: 0}\n  - {id: c, hst: d}"))
    assert [error.split(":")[0] for error in found] == ["3", "3", "3", "4", "4"]


def test_plain_links_are_a_choice() -> None:
    assert parse_cluster(base("{id: a, host: b}")).cluster.links == "tls"
    assert parse_cluster(base("{id: a, host: b}", "links: tls")).cluster.links == "tls"
    text = base("{id: a, host: 8.8.8.8, zenoh_addr: 100.100.1.2}", "links: plain")
    assert parse_cluster(text).cluster.links == "plain"


def test_a_router_is_not_needed() -> None:
    text = base("{id: a, host: 1.2.3.4}\n  - {id: b, host: b.lan}")
    assert parse_cluster(text).warnings == ()
    loaded = parse_cluster(text + "\nzenoh_peer: tcp/[::1]:7447\n")
    assert loaded.cluster.zenoh_peer == "tcp/[::1]:7447"
    assert "has no effect" in str(loaded.warnings[0])


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text(GUIDE)
    loaded = load_cluster(tmp_path / "c.yml")
    assert loaded.path == tmp_path / "c.yml"
    assert loaded.warnings == ()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_cluster(tmp_path / "no.yml")


def test_clusters_travel_as_json() -> None:
    cluster = parse_cluster(GUIDE).cluster
    assert Cluster.model_validate_json(cluster.model_dump_json()) == cluster


noisy_guides = st.tuples(st.sampled_from(GUIDE.split("\n")), st.text(max_size=5)).map(
    lambda change: GUIDE.replace(change[0], change[0] + change[1])
)


@given(st.text(max_size=80) | noisy_guides)
def test_any_text_is_a_cluster_or_a_config_error(text: str) -> None:
    found = 0
    try:
        parse_cluster(text)
    except ConfigError as error:
        found = len(error.errors)
    else:
        found = 1
    assert found


STANDBYS = """\
coordinator: {{addr: 10.0.0.1, standby: {standby}}}
machines:
  - {{id: base, host: 10.0.0.2}}
  - {{id: rover, host: rover.lan, zenoh_addr: 10.0.0.3}}
  - {{id: named, host: named.lan}}
  - {{id: laptop, host: 10.0.0.1}}
"""


def test_standbys() -> None:
    cluster = parse_cluster(STANDBYS.format(standby="[rover, base]")).cluster
    assert cluster.coordinator.standby == ("rover", "base")
    assert [one.address for one in cluster.machines] == ["10.0.0.2", "10.0.0.3", None, "10.0.0.1"]


@pytest.mark.parametrize(
    ("standby", "problem"),
    [
        ("[gone]", 'no machine "gone" in `machines`; they are: base, rover, named, laptop'),
        ("[base, base]", '"base" is listed twice'),
        ("[named]", "add `zenoh_addr: <IP address>` to that machine"),
        ("[laptop]", '"laptop" has the address of the coordinator itself'),
        ("[base, rover, a, b]", "at most 3 standbys are possible"),
        ("base", "expected a list"),
    ],
)
def test_wrong_standbys(standby: str, problem: str) -> None:
    assert any(problem in one for one in errors(STANDBYS.format(standby=standby)))
