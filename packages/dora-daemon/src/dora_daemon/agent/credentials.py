"""Identity of this machine: its key, and the certificate of the cluster that its links use.

The folder (0700) holds ``key.pem``, which never leaves the machine, ``cert.pem`` and ``ca.pem``.
"""

from __future__ import annotations

import base64
from pathlib import Path

import anyio
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dora_config.access import private_dir, write_private


class Credentials:
    """Key and certificate of this machine; links read the files whenever they connect."""

    def __init__(self, directory: Path) -> None:
        """Use ``directory``; create a key there unless it contains a readable one."""
        self.directory = private_dir(directory)
        self._key = self._load_key()
        self._usable = anyio.Event()

    @property
    def public_key(self) -> str:
        """The machine's public key (DER, base64)."""
        return base64.b64encode(_public(self._key.public_key())).decode()

    def sign(self, text: bytes) -> str:
        """Return the signature of a text with the machine's key (base64)."""
        return base64.b64encode(self._key.sign(text, ec.ECDSA(hashes.SHA256()))).decode()

    def wanted(self, authority: str, name: str) -> bool:
        """Return whether to request a certificate; does not read the clock, which may be wrong.

        ``authority``: SHA-256 of the coordinator's certificate, in hexadecimal digits; ``name``:
        common name of the certificate.
        """
        stored = self._stored()
        if stored is None:
            return True
        mine, trusted = stored
        if trusted.fingerprint(hashes.SHA256()).hex() != authority:
            return True
        if mine.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value != name:
            return True
        self._usable.set()
        return False

    def _stored(self) -> tuple[x509.Certificate, x509.Certificate] | None:
        """Return the stored certificate and its authority, if they match the key."""
        try:
            trusted = x509.load_pem_x509_certificate((self.directory / "ca.pem").read_bytes())
            mine = x509.load_pem_x509_certificate((self.directory / "cert.pem").read_bytes())
        except (OSError, ValueError):
            return None
        if _public(mine.public_key()) != _public(self._key.public_key()):
            return None
        # They differ if an earlier process ended between the two writes of `store`.
        return (mine, trusted) if _issued(mine, trusted) else None

    def request(self) -> str:
        """Return a certificate signing request (PEM)."""
        # the coordinator chooses the names
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()

    def store(self, certificate: str, authority: str) -> None:
        """Store a certificate and its authority; each file is replaced atomically."""
        write_private(self.directory / "ca.pem", authority.encode())
        write_private(self.directory / "cert.pem", certificate.encode())
        self._usable.set()

    def make_again(self) -> None:
        """Write the removed folder and key again; the caller must request a new certificate."""
        private_dir(self.directory)
        self._write_key(self._key)

    async def usable(self, *, within: float, alone: bool = False) -> bool:
        """Wait at most ``within`` seconds for a certificate that the present coordinator trusts.

        ``alone``: the coordinator is away, so that any stored certificate is sufficient.
        """
        if alone and self._stored() is not None:
            return True
        with anyio.move_on_after(within):
            await self._usable.wait()
        return self._usable.is_set()

    def _load_key(self) -> ec.EllipticCurvePrivateKey:
        path = self.directory / "key.pem"
        try:
            found = serialization.load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError):
            found = None
        if isinstance(found, ec.EllipticCurvePrivateKey):
            return found
        made = ec.generate_private_key(ec.SECP256R1())
        self._write_key(made)
        return made

    def _write_key(self, key: ec.EllipticCurvePrivateKey) -> None:
        write_private(
            self.directory / "key.pem",
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _public(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return b""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
