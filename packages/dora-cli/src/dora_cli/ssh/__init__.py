"""Other machines over SSH, with the settings of the OpenSSH client."""

from dora_cli.ssh.connection import Connection, Finished, Target, connect
from dora_cli.ssh.errors import (
    ConnectionLost,
    HostKeyRefused,
    LoginRefused,
    RemoteCommandFailed,
    RemoteTimeout,
    SshError,
    SudoUnavailable,
    Unreachable,
)

__all__ = [
    "Connection",
    "ConnectionLost",
    "Finished",
    "HostKeyRefused",
    "LoginRefused",
    "RemoteCommandFailed",
    "RemoteTimeout",
    "SshError",
    "SudoUnavailable",
    "Target",
    "Unreachable",
    "connect",
]
