"""`dora cluster promote`: a standby takes over from a coordinator that is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dora_cli import output
from dora_cli.bundle.install import Installer
from dora_cli.cluster.coordinator import queries
from dora_cli.cluster.coordinator.local import is_local
from dora_cli.cluster.coordinator.service import remember, restore_and_start
from dora_cli.cluster.decisions.preflight import NotReady, require_ready
from dora_cli.cluster.decisions.promotion import (
    StandbyFacts,
    by_age,
    leads,
    next_epoch,
    parse_copy,
    promoted,
)
from dora_cli.cluster.machines.daemon_service import DaemonService
from dora_cli.cluster.machines.remote_machine import RemoteMachine, Report, on_machines
from dora_cli.cluster.ownership import known_clusters
from dora_cli.cluster.ownership.reservation import ClusterCommand, Reservation, reserve
from dora_cli.coordinator.client import QUERY_TIMEOUT, Client
from dora_cli.coordinator.errors import CoordinatorUnavailable
from dora_config.access import (
    DEFAULT_HOST,
    Endpoint,
    Moved,
    address_text,
    moved_path,
    split_address,
    write_moved,
)
from dora_config.access_token import Token
from dora_config.cluster.models import Cluster, Machine
from dora_config.errors import DoraError
from dora_config.protocol.claims import Claim
from dora_config.protocol.control import ClusterReport, ClusterStatus, Destroy, Destroyed
from dora_config.protocol.daemon import CoordinatorCopy
from dora_config.yaml.quantities import show_age


@dataclass(frozen=True, slots=True)
class Survey:
    """What the reachable machines have, by id."""

    authority: str
    found: dict[str, StandbyFacts]
    missing: tuple[str, ...]
    """Machines that were not reached."""


def promote_standby(
    cluster: Cluster,
    installer: Installer,
    command: ClusterCommand,
    machine_id: str,
    confirm: Callable[[], bool],
) -> bool:
    """Let a standby take over; return whether all reachable daemons are connected to it."""
    machine, moved = _target(cluster, machine_id)
    token = _token(cluster)
    place = (cluster.coordinator.addr, cluster.coordinator.port)
    new = cluster if place == (moved.host, moved.port) else promoted(cluster, moved)
    with reserve(cluster, command) as reservation:
        survey = _survey(cluster, reservation, token)
        claim = _leads_already(moved, survey, token)
        if claim is not None:
            output.write(f'"{machine_id}" leads already (epoch {claim.epoch})')
            remember(new, Token.parse(token))
        elif new is cluster:
            raise NotReady(
                f'"{machine_id}" was promoted before, and its coordinator does not answer; start '
                "it again: dora cluster up"
            )
        else:
            copy = _describe(cluster, machine, reservation, survey)
            if not confirm():
                return False
            epoch = next_epoch(survey.found.values(), copy)
            claim = _start(new, installer, reservation, machine, copy, token, epoch)
        _remember(cluster, new, moved, command)
        queries.set_standbys(new)
        _point_daemons(new, reservation, survey, claim)
    found = queries.wait_for_daemons(new, survey.found)
    late = [name for name in survey.found if name not in found]
    count = len(survey.found) - len(late)
    output.write(f"{count} of {len(cluster.machines)} daemons connected to {moved.host}.")
    _advise(new, survey)
    return not late


def _target(cluster: Cluster, machine_id: str) -> tuple[Machine, Moved]:
    standbys = cluster.coordinator.standby
    machine = next((one for one in cluster.machines if one.id == machine_id), None)
    place = cluster.coordinator
    if place.former and machine is not None and machine.address == place.addr:
        return machine, Moved(place.addr, place.port, machine_id)
    if machine is None or machine_id not in standbys:
        known = ", ".join(standbys) or "none"
        raise NotReady(
            f'"{machine_id}" is not a standby of this cluster; coordinator.standby has: {known}'
        )
    assert machine.address is not None  # checked with the file
    return machine, Moved(machine.address, cluster.coordinator.port, machine_id)


def _token(cluster: Cluster) -> str:
    token = queries.endpoint_of(cluster).token
    if token is None or Token.parse(token).authority is None:
        raise NotReady(
            "this account does not have the token of the cluster, with which the copies are "
            "encrypted; copy ~/.config/dora/token of the account that ran `dora cluster up`, or "
            "set DORA_AUTH_TOKEN"
        )
    return token


def _survey(cluster: Cluster, reservation: Reservation, token: str) -> Survey:
    authority = (Token.parse(token).authority or b"").hex()

    def work(remote: RemoteMachine, report: Report) -> StandbyFacts:
        answer = remote.call("coordinator.survey", name=remote.machine.daemon)
        return StandbyFacts.of(answer, authority)

    done = on_machines(
        cluster,
        "Asking {name}",
        work,
        describe=_shown,
        connections=reservation.connections,
    )
    found = {one.machine.id: one.result for one in done if one.result is not None}
    for name, one in found.items():
        if one.forged is not None:
            output.warn(
                f'"{name}" has a claim of {one.forged} that is not signed by the authority of this '
                "cluster; it was ignored: examine that machine"
            )
    return Survey(authority, found, tuple(one.machine.id for one in done if not one.ok))


def _shown(one: StandbyFacts) -> str:
    copy = one.copy_
    if copy is None:
        return "no copy"
    age = show_age(copy.age)
    return f"copy {copy.number} of epoch {copy.epoch}, {age} old"


def _leads_already(moved: Moved, survey: Survey, token: str) -> Claim | None:
    """Return the claim of the coordinator on the machine if it leads.

    One that was replaced meanwhile is ended, because another takes its place.
    """
    try:
        with Client(_endpoint(moved, token)) as client:
            claim = client.request(ClusterStatus(), ClusterReport, timeout=QUERY_TIMEOUT).claim
            if claim is not None and leads(claim, survey.found.values()):
                return claim
            if client.successor is None:  # ending it now would end the daemons that obey it
                raise NotReady(
                    f"the coordinator at {client.endpoint} was replaced and has not noticed it "
                    "yet; try again in 10 seconds"
                )
            client.request(Destroy(force=True), Destroyed)
            client.wait_until_gone()
    except CoordinatorUnavailable:
        pass
    return None


def _describe(
    cluster: Cluster, machine: Machine, reservation: Reservation, survey: Survey
) -> CoordinatorCopy:
    """Print what will be done and what is missing; return the newest copy."""
    name, copy = _newest_copy(cluster, reservation, survey)
    facts = survey.found[name].copy_
    assert facts is not None
    output.write(
        f'The newest copy is on "{name}": change {copy.number}, {show_age(facts.age)} old. What '
        "was applied later is not in it; dataflows that run are adopted, stopped ones stay so."
    )
    lost = [one for one in cluster.coordinator.standby if one in survey.missing]
    if lost:
        output.warn(f"not reached, and may have a newer copy: {', '.join(lost)}")
    if _answers(cluster):
        output.warn(
            f"the coordinator at {queries.endpoint_of(cluster)} still answers; it will be replaced "
            "and change nothing any more"
        )
    if machine.id in survey.missing:
        raise NotReady(f"{machine.label} was not reached, so it cannot take over")
    return copy


def _newest_copy(
    cluster: Cluster, reservation: Reservation, survey: Survey
) -> tuple[str, CoordinatorCopy]:
    """Return the machine with the newest copy that a coordinator of this cluster made, and it."""
    for name in by_age(survey.found):
        chosen = cluster.machine(name)
        with reservation.connections.open(chosen) as connection:
            remote = RemoteMachine(cluster, chosen, connection)
            content = remote.call("coordinator.read", name=chosen.daemon)["copy"]
        copy = parse_copy(content, survey.authority)
        if copy is not None:
            return name, copy
        output.warn(f'ignored the copy on "{name}": no coordinator of this cluster made it')
    raise NotReady(
        "no reachable machine has a copy of the state of this cluster's coordinator; nothing "
        "was changed"
    )


def _answers(cluster: Cluster) -> bool:
    try:
        return queries.fetch_report(cluster) is not None
    except (DoraError, OSError):
        return False


def _start(
    new: Cluster,
    installer: Installer,
    reservation: Reservation,
    machine: Machine,
    copy: CoordinatorCopy,
    token: str,
    epoch: int,
) -> Claim:
    """Start the coordinator of a copy on its machine; return its claim."""
    with reservation.connections.open(machine) as connection:
        remote = RemoteMachine(new, machine, connection)
        facts = remote.facts()
        require_ready(facts, machine)
        service = DaemonService.find(remote, facts)
    restored = restore_and_start(
        new,
        installer,
        copy,
        token,
        epoch=epoch,
        machine=machine.id,
        service=service is not None,
        user=service is not None and service.user,
    )
    way = "in the background" if service is None else "as a service"
    output.write(
        f"Starting coordinator on {machine.label}... OK ({way}, epoch {epoch}, "
        f"{restored.dataflows} dataflows)"
    )
    return restored.claim


def _remember(cluster: Cluster, new: Cluster, moved: Moved, command: ClusterCommand) -> None:
    """Use the new address for this account's commands from now on."""
    former = tuple(one for one in new.coordinator.former if one != str(_endpoint(moved)))
    moved = moved._replace(former=former)
    addresses = set(former)
    if any(is_local(split_address(one)[0]) for one in former):
        # commands on the machine of the lost one use it without an option
        addresses.add(address_text(DEFAULT_HOST, moved.port))
    moved_path(moved.host, moved.port).unlink(missing_ok=True)
    for text in addresses:
        host, port = split_address(text)
        write_moved(moved_path(host, int(port)), moved)
    if new is not cluster:
        known_clusters.forget(cluster)
    known_clusters.keep(new, command.file)


