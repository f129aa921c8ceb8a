"""Address and bearer token of the coordinator, and the user's folders for them.

All clients use :func:`endpoint` and connect with :mod:`dora_config.control_plane`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from dora_config.access_token import Successor, Token
from dora_config.atomic_write import sync_folder, write_file
from dora_config.errors import DoraError

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 6013
TOKEN_VARIABLE: Final = "DORA_AUTH_TOKEN"
TOKEN_FILE: Final = "token"
MOVED: Final = "moved"
"""Folder with one file for each coordinator that `dora cluster promote` replaced."""
SUCCESSORS: Final = "tokens"
"""Folder of the tokens that replace the account's one at a single address."""


class AccessError(DoraError):
    """An address or a token is unusable; ``str()`` contains the reason and the remedy."""


def config_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the user's configuration folder of dora, without creating it."""
    base = environ.get("XDG_CONFIG_HOME") or str(
        Path(environ.get("HOME", "~")).expanduser() / ".config"
    )
    return Path(base) / "dora"


def state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the user's state folder of dora, without creating it."""
    home = Path(environ.get("HOME", "~")).expanduser()
    base = environ.get("XDG_STATE_HOME") or str(home / ".local" / "state")
    return Path(base) / "dora"


def private_dir(path: Path) -> Path:
    """Create a folder with access for this user only (0700), and its parents; return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)
    return path


def write_private(path: Path, content: bytes) -> None:
    """Replace a file atomically and durably, readable by this user only.

    Raises OSError, with ``path`` as its file name, and then leaves the old file as it is,
    unless the disk failed after the replacement.
    """
    write_file(path, content, mode=0o600, durable=True)


class Endpoint(NamedTuple):
    """Host and port of a coordinator, and its token (``None``: no authentication)."""

    host: str
    port: int
    token: str | None = None

    @property
    def authority(self) -> bytes | None:
        """SHA-256 of the certificate that the coordinator's chain must end in."""
        return None if self.token is None else Token.parse(self.token).authority

    def url(self, path: str, *, scheme: str = "ws") -> str:
        return f"{scheme}://{self}{path}"

    def headers(self) -> dict[str, str]:
        """Return the headers of every request to the coordinator."""
        if self.token is None:
            return {}
        return {"Authorization": f"Bearer {Token.parse(self.token).secret}"}

    def __repr__(self) -> str:
        return f"Endpoint({str(self)!r})"  # tracebacks and logs must not contain the token

    def __str__(self) -> str:
        return address_text(self.host, self.port)


def address_text(host: str, port: int) -> str:
    """Return ``host:port``, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(text: str) -> tuple[str, str]:
    """Return host and port of ``HOST[:PORT]``; before a port, an IPv6 address has brackets."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, port.removeprefix(":")
    host, _, port = text.partition(":")
    return (text, "") if ":" in port else (host, port)


def endpoint(
    host: str | None = None, port: int | None = None, environ: Mapping[str, str] = os.environ
) -> Endpoint:
    """Return the coordinator's endpoint from the arguments, DORA_COORDINATOR_ADDR and
    DORA_COORDINATOR_PORT, or the defaults.

    The address may contain the port, as HOST:PORT. Without ``host`` it is that of the successor, if
    this account has promoted one. Raise :class:`AccessError` for an invalid port, ports that
    differ, or an unsafe token file.
    """
    written = environ.get("DORA_COORDINATOR_ADDR") if host is None else host
    place, own_port = split_address(written or DEFAULT_HOST)
    if own_port and port is None:
        port = _port(own_port, f"the port of the coordinator's address {written}")
    elif own_port and own_port != str(port):
        raise AccessError(f"the address {written} and the port {port} differ; give the port once")
    if port is None:
        text = environ.get("DORA_COORDINATOR_PORT")
        port = DEFAULT_PORT if text is None else _port(text, "DORA_COORDINATOR_PORT")
    if host is None:
        place, port = current_place(place, port, environ)
    host = place
    token = find_token(environ)
    successor = read_successor(successor_path(host, port, environ))
    return Endpoint(host, port, token if successor is None else successor.replace(token))


class Moved(NamedTuple):
    """New address of a coordinator after `dora cluster promote`."""

    host: str
    port: int
    machine: str
    """Machine id in the cluster file."""
    former: tuple[str, ...] = ()
    """Former addresses of the coordinator, as HOST:PORT."""


