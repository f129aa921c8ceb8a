"""Claims of coordinators, signed by the authority of a cluster or forged."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from dora_config.protocol.claims import Claim
from dora_coordinator.io.authority import Authority


def new_authority() -> Authority:
    """Return the authority of a cluster, without its folder."""
    with TemporaryDirectory() as folder:
        return Authority(Path(folder) / "authority")


def signed(authority: Authority, epoch: int, machine: str = "", address: str = "") -> Claim:
    """Return a claim that the authority has signed."""
    return authority.sign_claim(Claim(epoch=epoch, machine=machine, address=address))


def forged(cluster: str, epoch: int = 1 << 62) -> Claim:
    """Return the claim of a robot, whose own authority has signed it, for a cluster."""
    robot = new_authority()
    claim = Claim(cluster=cluster, epoch=epoch, machine="robot", address="10.0.0.66:6013")
    return claim.model_copy(update={"proof": robot.sign_text(claim.text)})
