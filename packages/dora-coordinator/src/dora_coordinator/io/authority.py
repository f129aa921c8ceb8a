"""The cluster's certificate authority: created once, stored beside the store, signs for daemons.

Its certificates are valid for links between machines of this cluster only. Only the public key of a
request is used; the name is the key of the daemon whose connection it came on.

Certificates do not expire: TLS checks them against the machine's clock, which may be wrong by
decades until a time server corrects it (a robot without a battery starts in 1970). To exclude a
machine, create a new authority.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dora_config.access import private_dir, write_private
from dora_config.errors import DoraError

VALID_FROM: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
VALID_TO: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
"""RFC 5280, 4.1.2.5: no end of validity."""

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
        if not (directory / _CERTIFICATE_FILE).exists():
            _make(directory)
        self._key, self._certificate = _load(directory)
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.fingerprint = self._certificate.fingerprint(hashes.SHA256()).hex()

    def sign(self, request: str, machine: str) -> str:
        """Return a certificate (PEM) for the key in ``request``; raises :class:`AuthorityError`."""
        try:
            asked = x509.load_pem_x509_csr(request.encode())
            valid = asked.is_signature_valid
            key = asked.public_key()
        except (ValueError, InvalidSignature, UnsupportedAlgorithm) as error:
            raise AuthorityError(f"not a certificate signing request: {error}") from error
        if not valid or not isinstance(key, ec.EllipticCurvePublicKey):
            raise AuthorityError("not a key on an elliptic curve")
        name = x509.UniformResourceIdentifier(f"dora:machine:{machine}")
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        signed = (
            _builder("dora daemon", key)
            .issuer_name(self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(_issuer_of(self._key), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return signed.public_bytes(serialization.Encoding.PEM).decode()


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
    write_private(
        directory / _KEY_FILE,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    # last, because its presence marks a complete authority
    write_private(
        directory / _CERTIFICATE_FILE, certificate.public_bytes(serialization.Encoding.PEM)
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


def _issuer_of(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
