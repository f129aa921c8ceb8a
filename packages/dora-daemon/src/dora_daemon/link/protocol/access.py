"""Zenoh's access control for a link: which keys each machine may use; pure.

A machine is identified by the common name in its certificate, which TLS has verified. It may send
to this link on its own key, and receive what this link sends to it. Everything else is denied.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

_NOT_KNOWN: Final = "not known yet"
"""A common name that no certificate has."""


@dataclass(frozen=True, slots=True)
class PeerKeys:
    """The two keys of this link and one peer."""

    name: str
    """Common name in the peer's certificate."""
    incoming: str
    outgoing: str


def key(prefix: str, receiver: str, sender: str) -> str:
    """Return the key of frames between two machines; ``prefix`` belongs to the dataflow."""
    return f"{prefix}/link/{quote(receiver, safe='')}/{quote(sender, safe='')}"


def channel(prefix: str, machine: str, peer: str, name: str) -> PeerKeys:
    """Return the channel of two machines; ``name``: common name of the peer, or empty."""
    return PeerKeys(name or _NOT_KNOWN, key(prefix, machine, peer), key(prefix, peer, machine))


def access_control(channels: Iterable[PeerKeys]) -> dict[str, Any]:
    """Return the value of Zenoh's setting ``access_control``."""
    rules: list[dict[str, Any]] = []
    subjects = []
    policies = []
    for number, one in enumerate(channels):
        permitted = (
            ("ingress", "put", one.incoming),
            ("ingress", "declare_subscriber", one.outgoing),
            ("egress", "put", one.outgoing),
            ("egress", "declare_subscriber", one.incoming),
        )
        own = [
            {
                "id": f"{number} {flow} {message}",
                "permission": "allow",
                "flows": [flow],
                "messages": [message],
                "key_exprs": [expression],
            }
            for flow, message, expression in permitted
        ]
        rules += own
        subjects.append({"id": str(number), "cert_common_names": [one.name]})
        policies.append({"rules": [rule["id"] for rule in own], "subjects": [str(number)]})
    return {
        "enabled": True,
        "default_permission": "deny",
        "rules": rules,
        "subjects": subjects,
        "policies": policies,
    }
