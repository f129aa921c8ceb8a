"""What can go wrong between this machine and another, each with its sentence.

- `SshError`: the root; `machine` is the name that the sentence begins with
  - `Unreachable`: nobody answers, or what answers is no SSH server
  - `HostKeyRefused`: the machine's key is not the known one
  - `LoginRefused`: no key was accepted; says which were tried
  - `ConnectionLost`: the connection broke while it was used
  - `RemoteTimeout`: a command did not end in time
  - `SudoUnavailable`: root's rights are needed and cannot be had without a password
  - `RemoteCommandFailed`: a command ended with another exit code than 0
"""

from __future__ import annotations

from dora_config import DoraError


class SshError(DoraError):
    """Root; ``str()`` is "NAME: SENTENCE"."""

    def __init__(self, machine: str, sentence: str) -> None:
        super().__init__(machine, sentence)
        self.machine = machine
        self.sentence = sentence

    def __str__(self) -> str:
        return f"{self.machine}: {self.sentence}"


class Unreachable(SshError):
    """Nobody answers there."""


class HostKeyRefused(SshError):
    """The machine shows another host key than the known one."""


class LoginRefused(SshError):
    """No key was accepted."""


class ConnectionLost(SshError):
    """The connection broke."""


class RemoteTimeout(SshError):
    """A command did not end in time."""


class SudoUnavailable(SshError):
    """`sudo` is missing, or asks for a password."""


class RemoteCommandFailed(SshError):
    """A command failed; `code` is its exit code."""

    def __init__(self, machine: str, sentence: str, code: int) -> None:
        super().__init__(machine, sentence)
        self.code = code
