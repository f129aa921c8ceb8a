"""The account that runs the command: its name, home and token fingerprints."""

from __future__ import annotations

import socket
from pathlib import Path

from dora_cli.cluster.decisions.existing_daemons import UserAccount
from dora_cli.remote_program.existing_daemons import fingerprint
from dora_cli.ssh.client_config import account_name
from dora_config.access import find_token, private_dir, state_dir, write_private

MAX_KEPT = 100


def this_account(file: Path) -> UserAccount:
    """Return the account; ``file``: the cluster file of the command."""
    kept = _earlier_fingerprints()
    token = find_token()
    now = (fingerprint(token),) if token else ()
    earlier = tuple(one for one in kept if one not in now)
    name = f"{account_name()}@{socket.gethostname()}"
    return UserAccount(name, str(Path.home()), str(file.absolute()), (*now, *earlier))


def keep_token() -> None:
    """Record the fingerprint of the account's token.

    When the account gets another token, machines with the present one still count as its own.
    """
    token = find_token()
    kept = _earlier_fingerprints()
    if token is None or (one := fingerprint(token)) in kept:
        return
    folder = private_dir(private_dir(state_dir()) / "clusters")
    text = "".join(f"{line}\n" for line in [*kept, one][-MAX_KEPT:])
    write_private(folder / "fingerprints", text.encode())


def _earlier_fingerprints() -> list[str]:
    try:
        return (state_dir() / "clusters" / "fingerprints").read_text().split()
    except OSError:
        return []
