"""Models and checks of cluster files; pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from dora_config.addresses import is_public
from dora_config.cluster.fleet import (
    FleetDataflow,
    NameField,
    WrittenRollout,
    fleet_problems,
    not_empty,
    unknown_machines,
)
from dora_config.dataflow.fields import (
    SCALAR_TYPES,
    FreeTextField,
    LabelsField,
    MachineIdField,
    MachineIdsField,
    PortNumberField,
    Text,
    Written,
    env_text,
    optional,
    text_schema,
    wrong,
)
from dora_config.errors import Problem
from dora_config.yaml.document import Document, Place
from dora_config.yaml.validation import validate
from dora_config.yaml.wording import show

DEFAULT_COORDINATOR_PORT = 6013
DEFAULT_DAEMON_PORT = 53291

_ENDPOINT_PATTERN = r"^tcp/(?:\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5})$"
MAX_STANDBYS = 3
"""Most standbys of a cluster."""
_SHELL_CHARACTERS = r"""'"`$;&<>|(){}"""
"""Special characters of shells, since `~/.ssh/config` may insert host and user in a command."""
_HOST_PATTERN = rf"^(?!-)[^\s@{_SHELL_CHARACTERS}]+$"
_USER_PATTERN = rf"^(?!-)[^\s{_SHELL_CHARACTERS}]+$"
_VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
_OWN_VARIABLES = frozenset(
    {
        "HOME",
        "XDG_CONFIG_HOME",
        "XDG_RUNTIME_DIR",
        "XDG_STATE_HOME",
        "CREDENTIALS_DIRECTORY",
        "RUNTIME_DIRECTORY",
        "DORA_AUTH_TOKEN",
        "DORA_COORDINATOR_ADDR",
        "DORA_COORDINATOR_PORT",
        "DORA_NODE_CONFIG",
        "DORA_RUNNERS_UNIT",
    }
)
"""Variables by which a daemon finds its folders, token and coordinator."""
_SCOPED_PATTERN = r"^[0-9A-Fa-f:.]+%\S+$"
_UNSPECIFIED_PATTERN = r"^[0:.]+$"
_PREFIX_PATTERN = r"^(?!.*/\.\.(/|$))/+[^/]+/+[^/]"
_MIN_DEPTH = 2
"""Smallest depth of the path in `prefix`, so that no folder of the system is replaced."""


def _ip_address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise wrong(f'expected an IP address such as 192.0.2.10, found "{value}"') from None


def _link_address(value: str) -> str:
    address = _ip_address(value)
    if (problem := _not_reachable(address)) is not None:
        raise wrong(f'"{value}" {problem}; use an address that the other machines can reach')
    return address


def _not_reachable(address: str) -> str | None:
    """Return why other machines cannot reach an address; None if they may."""
    if "%" in address:
        return "is valid on one machine only (`%` precedes one of its network devices)"
    if ipaddress.ip_address(address).is_unspecified:
        return "means every address of a machine"
    return None


def _absolute(value: str) -> str:
    if not value.startswith("/") or "\0" in value or "\n" in value:
        raise wrong(f'expected an absolute path on that machine, found "{value}"')
    return value


def _prefix(value: str) -> str:
    _absolute(value)
    parts = PurePosixPath(value).parts[1:]
    if ".." in parts or len(parts) < _MIN_DEPTH:
        raise wrong(
            f'expected a separate folder for dora\'s versions, such as /data/dora, found "{value}"'
        )
    return str(PurePosixPath("/", *parts))


def _variable(name: str) -> str:
    if not re.fullmatch(_VARIABLE_PATTERN, name):
        raise wrong(
            f"invalid name of an environment variable {name!r}: expected letters, digits and '_'"
        )
    if name in _OWN_VARIABLES:
        raise wrong(f"`{name}` is used by the daemon itself and cannot be set here")
    return name


def _variable_text(value: Any) -> str:
    text = env_text(value)
    bad = re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text)
    if bad:
        raise wrong(f"the value must be one line of text, found {bad.group()!r}")
    return text


