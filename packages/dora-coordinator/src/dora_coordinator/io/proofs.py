"""Verifies that a daemon has the private key of the machine that it registers as."""

from __future__ import annotations

import base64

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dora_config.errors import RemoteProtocolError
from dora_config.machine_identity import challenge_text, key_digest


def verify_proof(public_key: str, signature: str, nonce: str, authority: str) -> str:
    """Return the digest of the key; raises :class:`RemoteProtocolError`."""
    try:
        encoded = base64.b64decode(public_key, validate=True)
        key = serialization.load_der_public_key(encoded)
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise RemoteProtocolError("the machine's key is not on an elliptic curve")
        signed = base64.b64decode(signature, validate=True)
        key.verify(signed, challenge_text(nonce, authority), ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise RemoteProtocolError("the machine did not prove that it has its key") from error
    canonical = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return key_digest(canonical)
