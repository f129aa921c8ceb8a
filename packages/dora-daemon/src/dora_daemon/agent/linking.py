"""Addresses at which links of this machine listen, and the link settings of a runner."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

import anyio.to_thread

from dora_config.access import split_address
from dora_config.addresses import is_public
from dora_config.dataflow.compression import library_problem
from dora_config.errors import DoraError
from dora_config.protocol.links import FIRST_PORT, LAST_PORT, LinkPlan, RemoteEdge, SetLinks
from dora_config.protocol.runner import RunPlan
from dora_daemon.agent.credentials import Credentials
from dora_daemon.agent.records import PartRecord

PORTS: Final = LAST_PORT - FIRST_PORT + 1
"""Size of a range without a last port."""

CERTIFICATE_TIMEOUT: Final = 10.0
"""Seconds after which the start of a part without the certificate that it needs fails."""


class LinkError(DoraError):
    """A link cannot be started on this machine."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Address of links; without ``host`` it is chosen for each dataflow."""

    host: str | None = None
    first_port: int = FIRST_PORT
    last_port: int = LAST_PORT
    plain: bool = False
    """`links: plain`: without TLS."""
    public_ok: bool = False
    """`--i-know`: without TLS also on a public address."""


def parse_listen(text: str) -> Listen:
    """Parse ``IP``, ``IP:PORT`` (and the 99 ports after it) or ``IP:PORT-PORT``; IPv6 addresses
    are in brackets when a port follows. Raises ValueError.
    """
    host, ports = split_address(text)
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        raise ValueError(
            f"{text!r}: expected an IP address of this machine, optionally with a port or a range "
            "of ports: 192.168.1.7:7450-7549"
        ) from None
    if "%" in host:
        raise ValueError(
            f"{text!r} is valid on this machine only (`%` precedes one of its devices); use an "
            "address that the other machines can reach"
        )
    if address.is_unspecified:
        raise ValueError(
            f"{text!r} means every address of this machine, including public ones; use the address "
            "that leads to the other machines"
        )
    if not ports:
        return Listen(host)
    first, dash, last = ports.partition("-")
    try:
        start = int(first)
        end = int(last) if dash else min(start + PORTS - 1, 65535)
    except ValueError:
        start = end = 0
    if not 0 < start <= end < 65536:
        raise ValueError(f"{text!r}: expected ports from 1 to 65535, as PORT or FIRST-LAST")
    return Listen(host, start, end)


def plain_problem(host: str) -> str | None:
    """Return why links without TLS are refused at an address; None if they are not."""
    if not is_public(host):
        return None
    return (
        f"refused links without TLS at {host}: it is a public address, where others can read and"
        " forge messages; remove `links: plain`, name an address of the encrypted network with"
        " `--zenoh-listen`, or accept this with `--i-know`"
    )


def codec_problem(edges: Iterable[RemoteEdge]) -> str | None:
    """Return which codec of the edges lacks its library on this machine."""
    for edge in edges:
        if edge.compress is not None and (missing := library_problem(edge.compress.codec)):
            return f"`compress` of input {edge.target}/{edge.input}: {missing}"
    return None


def choose_host(
    coordinator: str, peers: Iterable[str], leads: Callable[[str], str | None]
) -> str | None:
    """Return the address at which other machines reach this one; None without a network.

    It is the address that leads to the coordinator. Beside the coordinator it is the one that leads
    to the first peer on another machine, or loopback if all are here. ``leads`` returns the local
    address that is used for a remote one. Raises :class:`LinkError`.
    """
    own = leads(coordinator)
    if own is not None and not _is_here(own):
        return own
    for peer in peers:
        if not _is_here(peer) and (found := leads(peer)) is not None:
            return found
    return own


def _is_here(address: str) -> bool:
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError as error:
        raise LinkError(
            f"{address!r}, which the coordinator sent as the address of a machine, is not an IP"
            " address; set the address of this machine that leads to the others with"
            " `dora daemon --zenoh-listen`"
        ) from error
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found.is_loopback


def own_address(target: str) -> str | None:
    """Return the source address of packets to ``target``, without sending any."""
    try:
        found = socket.getaddrinfo(target, 9, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except (OSError, UnicodeError):  # UnicodeError: not a valid host name
        return None


@dataclass(frozen=True, slots=True)
class LinkSetup:
    """Adds link settings to the plans of runners."""

    _listen: Listen
    _coordinator: str
    """Host at which this daemon reaches the coordinator."""
    _credentials: Credentials

    async def complete(self, plan: RunPlan, record: PartRecord, token: str) -> RunPlan:
        """Add the link if the part has edges to other machines. Raises :class:`LinkError`.

        ``token``: the token of the runner's directory.
        """
        if not record.links.edges:
            return plan
        links = await self.links(record, token)
        return plan.model_copy(update={"links": links.links, "credentials": links.credentials})

    async def links(self, record: PartRecord, token: str) -> SetLinks:
        """Return the links of a part. Raises :class:`LinkError`."""
        plain = self._listen.plain
        alone = record.starts > 0
        usable = plain or await self._credentials.usable(within=CERTIFICATE_TIMEOUT, alone=alone)
        if not usable:
            raise LinkError(
                "the coordinator did not send a certificate for the link to other machines within "
                f"{CERTIFICATE_TIMEOUT:g} s; see its log"
            )
        host = await anyio.to_thread.run_sync(self._host, record)
        port = record.link_endpoint.rpartition(":")[2]
        if plain and not self._listen.public_ok and (problem := plain_problem(host)) is not None:
            raise LinkError(problem)
        if (missing := codec_problem(record.links.edges)) is not None:
            raise LinkError(missing)
        links = LinkPlan(
            machine=record.machine,
            run_id=f"{record.attempt:06}.{record.starts:06}-{token}",
            listen_host=host,
            port=int(port) if port else None,
            first_port=self._listen.first_port,
            last_port=self._listen.last_port,
            edges=record.links.edges,
            plain=plain,
            names=record.links.names,
        )
        credentials = None if plain else str(self._credentials.directory)
        return SetLinks(links=links, credentials=credentials)

    def _host(self, record: PartRecord) -> str:
        if self._listen.host is not None:
            return self._listen.host
        peers = [address for _, address in sorted(record.links.addresses.items())]
        chosen = choose_host(self._coordinator, peers, own_address)
        if chosen is None and record.link_endpoint:  # the network may come later
            chosen = split_address(record.link_endpoint)[0]
        if chosen is None or "%" in chosen:  # other machines cannot use fe80::...%device
            raise LinkError(
                "this machine has no network address that leads to the others; set one with "
                "`dora daemon --zenoh-listen`"
            )
        return chosen
