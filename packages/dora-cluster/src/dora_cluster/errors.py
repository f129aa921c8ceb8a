"""Errors of connections to other machines."""

from __future__ import annotations

from dora_config.errors import DoraError

NOT_ENDED = (
    "did not end in time and may still run there; check that machine, then run this command again"
)
"""End of the message of RemoteTimeout."""


class SshError(DoraError):
    """Base of these errors; ``str()`` is ``NAME: REASON``."""

    def __init__(self, machine: str, sentence: str) -> None:
        super().__init__(f"{machine}: {sentence}")
        self.machine = machine
        self.sentence = sentence


class Unreachable(SshError):
    """No SSH server answers at the address."""


class HostKeyRefused(SshError):
    """The machine's host key is not accepted."""


class LoginRefused(SshError):
    """No key was accepted; the message lists the keys that were tried."""


class ConnectionLost(SshError):
    """The connection broke while it was used."""


class RemoteTimeout(SshError):
    """A command did not end in time."""


class SudoUnavailable(SshError):
    """`sudo` is missing, or needs a password."""


class RemoteCommandFailed(SshError):
    """A command failed; `code` is its exit code."""

    def __init__(self, machine: str, sentence: str, code: int) -> None:
        super().__init__(machine, sentence)
        self.code = code
