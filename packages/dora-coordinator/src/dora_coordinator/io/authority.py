"""The cluster's certificate authority: created once, stored beside the store, signs for daemons.

Its certificates are valid within this cluster only. A daemon's certificate is for links: only the
public key of its request is used, which must be the one that its connection proved to have; the
names are those of the daemon of that connection. The coordinator's certificate is issued when it
starts.

Certificates do not expire: TLS checks them against the machine's clock, which may be wrong by
decades until a time server corrects it (a robot without a battery starts in 1970). A removed
machine keeps a certificate that no other machine accepts, because links accept the common names of
their present peers only.
"""

from __future__ import annotations

import base64
import datetime
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dora_config.access import private_dir, write_private
from dora_config.control_plane import SERVER_NAME
from dora_config.errors import DoraError
from dora_config.machine_identity import certificate_name, key_digest
from dora_config.protocol.claims import Claim, Signature

VALID_FROM: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
VALID_TO: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
"""RFC 5280, 4.1.2.5: no end of validity."""

_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())
_KEY_FILE = "key.pem"
_CERTIFICATE_FILE = "ca.pem"


class AuthorityError(DoraError):
    """The authority's files are unusable, or a request cannot be signed."""


class Authority:
    def __init__(self, directory: Path) -> None:
        """Load the authority in ``directory``, or create one there (key 0600).

        Raises :class:`AuthorityError`.
        """
        private_dir(directory)
        with _locked(directory):
            if not (directory / _CERTIFICATE_FILE).exists():
                _make(directory)
        self._key, self._certificate = _load(directory)
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.sha256 = self._certificate.fingerprint(hashes.SHA256())
        self.fingerprint = self.sha256.hex()

    @property
    def private_pem(self) -> str:
        """The private key, for an encrypted copy only."""
        return _private_pem(self._key).decode()

    def sign(self, request: str, machine: str, digest: str) -> str:
        """Return a certificate (PEM) for the key in ``request``; raises :class:`AuthorityError`.

        ``digest``: of the key that the machine proved.
        """
        try:
            requested = x509.load_pem_x509_csr(request.encode())
            valid = requested.is_signature_valid
            key = requested.public_key()
        except (ValueError, InvalidSignature, UnsupportedAlgorithm) as error:
            raise AuthorityError(f"not a certificate signing request: {error}") from error
        if not valid or not isinstance(key, ec.EllipticCurvePublicKey):
            raise AuthorityError("not a key on an elliptic curve")
        if _digest(key) != digest:
            raise AuthorityError("the request has another key than the machine")
        name = x509.UniformResourceIdentifier(f"dora:machine:{machine}")
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = _builder(certificate_name(machine, digest), key)
        return self._issue(builder, key, [name], usages).decode()

    def sign_text(self, text: bytes) -> Signature:
        """Return a signature that every machine with the hash of the certificate can verify."""
        signed = base64.b64encode(self._key.sign(text, _ALGORITHM)).decode()
        return Signature(certificate=self.pem, signature=signed)

    def has_signed(self, text: bytes, proof: Signature) -> bool:
        """Return whether a signature is valid and by this authority."""
        try:
            signed = base64.b64decode(proof.signature, validate=True)
            self._key.public_key().verify(signed, text, _ALGORITHM)
        except (ValueError, InvalidSignature):
            return False
        return True

    def sign_claim(self, claim: Claim) -> Claim:
        """Return a claim for this cluster, signed now."""
        update = {"cluster": self.fingerprint, "time": round(time.time(), 3)}
        fresh = claim.model_copy(update=update)
        return fresh.model_copy(update={"proof": self.sign_text(fresh.text)})

    def issue_server(self, addresses: Iterable[str]) -> bytes:
        """Return a new key and the chain of a coordinator with these IP addresses (PEM)."""
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key()
        names: list[x509.GeneralName] = [x509.DNSName(SERVER_NAME), x509.DNSName("localhost")]
        names += [x509.IPAddress(ip_address(one)) for one in addresses]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH]
        chain = self._issue(_builder("dora coordinator", public), public, names, usages)
        return _private_pem(key) + chain + self.pem.encode()

    def _issue(
        self,
        builder: x509.CertificateBuilder,
        key: ec.EllipticCurvePublicKey,
        names: Iterable[x509.GeneralName],
        usages: Iterable[x509.ObjectIdentifier],
    ) -> bytes:
        signed = (
            builder.issuer_name(self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(_issuer_of(self._key), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return signed.public_bytes(serialization.Encoding.PEM)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the folder's lock: the command and the coordinator may both create the authority."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _make(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    certificate = (
        _builder("dora cluster", public)
        .issuer_name(_name("dora cluster"))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(directory / _KEY_FILE, _private_pem(key))
    # last, because its presence marks a complete authority
    write_private(
        directory / _CERTIFICATE_FILE, certificate.public_bytes(serialization.Encoding.PEM)
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _load(directory: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    try:
        key = serialization.load_pem_private_key((directory / _KEY_FILE).read_bytes(), None)
        certificate = x509.load_pem_x509_certificate((directory / _CERTIFICATE_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise AuthorityError(
            f"{directory}: cannot read the certificate authority of the links ({error}); move the "
            "folder aside and a new one is created; daemons then request new certificates"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError(f"{directory / _KEY_FILE}: not an elliptic curve key")
    if key.public_key() != certificate.public_key():
        raise AuthorityError(
            f"{directory}: the key does not fit the certificate; move the folder aside and a new "
            "authority is created; daemons then request new certificates"
        )
    return key, certificate


def _builder(name: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(VALID_FROM)
        .not_valid_after(VALID_TO)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _digest(key: ec.EllipticCurvePublicKey) -> str:
    return key_digest(
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def _issuer_of(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