def _ssh_word(value: str, what: str) -> str:
    if not value.strip():
        raise wrong(f"{what} must not be empty")
    if value.startswith("-"):
        raise wrong(f"{what} {value!r} must not start with '-', which ssh reads as an option")
    bad = re.search(rf"[\s\x00-\x1f\x7f{_SHELL_CHARACTERS}]", value)
    if bad:
        raise wrong(f"{what} {value!r} contains invalid character {bad.group()!r}")
    return value


def _host(value: str) -> str:
    _ssh_word(value, "host")
    if "@" in value:
        raise wrong(f"host {value!r} must not contain '@'; write the user in `user`")
    return value


def _endpoint(value: str) -> str:
    match = re.fullmatch(_ENDPOINT_PATTERN, value)
    if not match or not 1 <= int(match[1]) <= 65535:
        raise wrong(f'expected an endpoint tcp/HOST:PORT, found "{value}"')
    return value


IpAddressField = Annotated[
    Text,
    AfterValidator(_ip_address),
    WithJsonSchema(
        {
            "type": "string",
            # `ipv6` does not include the interface of a link-local address
            "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}, {"pattern": _SCOPED_PATTERN}],
        }
    ),
]
LinkAddressField = Annotated[
    Text,
    AfterValidator(_link_address),
    WithJsonSchema(
        {
            "type": "string",
            "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}],
            "not": {"pattern": _UNSPECIFIED_PATTERN},
        }
    ),
]
HostField = Annotated[Text, AfterValidator(_host), text_schema(_HOST_PATTERN, minimum=0)]
UserField = Annotated[
    Text, AfterValidator(partial(_ssh_word, what="user")), text_schema(_USER_PATTERN, minimum=0)
]
AbsolutePathField = Annotated[
    Text, AfterValidator(_absolute), WithJsonSchema({"type": "string", "pattern": "^/"})
]
PrefixField = Annotated[
    Text, AfterValidator(_prefix), WithJsonSchema({"type": "string", "pattern": _PREFIX_PATTERN})
]
EnvironmentField = Annotated[
    dict[
        Annotated[str, AfterValidator(_variable)], Annotated[str, BeforeValidator(_variable_text)]
    ],
    # schema of the whole mapping, since pydantic before 2.10 omits the constraints of keys
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {
                "type": "string",
                "pattern": _VARIABLE_PATTERN,
                "not": {"enum": sorted(_OWN_VARIABLES)},
            },
            "additionalProperties": {"type": SCALAR_TYPES},
        }
    ),
]
EndpointField = Annotated[
    Text,
    AfterValidator(_endpoint),
    WithJsonSchema({"type": "string", "pattern": _ENDPOINT_PATTERN}),
]


FIELDS_OF_HOST = ("user", "ssh_port", "identity_file", "dora")
"""Fields of the coordinator for the ssh connection to its ``host``."""


class Coordinator(Written):
    """The coordinator: its address, and its machine."""

    addr: IpAddressField = Field(description="IP address for connections from the machines.")
    port: PortNumberField = optional("Its port (default 6013).", DEFAULT_COORDINATOR_PORT)
    host: HostField | None = optional(
        "Host name or address for ssh of the machine on which `install` creates its "
        "service (default: the machine on which the command runs)."
    )
    user: UserField | None = optional("User for ssh to `host` (default: ssh's own).")
    ssh_port: PortNumberField | None = optional("Port of ssh of `host` (default: ssh's own, 22).")
    identity_file: FreeTextField | None = optional(
        "Private key for ssh to `host`, tried before others."
    )
    dora: AbsolutePathField | None = optional(
        "Existing `dora` command on `host` (default: it is copied there)."
    )
    standby: MachineIdsField = optional(
        "Machines that keep an encrypted copy of the coordinator's state, in order; "
        "`dora cluster promote` starts the coordinator on one of them (at most 3).",
        (),
    )
    former: SkipJsonSchema[Annotated[tuple[str, ...], Field(strict=False)]] = ()
    """Addresses of the coordinator before `dora cluster promote`; not in the file."""

    @property
    def target(self) -> str | None:
        """Name of its machine in messages, `user@host`; None: this machine."""
        return f"{self.user}@{self.host}" if self.host and self.user else self.host


