"""Verification of signatures by the authority of a cluster."""

from __future__ import annotations

import base64

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from dora_config.protocol.claims import Claim, Signature


def is_signed(text: bytes, proof: Signature, authority: str) -> bool:
    """Return whether an authority has signed a text.

    ``authority``: SHA-256 of its certificate, in hexadecimal digits.
    """
    try:
        certificate = x509.load_pem_x509_certificate(proof.certificate.encode())
        key = certificate.public_key()
        if certificate.fingerprint(hashes.SHA256()).hex() != authority:
            return False
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        signature = base64.b64decode(proof.signature, validate=True)
        key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def is_valid(claim: Claim, authority: str) -> bool:
    """Return whether a claim belongs to the cluster of this authority and is signed by it."""
    return claim.cluster == authority and is_signed(claim.text, claim.proof, authority)
