"""State machine of the ROS graph: nodes, topics and services from the present tokens (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product
from typing import Any

from dora_ros2.zenoh.tokens import (
    NO_HASH,
    EndpointToken,
    Kind,
    NodeToken,
    gid,
    incompatibility,
    parse_token,
)

FOLLOWER = "/dora"
"""Enclave of nodes that adopt the profile of others; they ignore each other's profiles."""
_ACTION = "/_action/"
_ACTION_PART = re.compile(r"(/action/.*)_(SendGoal|GetResult|FeedbackMessage)$")
_HIDDEN = re.compile(
    r"/(rosout|parameter_events|get_type_description|describe_parameters|get_parameters"
    r"|get_parameter_types|list_parameters|set_parameters|set_parameters_atomically)$"
)
"""Topics and services that every node of ROS has, and a summary omits."""
_ROWS = 1000
"""Most nodes, and most rows, of a summary."""
_NAMES = 20
"""Most names in one cell of a summary."""


class Profile(StrEnum):
    """Identification of types: by hashes (Jazzy and newer), or not at all (Humble)."""

    REP2016 = "rep2016"
    HUMBLE = "humble"


@dataclass
class Channel:
    """A topic, service or action, and its endpoints.

    `offers`: publishers or servers; `uses`: subscriptions or clients.
    """

    name: str
    offers: list[EndpointToken] = field(default_factory=list)
    uses: list[EndpointToken] = field(default_factory=list)

    def problems(self, *, dds: bool) -> Iterator[tuple[EndpointToken, EndpointToken, str]]:
        """Yield the pairs of endpoints that do not exchange messages, and why."""
        for offer, use in product(self.offers, self.uses):
            reason = incompatibility(offer.qos, use.qos) if dds else None
            if offer.dds_name != use.dds_name:
                reason = f"the types differ: {offer.type} and {use.type}"
            elif offer.hash != use.hash and not (dds and NO_HASH in (offer.hash, use.hash)):
                reason = f"the definitions of {offer.type} differ"
            if reason:
                yield offer, use, reason

    @property
    def types(self) -> list[str]:
        """Names of all types that its endpoints have; more than one is a fault."""
        found = {endpoint.type for endpoint in (*self.offers, *self.uses)}
        return sorted({_ACTION_PART.sub(r"\1", name) for name in found})


class Graph:
    """All nodes and endpoints of a domain. Its views may be read while tokens change."""

    def __init__(self) -> None:
        self._tokens: dict[str, NodeToken | EndpointToken] = {}
        self.skipped: set[str] = set()
        """Tokens that could not be read."""
        self.changes = 0
        """Counts what was added and removed."""

    def add(self, text: str) -> str | None:
        """Add a token; return a warning for the first one that cannot be read."""
        self.changes += 1
        try:
            self._tokens[text] = parse_token(text)
        except ValueError as error:
            self.skipped.add(text)
            if len(self.skipped) == 1:
                return f"ignored a token of an unknown rmw_zenoh: {text}: {error}"
        return None

    def remove(self, text: str) -> None:
        """Remove a token, known or not."""
        self.changes += 1
        self._tokens.pop(text, None)
        self.skipped.discard(text)

    def texts(self) -> list[str]:
        """Return all tokens that were read, as they were sent."""
        return sorted(self._tokens)

    def endpoints(self, *kinds: Kind, name: str | None = None) -> list[EndpointToken]:
        """Return the endpoints of some kinds (default: all), in order of their names."""
        found = [
            (token.name, text, token)
            for text, token in list(self._tokens.items())
            if isinstance(token, EndpointToken)
            and (not kinds or token.kind in kinds)
            and name in (None, token.name)
        ]
        return [token for _, _, token in sorted(found, key=lambda one: one[:2])]

    def sender(self, of: bytes) -> EndpointToken | None:
        """Return the endpoint with this GID."""
        for text, token in list(self._tokens.items()):
            if isinstance(token, EndpointToken) and gid(text) == of:
                return token
        return None

    def nodes(self) -> list[NodeToken]:
        """Return the nodes in order of their names, also those that announce only endpoints."""
        tokens = list(self._tokens.values())
        found = {token.node if isinstance(token, EndpointToken) else token for token in tokens}
        return sorted(found, key=lambda node: (node.full_name, str(node)))

    def topics(self) -> dict[str, Channel]:
        """Return all topics by name; without those of actions."""
        return self._channels(Kind.PUBLISHER, Kind.SUBSCRIPTION)

    def services(self) -> dict[str, Channel]:
        """Return all services by name; without those of actions."""
        return self._channels(Kind.SERVER, Kind.CLIENT)

    def actions(self) -> dict[str, Channel]:
        """Return all actions by name; their endpoints are those of ``send_goal``."""
        return {
            name.removesuffix("/_action/send_goal"): channel
            for name, channel in self._channels(Kind.SERVER, Kind.CLIENT, actions=True).items()
            if name.endswith("/_action/send_goal")
        }

    def summary(self, own: str, *, dds: bool) -> dict[str, Any]:
        """Return the graph as JSON for the page; `own`: full name of the node that shows it.

        Rows of `own` come first, with problems of their types and, over DDS, of their QoS.
        """
        nodes = list(dict.fromkeys(node.full_name for node in self.nodes()))
        rows = [
            _row(word[:-1], name, channel, own, dds=dds)
            for word in ("topics", "services", "actions")
            for name, channel in getattr(self, word)().items()
            if not _HIDDEN.search(name)
        ]
        rows.sort(key=lambda row: row["own"] is None)
        return {
            "node": own,
            "transport": "dds" if dds else "zenoh",
            "nodes": nodes[:_ROWS],
            "rows": rows[:_ROWS],
            "hidden": max(0, len(nodes) - _ROWS) + max(0, len(rows) - _ROWS),
        }

    def profiles(self) -> set[Profile]:
        """Return the profiles of all nodes but those that follow others."""
        return {
            Profile.HUMBLE if token.humble else Profile.REP2016
            for token in list(self._tokens.values())
            if isinstance(token, EndpointToken) and token.node.enclave != FOLLOWER
        }

    def _channels(self, offer: Kind, use: Kind, *, actions: bool = False) -> dict[str, Channel]:
        channels: dict[str, Channel] = {}
        for endpoint in self.endpoints(offer, use):
            if (_ACTION in endpoint.name) is actions:
                channel = channels.setdefault(endpoint.name, Channel(endpoint.name))
                (channel.offers if endpoint.kind is offer else channel.uses).append(endpoint)
        return channels


def _row(kind: str, name: str, channel: Channel, own: str, *, dds: bool) -> dict[str, Any]:
    """Return a channel as JSON, with the first problem between its endpoints."""
    problem = None
    for offer, use, reason in channel.problems(dds=dds):
        other = use.node if offer.node.full_name == own else offer.node
        if problem is None or own in (offer.node.full_name, use.node.full_name):
            problem = f"{other.full_name}: {reason}"
    offers, uses = (
        list(dict.fromkeys(one.node.full_name for one in ends))
        for ends in (channel.offers, channel.uses)
    )
    return {
        "kind": kind,
        "name": name,
        "types": channel.types,
        "offers": offers[:_NAMES],
        "uses": uses[:_NAMES],
        "counts": [len(channel.offers), len(channel.uses)],
        "qos": sorted({str(one.qos) for one in channel.offers})[:_NAMES] if kind == "topic" else [],
        "own": "offers" if own in offers else "uses" if own in uses else None,
        "problem": problem,
    }