class Machine(Written):
    """One machine: ssh connection and addresses of data links.

    None means the value in `~/.ssh/config` (user, port) or the choice of the daemon (data links).
    """

    id: MachineIdField = Field(description="Unique name, as in `deploy: {machine: ...}`.")
    host: HostField = Field(description="Host name or address for ssh.")
    user: UserField | None = optional("User for ssh (default: ssh's own).")
    port: PortNumberField | None = optional("Port of ssh (default: ssh's own, 22).")
    identity_file: FreeTextField | None = optional(
        "Private key for ssh, tried before the keys of ~/.ssh/config."
    )
    dora: AbsolutePathField | None = optional(
        "Existing `dora` command there (default: it is copied there)."
    )
    prefix: PrefixField | None = optional(
        "Folder in which `install` and `upgrade` keep versions (default /opt/dora)."
    )
    env: EnvironmentField = optional("Environment variables of the daemon and its nodes.", {})
    daemon_port: PortNumberField = optional(
        "Number that two daemons on one machine must not share (default 53291).",
        DEFAULT_DAEMON_PORT,
    )
    labels: LabelsField = optional("Labels for placing nodes.", {})
    zenoh_addr: LinkAddressField | None = optional(
        "Address for data links (default: the one towards the coordinator)."
    )
    zenoh_port: PortNumberField | None = optional(
        "First of 100 ports for data links (default 7450)."
    )

    @property
    def target(self) -> str:
        """Name of the machine in messages: `user@host`, or only the host."""
        return f"{self.user}@{self.host}" if self.user else self.host

    @property
    def label(self) -> str:
        """Id and target, for messages: `robot (ubuntu@10.0.0.2)`."""
        return f"{self.id} ({self.target})"

    @property
    def daemon(self) -> str:
        """Name of the daemon's state folder on the machine."""
        usual = self.daemon_port == DEFAULT_DAEMON_PORT
        return self.id if usual else f"{self.id}@{self.daemon_port}"

    @property
    def address(self) -> str | None:
        """IP address that the other machines may reach; None: the file has none."""
        return self.zenoh_addr or _reachable_address(self.host)


class Cluster(Written):
    """A cluster file."""

    coordinator: Coordinator = Field(description="The one coordinator.")
    zenoh_peer: EndpointField | None = optional("A Zenoh router; accepted without effect.")
    links: Literal["tls", "plain"] = optional(
        "`plain`: do not encrypt messages between machines, for networks that are encrypted "
        "already (default: tls).",
        "tls",
    )
    offline_after: Annotated[float, Field(ge=0, le=86400)] | None = optional(
        "Seconds without the coordinator after which a machine starts its nodes alone, after a "
        "boot or a crash (default 20)."
    )
    machines: Annotated[tuple[Machine, ...], Field(strict=False), AfterValidator(not_empty)] = (
        Field(description="The machines.", json_schema_extra={"minItems": 1})
    )
    dataflows: dict[NameField, FleetDataflow] | None = optional(
        "What the machines run, by name (`dora cluster apply`)."
    )
    rollout: WrittenRollout | None = optional("How a change of `dataflows` reaches the machines.")

    def machine(self, machine_id: str) -> Machine:
        """Return the machine with this id; raise `KeyError`."""
        for machine in self.machines:
            if machine.id == machine_id:
                return machine
        raise KeyError(machine_id)


def read_cluster(document: Document, problems: list[Problem]) -> Cluster | None:
    """Return the cluster of a document without syntax errors, and add all problems.

    The fields are checked together once each of them is valid.
    """
    root = Place(document)
    if not isinstance(document.data, dict):
        found = "the file is empty" if document.data is None else f"found {show(document.data)}"
        message = f"{found}: expected a mapping with `coordinator` and `machines`"
        problems.append(root.problem(message))
        return None
    cluster = validate(Cluster, document.data, root, problems, CLUSTER_HINTS.get)
    if cluster is None:
        return None
    problems.extend(_coordinator_problems(cluster, root.at("coordinator")))
    problems.extend(_machine_problems(cluster, root.at("machines")))
    fleet = cluster.dataflows or {}, cluster.rollout, root
    problems.extend(fleet_problems(*fleet))
    known = [machine.id for machine in cluster.machines]
    problems.extend(unknown_machines(*fleet, known, "this file"))
    if cluster.zenoh_peer is not None:
        message = "`zenoh_peer` has no effect: links between machines connect to each other"
        problems.append(root.at("zenoh_peer").problem(message, at_key=True, severity="warning"))
    machines = (
        one if one.zenoh_port is None else one.model_copy(update={"zenoh_addr": one.address})
        for one in cluster.machines
    )
    return cluster.model_copy(update={"machines": tuple(machines)})


