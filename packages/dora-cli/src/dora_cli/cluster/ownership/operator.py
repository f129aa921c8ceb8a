"""The account that gives the command, as machines keep it: name, home, fingerprints of tokens."""

from __future__ import annotations

import getpass
import socket
from pathlib import Path

from dora_cli.cluster.decisions.occupants import Operator
from dora_cli.cluster.occupancy_program import fingerprint
from dora_config.access import find_token, private_dir, state_dir, write_private

MOST_KEPT = 100


def this_operator(file: Path) -> Operator:
    """With the cluster file that the command names."""
    kept = _kept()
    token = find_token()
    now = (fingerprint(token),) if token else ()
    earlier = tuple(one for one in kept if one not in now)
    return Operator(account(), str(Path.home()), str(file.absolute()), (*now, *earlier))


def account() -> str:
    """``alice@desk``"""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def keep_token() -> None:
    """Remember the account's token by its fingerprint: machines that have it stay ours when the
    account gets another one.
    """
    token = find_token()
    kept = _kept()
    if token is None or (one := fingerprint(token)) in kept:
        return
    folder = private_dir(private_dir(state_dir()) / "clusters")
    text = "".join(f"{line}\n" for line in [*kept, one][-MOST_KEPT:])
    write_private(folder / "fingerprints", text.encode())


def _kept() -> list[str]:
    try:
        return (state_dir() / "clusters" / "fingerprints").read_text().split()
    except OSError:
        return []
