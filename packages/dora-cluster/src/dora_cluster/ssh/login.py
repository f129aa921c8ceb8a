"""The keys of this account: of the agent and of files, in the order in which OpenSSH tries them."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import paramiko
from paramiko.agent import AgentSSH
from paramiko.auth_strategy import AuthFailure, AuthSource, AuthStrategy

from dora_cluster.errors import LoginRefused
from dora_cluster.ssh.settings import HostSettings, complete

_AGENT_TIMEOUT = 10.0
"""Seconds for the SSH agent to answer."""
_LOCKED = "needs its passphrase, and dora does not prompt for it; unlock it with ssh-add"
_DISCONNECTED = (
    "then the server disconnected (after too many keys? Set IdentityFile and IdentitiesOnly in "
    "~/.ssh/config)"
)


class NotAccepted(Exception):
    """A key cannot be used, or is not enough; ``str()`` is the reason."""


class _Key(AuthSource):
    def __init__(self, user: str, label: str, key: paramiko.PKey | None = None) -> None:
        """``label``: path of its file if there is no ``key``."""
        super().__init__(user)
        self.label = label
        self._key = key

    def authenticate(self, transport: paramiko.Transport) -> list[str]:
        missing = transport.auth_publickey(self.username, self._key or load(self.label))
        if missing:
            listed = ", ".join(missing)
            raise NotAccepted(f"accepted, but {listed} is also required, and dora has no prompt")
        return missing

    def __str__(self) -> str:
        return self.label


class _Agent(AgentSSH):
    """The agent at a socket; without keys if nothing listens there."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._link = socket.socket(socket.AF_UNIX)
        self._link.settimeout(_AGENT_TIMEOUT)
        with suppress(OSError, paramiko.SSHException):
            self._link.connect(path)
            # `Agent` of paramiko uses the socket in SSH_AUTH_SOCK only, not the one in `ssh -G`
            self._connect(self._link)  # type: ignore[attr-defined]

    def close(self) -> None:
        self._link.close()


class Keys(AuthStrategy):
    """The keys to try on one machine; close it afterwards."""

    def __init__(self, settings: HostSettings, identity_file: str | None) -> None:
        super().__init__(ssh_config=paramiko.SSHConfig())
        self._settings = settings
        self._given = settings.identities_given or identity_file is not None
        self._files = list(settings.identity_files) if settings.identities_given else []
        if identity_file is not None:
            self._files.insert(0, complete(identity_file))
        self._files = self._files or list(settings.identity_files)
        self._agent = _Agent(settings.agent)

    def close(self) -> None:
        self._agent.close()

    def get_sources(self) -> Iterator[_Key]:
        user, keys = self._settings.user, self._agent.get_keys()
        publics = {path: _public_blob(path) for path in self._files}
        listed = [key for key in keys if key.asbytes() in publics.values()]
        others = [key for key in keys if key not in listed and not self._settings.identities_only]
        for key in [*listed, *others]:
            yield _Key(user, f"a key of the agent ({key.comment or key.get_name()})", key)
        in_agent = {key.asbytes() for key in keys}
        for path in self._files:
            if publics[path] not in in_agent and (self._given or Path(path).exists()):
                yield _Key(user, path)


def _public_blob(path: str) -> bytes | None:
    """Return the public key from the file beside a private key."""
    with suppress(OSError, ValueError, IndexError):
        return base64.b64decode(Path(f"{path}.pub").read_text().split()[1])
    return None


def load(path: str) -> paramiko.PKey:
    """Return the private key; raises NotAccepted."""
    try:
        return paramiko.PKey.from_path(path)
    except FileNotFoundError:
        raise NotAccepted("no such file") from None
    except Exception as error:  # noqa: BLE001 - paramiko and cryptography raise many kinds
        # older versions report only that it may be encrypted
        may_be = "encrypted" in str(error) and b" PRIVATE KEY-" in Path(path).read_bytes()
        locked = isinstance(error, TypeError) or may_be
        text = _LOCKED if locked else f"not a usable key: {reason(error)}"
        raise NotAccepted(text) from None


def refusal(machine: str, settings: HostSettings, failure: AuthFailure) -> LoginRefused:
    """Return the error that lists the keys that were tried."""
    tried = []
    for source, error in failure.result:
        refused = type(error) is paramiko.AuthenticationException
        tried.append(f"{source}: {'refused' if refused else reason(error)}")
        if not isinstance(error, (paramiko.AuthenticationException, NotAccepted)):
            tried.append(_DISCONNECTED)
            break
    lines = "\n  ".join(tried or ["none: this account has no key"])
    return LoginRefused(
        machine,
        f"{settings.user} may not log in with the keys that were tried:\n  {lines}\n"
        f"  Put a public key of yours there (ssh-copy-id -p {settings.port} "
        f"{settings.user}@{settings.host}), or check `user`",
    )


def reason(error: object) -> str:
    """Return the meaning of an exception of paramiko or the system."""
    if isinstance(error, EOFError):
        return "the other side closed it or did not answer"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
