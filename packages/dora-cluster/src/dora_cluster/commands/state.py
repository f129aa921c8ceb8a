"""Commands of `dora cluster` about the coordinator and its machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator.machine_warnings import clock_warnings, plain_warnings, show_offset
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect, connect_of
from dora_config.protocol.reports import (
    ClusterReport,
    ClusterStatus,
    DaemonSummary,
    FleetReport,
    GetFleet,
    LinkSummary,
    StandbyReport,
)
from dora_config.yaml.quantities import parse_duration, show_age

if TYPE_CHECKING:
    from dora_config.access import Endpoint
    from dora_config.access_token import Token

COLUMNS = (
    "DAEMON ID",
    "LAST HEARTBEAT",
    "VERSION",
    "CLOCK",
    "LABELS",
    "RESTARTS",
    "HEALTH KILLS",
    "INPUT TIMEOUTS",
    "CB RECOVERIES",
)
LINK_COLUMNS = ("LINK", "DATAFLOW", "STATE", "ROUND TRIP", "CLOCK", "ADDRESS", "REASON")

STANDBY_COLUMNS = ("STANDBY", "ADDRESS", "COPY", "AGE", "")
FLEET_COLUMNS = ("DATAFLOW", "MACHINE", "DESIRED", "OBSERVED", "STATE", "")


def status(
    path: options.OptionalFleetFile = None,
    output_format: options.Output = "table",
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show the state of the coordinator's daemons and of the links between them."""
    from dora_cluster.ownership import known_clusters

    with connect_of(path, coordinator_addr, coordinator_port) as client:
        report, fleet = client.request(ClusterStatus()), client.request(GetFleet())
        show(report, fleet, as_json=output_format == "json")
        known_clusters.warn_of_unknown(client.endpoint, report.machines)


def show(report: ClusterReport, fleet: FleetReport, *, as_json: bool) -> None:
    """Print a report as tables, or as one JSON object for each daemon."""
    if as_json:
        for one in report.machines:
            output.json_line(one.model_dump(mode="json"))
        return
    if not any(one.connected for one in report.machines):
        output.write("No daemons connected.")
    if report.machines:
        output.table(COLUMNS, [_daemon(one) for one in report.machines])
    links = [link for one in report.machines for link in one.links]
    if links:
        output.write()
        output.table(LINK_COLUMNS, [_link(link) for link in links])
    if report.standbys:
        output.write()
        output.table(STANDBY_COLUMNS, [_standby(one) for one in report.standbys])
    output.write(f"Active dataflows: {report.active_dataflows}")
    for text in report.differences:
        output.write(f"  {text}")
    if fleet.generation:
        _show_fleet(fleet)
    machines = report.machines
    for warning in (*clock_warnings(machines), *plain_warnings(machines)):
        output.warn(warning)


def _show_fleet(fleet: FleetReport) -> None:
    """Print what should run and what runs."""
    outcome = f"paused: {fleet.paused}" if fleet.paused is not None else fleet.outcome
    if fleet.batches:
        outcome += f", batch {fleet.batch} of {fleet.batches}"
    output.write(f"Generation {fleet.generation} of {fleet.by or 'unknown'}: {outcome}")
    rows = [
        (
            one.name,
            one.machine or "-",
            "stopped" if one.desired is None else one.desired,
            one.observed or "-",
            one.state,
            one.detail or "; ".join(f"{text} (holds updates)" for text in one.held),
        )
        for one in fleet.copies
    ]
    if rows:
        output.table(FLEET_COLUMNS, rows)


def _daemon(one: DaemonSummary) -> tuple[object, ...]:
    labels = ",".join(f"{key}={value}" for key, value in sorted(one.labels.items()))
    return (
        one.daemon,
        f"{one.heartbeat_age:.0f}s ago{_state_suffix(one)}",
        _version(one),
        "-" if one.clock_offset is None else show_offset(one.clock_offset),
        labels or "-",
        one.restarts,
        one.health_kills,
        one.input_timeouts,
        one.input_recoveries,
    )


def _state_suffix(one: DaemonSummary) -> str:
    if one.connected:
        return ""
    return " (ended)" if one.ended else " (lost)"