CLUSTER_HINTS = {
    "ip": "the address of a machine is called `host`",
    "address": "the coordinator's address is called `addr`, a machine's `host`",
    "name": "a machine's name is called `id`",
    "hostname": "it is called `host`",
    "username": "it is called `user`",
    "ssh_port": "it is called `port`",
    "environment": "it is called `env`",
    "install_prefix": "it is called `prefix`",
    "key": "a private key is called `identity_file`",
}


def _coordinator_problems(cluster: Cluster, place: Place) -> Iterator[Problem]:
    """Yield problems between the fields of the coordinator, and with its standbys."""
    coordinator = cluster.coordinator
    for field in FIELDS_OF_HOST if coordinator.host is None else ():
        if getattr(coordinator, field) is not None:
            message = f"`{field}` of the coordinator needs `host`, the machine that it belongs to"
            yield place.at(field).problem(message, at_key=True)
    if coordinator.former:
        yield place.at("former").problem("unknown field `former`", at_key=True)
    by_id = {machine.id: machine for machine in cluster.machines}
    for index, name in enumerate(coordinator.standby):
        here = place.at("standby", index)
        if index >= MAX_STANDBYS:
            yield here.problem(f"at most {MAX_STANDBYS} standbys are possible")
        if name in coordinator.standby[:index]:
            yield here.problem(f'"{name}" is listed twice')
        if (machine := by_id.get(name)) is None:
            known = ", ".join(by_id)
            yield here.problem(f'no machine "{name}" in `machines`; they are: {known}')
        elif machine.address is None:
            message = (
                f'the others cannot find a coordinator on "{name}", whose `host` is a name or '
                "valid on one machine only: add `zenoh_addr: <IP address>` to that machine"
            )
            yield here.problem(message)
        elif machine.address == coordinator.addr:
            yield here.problem(f'"{name}" has the address of the coordinator itself')


def _machine_problems(cluster: Cluster, place: Place) -> Iterator[Problem]:
    """Yield problems across machines and between fields."""
    first: dict[str, int] = {}
    for index, machine in enumerate(cluster.machines):
        here = place.at(index)
        if (other := first.setdefault(machine.id, index)) != index:
            message = f'duplicate machine id "{machine.id}", also of machine {other + 1}'
            yield here.at("id").problem(message)
        for field in ("zenoh_addr", "zenoh_port"):
            if cluster.zenoh_peer is not None and getattr(machine, field) is not None:
                message = f"`{field}` of a machine and `zenoh_peer` are mutually exclusive"
                hint = "remove `zenoh_peer`, which has no effect"
                yield here.at(field).problem(message, hint, at_key=True)
        if machine.prefix is not None and machine.dora is not None:
            message = "`prefix` is the folder to install dora in, and `dora` an existing one"
            yield here.at("prefix").problem(message, "remove one", at_key=True)
        if machine.zenoh_port is not None and machine.address is None:
            message = (
                "`zenoh_port` requires an address to listen on, and `host` is a name or valid on "
                "one machine only: add `zenoh_addr: <IP address>`"
            )
            yield here.at("zenoh_port").problem(message, at_key=True)
        address = machine.zenoh_addr or _address(machine.host)
        if cluster.links == "plain" and address is not None and is_public(address):
            message = (
                f"`links: plain` is refused at the public address {address}, where others can "
                "read and forge messages"
            )
            yield here.at("host" if machine.zenoh_addr is None else "zenoh_addr").problem(message)


def _address(host: str) -> str | None:
    """Return an IP address in its usual form; None for a name."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def _reachable_address(host: str) -> str | None:
    """Return an IP address that other machines may reach; None for all else."""
    address = _address(host)
    return None if address is None or _not_reachable(address) else address
