"""Copies of the coordinator's state for other machines, and the start of a coordinator from one.

A copy has the store, the tokens, and the authority with its private key, encrypted with a key that
is derived from the cluster's token (scrypt, AES-256-GCM). With the token, a client can run
programs on every machine already.
"""

from __future__ import annotations

import base64
import logging
import os
import shutil
import zlib
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from pydantic import BaseModel, ValidationError

from dora_config.access import Endpoint, private_dir, write_private
from dora_config.access_token import Token
from dora_config.control_plane import ControlConnection
from dora_config.errors import DoraError
from dora_config.protocol.claims import Claim
from dora_config.protocol.daemon import CoordinatorCopy
from dora_coordinator.io.authority import Authority
from dora_coordinator.io.store import SqliteStore, Store
from dora_coordinator.state.succession import SuccessionRecord
from dora_coordinator.state.tokens import Tokens

SUCCESSION_PATH: Final = "/api/succession"
"""Route of the `Claim` of the coordinator that leads, as far as the answering one has seen."""
COPY_PATH: Final = "/api/succession/copy"
"""Route of a `CoordinatorCopy` of the present state, for a promotion that is not urgent."""
ASK_TIMEOUT: Final = 5.0
"""Seconds for another coordinator to answer."""
MAX_COPY: Final = 32 << 20
"""Bytes of an encrypted copy: a message to a daemon has at most 64 MiB."""
_NONCE_BYTES: Final = 12
"""Size of a nonce of AES-GCM."""
_MADE_BY_CLUSTER: Final = ".of-service"
"""Marker by which `dora cluster uninstall` removes the folder."""

M = TypeVar("M", bound=BaseModel)

logger = logging.getLogger("dora.coordinator")


class CopyError(DoraError):
    """A copy cannot be made or used; ``str()`` has the reason and the remedy."""


class SuccessionFile:
    """The stored `SuccessionRecord` of the coordinator on one port."""

    def __init__(self, path: Path | None) -> None:
        """``path`` None: in memory."""
        self._path = path

    def read(self) -> SuccessionRecord | None:
        """Return the record; None without a file. Raises CopyError."""
        if self._path is None:
            return None
        try:
            return SuccessionRecord.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise CopyError(
                f"{self._path}: not a record of this coordinator's place in the cluster; delete "
                "it, then run `dora cluster up` with the cluster file"
            ) from error

    def write(self, record: SuccessionRecord) -> None:
        """Replace the record; a failure is logged."""
        if self._path is None:
            return
        try:
            write_private(self._path, record.model_dump_json(indent=1).encode())
        except OSError as error:
            logger.error("%s: cannot be written: %s", self._path, error.strerror)


def begin(
    file: SuccessionFile, store: Store, authority: Authority, *, recreate: bool = False
) -> SuccessionRecord:
    """Return the record of a coordinator that starts, with a claim that the authority has signed.

    An empty store in the place of a lost one begins a new epoch, so that its copies count as newer;
    one that was requested (``recreate``) also in the place of a store that was replaced. A new
    authority is that of a new cluster, which has no successor.
    """
    record = file.read() or SuccessionRecord()
    claim = record.claim
    if claim.cluster != authority.fingerprint:
        record = record.model_copy(update={"successor": None})
    if recreate:
        epoch = max(claim.epoch, record.leading.epoch) + 1
        claim = claim.model_copy(update={"epoch": epoch})
        record = SuccessionRecord(claim=record.claim)
    elif record.standbys and isinstance(store, SqliteStore) and store.number() == 0:
        claim = claim.model_copy(update={"epoch": claim.epoch + 1})
    if claim != record.claim or not authority.has_signed(claim.text, claim.proof):
        record = record.model_copy(update={"claim": authority.sign_claim(claim)})
    file.write(record)
    return record


# ------------------------------------------------------------------------ encryption


@lru_cache(maxsize=4)
def _key(secret: str, authority: str) -> bytes:
    salt = b"dora coordinator copy\0" + bytes.fromhex(authority)
    return Scrypt(salt=salt, length=32, n=1 << 14, r=8, p=1).derive(secret.encode())


def seal(content: bytes, secret: str, head: CoordinatorCopy) -> CoordinatorCopy:
    """Return ``head`` with the encrypted content; raises CopyError if it is too large."""
    nonce = os.urandom(_NONCE_BYTES)
    cipher = AESGCM(_key(secret, head.authority))
    sealed = nonce + cipher.encrypt(nonce, content, head.head)
    if len(sealed) > MAX_COPY:
        raise CopyError(
            f"the coordinator's state has {len(sealed) >> 20} MiB, and copies have at most "
            f"{MAX_COPY >> 20} MiB; remove ended dataflows: dora clean"
        )
    return head.model_copy(update={"sealed": base64.b64encode(sealed).decode()})


def unseal(copy: CoordinatorCopy, secret: str) -> bytes:
    """Return the content of a copy; raises CopyError for another token or a damaged copy."""
    try:
        sealed = base64.b64decode(copy.sealed, validate=True)
        cipher = AESGCM(_key(secret, copy.authority))
        return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], copy.head)
    except (InvalidTag, ValueError) as error:
        raise CopyError(
            "the copy is damaged, or encrypted with another token than the given one; set "
            "DORA_AUTH_TOKEN to the token of the lost coordinator"
        ) from error