def _version(one: DaemonSummary) -> str:
    """Return the daemon's version, and other versions of its runners."""
    others = [version for version in one.runners if version != one.release]
    return f"{one.release} (runs {', '.join(others)})" if others else one.release


def _standby(one: StandbyReport) -> tuple[object, ...]:
    state = "current" if one.current else "behind"
    return (
        one.machine,
        one.address,
        "-" if one.number is None else one.number,
        "-" if one.age is None else show_age(one.age),
        one.problem or ("no copy yet" if one.number is None else state),
    )


def _link(link: LinkSummary) -> tuple[str, ...]:
    return (
        f"{link.machine} -> {link.peer}",
        link.dataflow,
        link.state,
        "-" if link.rtt_us is None else f"{link.rtt_us / 1000:.1f} ms",
        "-" if link.clock_offset_us is None else _link_clock(link.clock_offset_us),
        link.endpoint or "-",
        link.reason or "",
    )


def _link_clock(microseconds: int) -> str:
    small = abs(microseconds) < 1_000_000
    return f"{microseconds / 1000:+.1f} ms" if small else show_offset(microseconds / 1e6)


def rotate_token(
    expire_after: Annotated[
        str,
        typer.Option(
            "--expire-after", metavar="DURATION", help="How long the present token stays valid."
        ),
    ] = "24h",
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Replace the cluster's token; dataflows keep running.

    Connected daemons receive the new token at once, others when they connect within that
    time. The token of this account is replaced too.
    """
    from dora_config.access import AccessError, remember_token
    from dora_config.protocol.control import RotateToken

    with connect(coordinator_addr, coordinator_port) as client:
        address = client.endpoint
        request = RotateToken(grace=options.checked(parse_duration)(expire_after))
        answer = client.request(request)
        try:
            remember_token(address, answer.token)
        except (AccessError, OSError) as error:
            output.warn(
                f"the new token could not be stored in this account ({error}); copy the token "
                "file of the coordinator's account before the old token expires"
            )
        output.write(f"New token sent to {output.counted(len(answer.daemons), 'connected daemon')}")
        output.write(f"The old token expires after {expire_after}")
        report = client.request(ClusterStatus())
        absent = {one.daemon for one in report.machines if not one.ended} - {*answer.daemons}
        if absent:
            names = ", ".join(sorted(absent))
            output.warn(
                f"not sent to {names}: a daemon receives it when it connects before the old token "
                "expires; afterwards run `dora cluster up` or `install`"
            )


def ca(coordinator_addr: CoordinatorAddr = None, coordinator_port: CoordinatorPort = None) -> None:
    """Print the certificate of the cluster's authority, for `curl --cacert`."""
    import ssl

    from dora_cli.coordinator.errors import CoordinatorUnreachable
    from dora_config.control_plane import authority_certificate

    address, _ = _with_token(coordinator_addr, coordinator_port)
    try:
        certificate = authority_certificate(address)
    except OSError as error:
        raise CoordinatorUnreachable(f"no coordinator answers at {address} ({error})") from error
    output.write(ssl.DER_cert_to_PEM_cert(certificate).rstrip())


def machine_token(
    coordinator_addr: CoordinatorAddr = None, coordinator_port: CoordinatorPort = None
) -> None:
    """Print the token of machines, for a daemon that you start by hand.

    It permits only what daemons do. Write it to ~/.config/dora/token of the account that
    starts `dora daemon` on the machine, mode 0600; `up` and `install` deliver it themselves.
    """
    _, token = _with_token(coordinator_addr, coordinator_port)
    output.write(str(token.for_machine))


def _with_token(host: str | None, port: int | None) -> tuple[Endpoint, Token]:
    """Return the address of a coordinator and this account's token, which can verify it."""
    from dora_config.access import AccessError, endpoint
    from dora_config.access_token import Token

    address = endpoint(host, port)
    token = None if address.token is None else Token.parse(address.token)
    if token is None or token.authority is None:
        raise AccessError(
            f"this account has no token with the hash of an authority for {address}; start the "
            "coordinator, or copy its token (~/.config/dora/token) to this account"
        )
    return address, token
