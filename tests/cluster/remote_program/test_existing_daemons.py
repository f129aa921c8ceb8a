"""Daemons that run on a machine: which token they have."""

from __future__ import annotations

from dora_cluster.remote_program.existing_daemons import fingerprint
from dora_config.access_token import Token


def test_the_tokens_of_a_cluster_and_of_its_machines_have_one_fingerprint() -> None:
    token = Token("secret", bytes(32))
    assert fingerprint(str(token.for_machine)) == fingerprint(str(token)) == fingerprint("secret")
