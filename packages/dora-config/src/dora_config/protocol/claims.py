"""Claims that the authority of a cluster has signed, so that any machine can forward them; pure.

The signature is made with the key of the authority, which the coordinator has, and a standby once
it takes over. ECDSA with SHA-256; `text` of a claim is what is signed.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from dora_config.frozen import Quantity
from dora_config.protocol.envelope import Message, clean_text


class Signature(Message):
    """Signature of an authority, and the certificate by which it is verified."""

    certificate: str = ""
    """Certificate of the authority (PEM); its SHA-256 names the cluster."""
    signature: str = ""
    """Base64."""


class Claim(Message):
    """Statement that a coordinator leads a cluster. It is ignored without a valid signature."""

    cluster: str = ""
    """SHA-256 of the certificate of the cluster's authority, in hexadecimal digits."""
    epoch: int = 1
    """A coordinator that takes over has a higher one than its predecessor."""
    machine: str = ""
    """The standby that has taken over; empty: none has."""
    address: str = ""
    """Address of the coordinator, as HOST:PORT; empty: the one that daemons were given."""
    time: Quantity = 0.0
    """Unix time at which the coordinator signed it; its clock may be wrong."""
    proof: Signature = Signature()

    @property
    def rank(self) -> tuple[int, str]:
        """Order of coordinators: the one with the highest rank is obeyed.

        Two standbys that are promoted on both sides of a cut network have the same epoch.
        """
        return self.epoch, self.machine

    @property
    def text(self) -> bytes:
        """Bytes that are signed."""
        facts = [self.cluster, self.epoch, self.machine, self.address, self.time]
        return b"dora coordinator claim\n" + json.dumps(facts).encode()

    def __str__(self) -> str:
        """Return the coordinator in log lines: where it is, its epoch, who signed it and when."""
        place = f"the coordinator at {clean_text(self.address, limit=100) or 'its first address'}"
        by = f'"{clean_text(self.machine, limit=100)}"' if self.machine else "the first coordinator"
        return f"{place} (epoch {self.epoch}, signed by {by} {_date(self.time)})"


def _date(seconds: float) -> str:
    try:
        return f"at {datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return "with a wrong clock"