class _Content(BaseModel):
    """Content of a copy; field names are keys of the JSON."""

    store: str
    """The file of the store (base64)."""
    key: str
    authority: str
    tokens: str


def make_copy(
    store: Store, authority: Authority, tokens: str, token: Token, by: Claim
) -> CoordinatorCopy:
    """Return a copy of the present state; blocks. Raises StoreError and CopyError."""
    number, file = store.copy()
    content = _Content(
        store=base64.b64encode(file).decode(),
        key=authority.private_pem,
        authority=authority.pem,
        tokens=tokens,
    )
    packed = zlib.compress(content.model_dump_json().encode())
    head = CoordinatorCopy(
        authority=authority.fingerprint, epoch=by.epoch, machine=by.machine, number=number
    )
    sealed = seal(packed, token.secret, head)
    return sealed.model_copy(update={"proof": authority.sign_text(sealed.text)})


def copy_of(state: Path, port: int, token: str) -> CoordinatorCopy:
    """Return a copy of the state of a coordinator that does not run.

    Raises CopyError and StoreError.
    """
    folder = state / "coordinator"
    record = SuccessionFile(folder / f"succession-{port}.json").read()
    if record is None or not (folder / "store.sqlite3").exists():
        raise CopyError(f"{folder}: no coordinator was on port {port}")
    authority = Authority(folder / "authority")
    try:
        tokens = (folder / f"tokens-{port}.json").read_text()
    except FileNotFoundError:  # it has the token that it was given
        tokens = Tokens.load(token, authority.sha256, None).record.model_dump_json()
    store = SqliteStore(folder / "store.sqlite3")
    try:
        return make_copy(store, authority, tokens, Token.parse(token), record.claim)
    finally:
        store.close()


# ------------------------------------------------------------------------ taking over


class Restoration(BaseModel):
    """Input of `dora coordinator --restore`."""

    token: str
    state: CoordinatorCopy
    epoch: int
    machine: str
    address: str


class Restored(BaseModel):
    """Output of `dora coordinator --restore`."""

    dataflows: int
    """Number of dataflows that have not ended."""
    claim: Claim


def restore(state: Path, port: int, given: Restoration) -> Restored:
    """Make the folder of a coordinator from a copy.

    An earlier folder is renamed, but for its code. What is missing of that is fetched from machines
    when it is needed.

    Raises CopyError, StoreError and OSError; the folder is then as it was.
    """
    copy, folder = given.state, state / "coordinator"
    packed = unseal(copy, Token.parse(given.token).secret)
    content = _Content.model_validate_json(zlib.decompress(packed))
    if folder.exists():  # fails if it is in use by a running coordinator
        SqliteStore(folder / "store.sqlite3").close()
    private_dir(state)
    fresh = private_dir(state / "coordinator.new")
    try:
        private_dir(fresh / "authority")
        write_private(fresh / "authority" / "key.pem", content.key.encode())
        write_private(fresh / "authority" / "ca.pem", content.authority.encode())
        authority = Authority(fresh / "authority")
        if authority.fingerprint != copy.authority:
            raise CopyError("the copy contains the authority of another cluster")
        if not authority.has_signed(copy.text, copy.proof):
            raise CopyError("the copy was not made by a coordinator of this cluster")
        write_private(fresh / "store.sqlite3", base64.b64decode(content.store))
        write_private(fresh / f"tokens-{port}.json", content.tokens.encode())
        (fresh / _MADE_BY_CLUSTER).touch()
        claim = Claim(epoch=given.epoch, machine=given.machine, address=given.address)
        record = SuccessionRecord(claim=authority.sign_claim(claim))
        SuccessionFile(fresh / f"succession-{port}.json").write(record)
        store = SqliteStore(fresh / "store.sqlite3")
        dataflows = sum(one.ended_at is None for one, _ in store.load().stored)
        store.close()
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    earlier = state / "coordinator.earlier"
    shutil.rmtree(earlier, ignore_errors=True)
    with suppress(FileNotFoundError):
        folder.replace(earlier)
    fresh.replace(folder)
    with suppress(FileNotFoundError):
        (earlier / "files").replace(folder / "files")
    return Restored(dataflows=dataflows, claim=record.claim)


# ------------------------------------------------------------------------ other coordinators


def ask(address: Endpoint) -> Claim | None:
    """Return the claim that the coordinator at an address, if there is one, obeys; unverified."""
    return _exchange(address, Claim, "GET", SUCCESSION_PATH)


def show_claim(address: Endpoint, claim: Claim) -> Claim | None:
    """Show a coordinator the claim of its successor; return the claim that it obeys then."""
    content = claim.model_dump_json().encode()
    return _exchange(address, Claim, "POST", SUCCESSION_PATH, content)


def present_copy(address: Endpoint) -> CoordinatorCopy | None:
    """Return a copy of the state of the coordinator that leads at an address, if there is one."""
    return _exchange(address, CoordinatorCopy, "GET", COPY_PATH)


def _exchange(
    address: Endpoint, kind: type[M], method: str, path: str, content: bytes | None = None
) -> M | None:
    """Return the valid body of an answer with status 200."""
    connection = ControlConnection(address, timeout=ASK_TIMEOUT)
    try:
        connection.request(method, path, content, address.headers())
        with connection.getresponse() as answer:
            body: bytes = answer.read()
        return kind.model_validate_json(body) if answer.status == 200 else None
    except (OSError, DoraError, ValueError):
        return None
    finally:
        connection.close()