def _endpoint(moved: Moved, token: str | None = None) -> Endpoint:
    return Endpoint(moved.host, moved.port, token)


def _point_daemons(new: Cluster, reservation: Reservation, survey: Survey, claim: Claim) -> None:
    machines = [one for one in new.machines if one.id in survey.found]
    standbys = [one.address for one in queries.standbys_of(new)]
    known = {"authority": survey.authority, "claim": claim.model_dump(), "standbys": standbys}

    def work(remote: RemoteMachine, report: Report) -> None:
        name = remote.machine.daemon
        remote.call("coordinator.follow", name=name, known=known)

    label = "Pointing daemon on {name} to it"
    on_machines(new, label, work, machines=machines, connections=reservation.connections)


def _advise(new: Cluster, survey: Survey) -> None:
    place = new.coordinator
    old = split_address(place.former[-1])
    if survey.missing:
        output.remark(
            f"not reached: {', '.join(survey.missing)}; their daemons try the standbys in turn, "
            "and follow when they are back"
        )
    output.remark(
        f"Commands of this account that name {old[0]} use {place.addr} from now on (recorded in "
        f"{moved_path(old[0], place.port).parent}). Other accounts: run this command there too, or "
        f"use --coordinator-addr {place.addr}. `dora cluster up` gives the daemons the new address"
    )
