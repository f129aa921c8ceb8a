"""`dora cluster rotate-token`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect


def main(
    grace: Annotated[
        str,
        typer.Option("--grace", metavar="DURATION", help="How long the present token stays valid."),
    ] = "24h",
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Replace the cluster's token; dataflows keep running.

    Connected daemons receive the new token at once, others when they connect within the grace
    duration. The token of this account is replaced too.
    """
    from dora_config.access import AccessError, endpoint, remember_token
    from dora_config.protocol.control import (
        ClusterReport,
        ClusterStatus,
        RotateToken,
        TokenRotated,
    )
    from dora_config.yaml.quantities import parse_duration

    seconds = options.checked(parse_duration)(grace)
    address = endpoint(coordinator_addr, coordinator_port)
    with connect(coordinator_addr, coordinator_port) as client:
        answer = client.request(RotateToken(grace=seconds), TokenRotated)
        try:
            remember_token(address, answer.token)
        except (AccessError, OSError) as error:
            output.warn(
                f"the new token could not be stored in this account ({error}); copy the token "
                "file of the coordinator's account before the old token expires"
            )
        sent = output.counted(len(answer.daemons), "connected daemon")
        output.write(f"New token sent to {sent}")
        output.write(f"The old token expires after {grace}")
        report = client.request(ClusterStatus(), ClusterReport)
    absent = {one.daemon for one in report.machines if not one.ended} - {*answer.daemons}
    if absent:
        names = ", ".join(sorted(absent))
        output.warn(
            f"not sent to {names}: a daemon receives it when it connects before the old token "
            "expires; afterwards run `dora cluster up` or `install`"
        )
