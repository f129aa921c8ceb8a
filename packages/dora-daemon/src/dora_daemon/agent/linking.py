"""Where the links of this machine listen, and what a runner must know to start one."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

import anyio.to_thread

from dora_config.addresses import is_public
from dora_config.errors import DoraError
from dora_config.protocol.links import FIRST_PORT, LAST_PORT, LinkPlan
from dora_config.protocol.runner import RunPlan
from dora_daemon.agent.credentials import Credentials
from dora_daemon.agent.records import PartRecord

PORTS: Final = LAST_PORT - FIRST_PORT + 1
"""How many follow the first when no last one is named."""

CERTIFICATE_TIMEOUT: Final = 10.0
"""Seconds to wait for a certificate before the start of a part that needs one fails."""


class LinkError(DoraError):
    """No link can be made on this machine; ``str()`` says why and what to do."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where links listen; ``host`` None: chosen for each dataflow."""

    host: str | None = None
    first_port: int = FIRST_PORT
    last_port: int = LAST_PORT
    plain: bool = False
    """`links: plain`: without TLS."""
    public_ok: bool = False
    """`--i-know`: without TLS also on a public address."""


def parse_listen(text: str) -> Listen:
    """``IP``, ``IP:PORT`` (and the 99 ports after it) or ``IP:PORT-PORT``, IPv6 in brackets when a
    port follows; raises ValueError with a sentence.
    """
    host, ports = text, ""
    if text.startswith("["):
        host, _, ports = text[1:].partition("]")
        ports = ports.removeprefix(":")
    elif text.count(":") == 1:
        host, _, ports = text.partition(":")
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        raise ValueError(
            f"{text!r}: expected an IP address of this machine, with a port or a range of ports if "
            "you like: 192.168.1.7:7450-7549"
        ) from None
    if "%" in host:
        raise ValueError(
            f"{text!r} means something on this machine alone (what follows `%` is one of its "
            "devices): name an address that the other machines can use"
        )
    if address.is_unspecified:
        raise ValueError(
            f"{text!r} means every address of this machine, the ones that face the internet too; "
            "name the one that leads to the other machines"
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


def choose_host(
    coordinator: str, peers: Iterable[str], leads: Callable[[str], str | None]
) -> str | None:
    """The address of this machine that others reach it at; ``None``: there is no network.

    It is the one that leads to the coordinator. A daemon that runs beside the coordinator takes the
    one that leads to the first peer on another machine, and loopback if all are here. ``leads``:
    which address of ours is used to reach another. Raises :class:`LinkError`.
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
            f"the coordinator names {address!r} as the address of a machine, which is no IP"
            " address; name the address of this machine that leads to the others with"
            " `dora daemon --zenoh-listen`"
        ) from error
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found.is_loopback


def own_address(target: str) -> str | None:
    """Which address of this machine packets to ``target`` leave from; sends none."""
    try:
        found = socket.getaddrinfo(target, 9, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return None


class LinkSetup:
    """What the runner of a part with edges to other machines is given."""

    def __init__(
        self, listen: Listen, coordinator: Callable[[], str], credentials: Credentials
    ) -> None:
        """``coordinator``: its host, as this daemon reaches it."""
        self._listen = listen
        self._coordinator = coordinator
        self._credentials = credentials

    async def complete(self, plan: RunPlan, record: PartRecord, run_id: str) -> RunPlan:
        """Add the link to a runner's plan, if the part needs one; raises :class:`LinkError`."""
        if not record.edges:
            return plan
        plain = self._listen.plain
        if not plain and not await self._credentials.usable(within=CERTIFICATE_TIMEOUT):
            raise LinkError(
                "the coordinator has sent no certificate for the link to other machines within "
                f"{CERTIFICATE_TIMEOUT:g} s: see its log"
            )
        host = await anyio.to_thread.run_sync(self._host, record)
        if plain and not self._listen.public_ok and (problem := plain_problem(host)) is not None:
            raise LinkError(problem)
        links = LinkPlan(
            machine=record.machine,
            run_id=run_id,
            listen_host=host,
            first_port=self._listen.first_port,
            last_port=self._listen.last_port,
            edges=record.edges,
            plain=plain,
        )
        credentials = None if plain else str(self._credentials.directory)
        return plan.model_copy(update={"links": links, "credentials": credentials})

    def _host(self, record: PartRecord) -> str:
        if self._listen.host is not None:
            return self._listen.host
        peers = [record.addresses[machine] for machine in sorted(record.addresses)]
        chosen = choose_host(self._coordinator(), peers, own_address)
        if chosen is None or "%" in chosen:  # one of a device (fe80::...) is none for others
            raise LinkError(
                "this machine has no network address that leads to the others; name one with "
                "`dora daemon --zenoh-listen`"
            )
        return chosen