def moved_path(host: str, port: int, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the file of this account with the successor of the coordinator at an address."""
    return config_dir(environ) / MOVED / address_text(host, port)


def read_moved(host: str, port: int, environ: Mapping[str, str] = os.environ) -> Moved | None:
    """Return the present address of a coordinator; None: unchanged."""
    path = moved_path(host, port, environ)
    try:
        address, machine, *former = path.read_text().split()
        found, number = split_address(address)
        return Moved(found, int(number), machine, tuple(former))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise AccessError(
            f"{path}: not the address of a coordinator; delete it, and name the coordinator with "
            "--coordinator-addr"
        ) from error


def current_place(host: str, port: int, environ: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Return the address of a coordinator, or of its successor if this account promoted one."""
    moved = read_moved(host, port, environ)
    return (host, port) if moved is None else (moved.host, moved.port)


def write_moved(path: Path, moved: Moved) -> None:
    """Store the successor of a coordinator; commands of this account then connect to it."""
    private_dir(path.parent)
    words = (address_text(moved.host, moved.port), moved.machine, *moved.former)
    write_private(path, f"{' '.join(words)}\n".encode())


def forget_moves(
    host: str, port: int, *former: str, environ: Mapping[str, str] = os.environ
) -> None:
    """Remove the stored successors of a cluster's coordinators.

    ``host``, ``port``: its present address; ``former``: its earlier addresses.
    """
    places = {address_text(host, port), *former}
    folder = config_dir(environ) / MOVED
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(AccessError):
            at, number = split_address(path.name)
            moved = read_moved(at, int(number), environ)
            if path.name in places or (
                moved is not None and address_text(moved.host, moved.port) in places
            ):
                path.unlink(missing_ok=True)


def _port(text: str, name: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise AccessError(f"{name} is {text!r}: expected a port from 1 to 65535")


def environ_without_token() -> dict[str, str]:
    """Return this process's environment for a process that does not use the coordinator."""
    return {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}


def find_token(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the token from DORA_AUTH_TOKEN, systemd's credentials or the configuration folder."""
    if environ.get(TOKEN_VARIABLE):
        return _checked(environ[TOKEN_VARIABLE].strip(), TOKEN_VARIABLE)
    if environ.get("CREDENTIALS_DIRECTORY"):
        given = Path(environ["CREDENTIALS_DIRECTORY"]) / "dora-token"
        if given.exists():
            return _checked(given.read_text(errors="replace").strip(), str(given))
    path = config_dir(environ) / TOKEN_FILE
    text = _read_private(path)
    return None if text is None else _checked(text, str(path))


def _checked(text: str, source: str) -> str:
    """Return a token that can be sent: an error of the connection would contain a broken one."""
    try:
        Token.checked(text)
    except ValueError as problem:
        raise AccessError(
            f"{source}: {problem}; copy the token of the coordinator's account again"
        ) from None
    return text


def ensure_token(
    authority: bytes, environ: Mapping[str, str] = os.environ
) -> tuple[str, Path | None]:
    """Return the token of this account, and its file if it was created by this call (0600).

    ``authority``: SHA-256 of the certificate authority that a new token names.
    """
    found = find_token(environ)
    if found is not None:
        return found, None
    import secrets  # only here: every command imports this module

    path = private_dir(config_dir(environ)) / TOKEN_FILE
    token = str(Token(secrets.token_hex(32), authority))
    fresh = path.with_name(f"{TOKEN_FILE}.{secrets.token_hex(8)}")
    try:
        write_private(fresh, f"{token}\n".encode())
        os.link(fresh, path)  # never replaces a token that another process has just created
        sync_folder(path.parent)
    except FileExistsError:
        return _read_private(path) or token, None
    finally:
        fresh.unlink(missing_ok=True)
    return token, path


def successor_path(host: str, port: int, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the file of this account with the successor of its token at one address."""
    return config_dir(environ) / SUCCESSORS / address_text(host, port)


def read_successor(path: Path) -> Successor | None:
    """Return the successor in a file; None if the file does not exist."""
    text = _read_private(path)
    if text is None:
        return None
    _checked(text.split()[0], str(path))
    return Successor.parse(text)


def write_successor(path: Path, successor: Successor) -> None:
    """Store a successor (0600); it also replaces the tokens of an earlier one in the file."""
    private_dir(path.parent)
    before = read_successor(path)
    write_private(path, f"{successor.following(before)}\n".encode())


def remember_token(address: Endpoint, text: str) -> None:
    """Use a new token for a coordinator from now on."""
    new = Token.parse(text)
    replaced: tuple[str, ...] = ()
    if address.token is not None:
        old = Token.parse(address.token)
        replaced = (old.digest,)
        replace_token(old, new)
    path = successor_path(address.host, address.port)
    write_successor(path, Successor(new, replaced))


def replace_token(old: Token, new: Token) -> bool:
    """Replace the token of this account, if its file contains ``old``; return whether it did."""
    path = config_dir() / TOKEN_FILE
    if _read_private(path) != str(old):
        return False
    write_private(path, f"{new}\n".encode())
    return True


def _read_private(path: Path) -> str | None:
    try:
        info = path.stat()
        text = path.read_text()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AccessError(f"{path}: the token cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        message = f"{path}: the file does not contain a token; delete it to get a new one"
        raise AccessError(message) from None
    if info.st_uid not in (os.getuid(), 0) or stat.S_IMODE(info.st_mode) & 0o077:
        raise AccessError(
            f"{path}: the token must belong to you and be readable by you only; "
            f"run: chmod 600 {path} (or delete it to get a new one)"
        )
    token = text.strip()
    if not token:
        raise AccessError(f"{path}: the token file is empty; delete it to get a new one")
    return token
