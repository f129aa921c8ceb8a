"""`dora cluster ca`."""

from __future__ import annotations

from dora_cli import output
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort


def main(
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Print the certificate of the cluster's authority, for `curl --cacert`."""
    import ssl

    from dora_cli.coordinator.errors import CoordinatorUnreachable
    from dora_config.access import AccessError, endpoint
    from dora_config.control_plane import authority_certificate

    address = endpoint(coordinator_addr, coordinator_port)
    if address.authority is None:
        raise AccessError(
            f"this account has no token with the hash of an authority for {address}; start the "
            "coordinator, or copy its token (~/.config/dora/token) to this account"
        )
    try:
        certificate = authority_certificate(address)
    except OSError as error:
        raise CoordinatorUnreachable(f"no coordinator answers at {address} ({error})") from error
    output.write(ssl.DER_cert_to_PEM_cert(certificate).rstrip())
