"""`dora cluster promote`: the coordinator continues on a standby, or where the file names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from dora_cli import output
from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import CoordinatorUnavailable
from dora_cli.polling import wait_until
from dora_cluster.bundle.install import Installer
from dora_cluster.coordinator import queries
from dora_cluster.coordinator.place import open_place
from dora_cluster.coordinator.promoted import copy_own_store, restore_and_start
from dora_cluster.coordinator.tokens import remember
from dora_cluster.decisions.preflight import NotReady, require_ready
from dora_cluster.decisions.promotion import (
    StandbyFacts,
    StoreFacts,
    by_age,
    leads,
    newer_store,
    next_epoch,
    parse_copy,
    promoted,
    returned,
    standbys_of,
)
from dora_cluster.machines.daemon_service import DaemonService
from dora_cluster.machines.remote_machine import RemoteMachine, Report, on_machines
from dora_cluster.operations.new_place import require_reachable
from dora_cluster.ownership import known_clusters
from dora_cluster.ownership.reservation import ClusterCommand, Reservation, reserve
from dora_config.access import (
    DEFAULT_HOST,
    Endpoint,
    Moved,
    address_text,
    forget_moves,
    moved_path,
    split_address,
    write_moved,
)
from dora_config.access_token import Token
from dora_config.cluster.models import Cluster, Machine
from dora_config.control_plane import is_local
from dora_config.errors import DoraError
from dora_config.protocol.claims import Claim
from dora_config.protocol.control import ClusterStatus, Destroy
from dora_config.protocol.daemon import CoordinatorCopy
from dora_config.yaml.quantities import show_age
from dora_coordinator.io.succession import Restoration, present_copy, show_claim

STAND_ASIDE_TIMEOUT = 10.0
"""Seconds in which a coordinator must yield to one with a higher claim."""


@dataclass(frozen=True, slots=True)
class NewPlace:
    """New place of the coordinator."""

    cluster: Cluster
    """The cluster with its coordinator at the new place."""
    machine: Machine | None
    """Machine of the new place; None: the place that the file names."""

    @property
    def id(self) -> str:
        """Machine of the claim; empty: the place in the file."""
        return "" if self.machine is None else self.machine.id

    @property
    def label(self) -> str:
        place = self.cluster.coordinator
        name = place.target or place.addr
        return name if self.machine is None else self.machine.label

    @property
    def address(self) -> str:
        return address_text(self.cluster.coordinator.addr, self.cluster.coordinator.port)


@dataclass(frozen=True, slots=True)
class Survey:
    """Copies and stores of the reachable machines, by machine id."""

    authority: str
    found: dict[str, StandbyFacts]
    missing: tuple[str, ...]
    """Machines that were not reached."""
    stores: Mapping[str, StoreFacts]
    """Stores of coordinators that are on their own machines; empty id: the place in the file."""


class Promotion:
    """The state of one command."""

    def __init__(
        self, file: Cluster, cluster: Cluster, installer: Installer, reservation: Reservation
    ) -> None:
        """``file``: the cluster as the file describes it; ``cluster``: as it is now."""
        self._file = file
        self._cluster = cluster
        self._installer = installer
        self._reservation = reservation
        self._token = _token(cluster)

    def run(self, target: NewPlace, command: ClusterCommand, confirm: Callable[[], bool]) -> bool:
        """Start the coordinator at the target; return whether all reachable daemons connected."""
        survey = self._survey()
        claim = self._leads_already(target, survey)
        if claim is not None:
            output.write(f"{_shown_id(target)} leads already (epoch {claim.epoch})")
            remember(target.cluster, Token.parse(self._token))
        elif target.address == str(queries.endpoint_of(self._cluster)):
            raise NotReady(
                f"the coordinator is on {_shown_id(target)} and does not answer; start it again: "
                "dora cluster up"
            )
        else:
            if target.id in survey.missing:
                raise NotReady(f"{target.label} was not reached, so it cannot take over")
            copy = self._state(survey)
            reached = [one for one in self._cluster.machines if one.id in survey.found]
            require_reachable(target.cluster, target.machine, reached, self._reservation)
            if not confirm():
                return False
            claim = self._start(target, copy, next_epoch(survey.found.values(), copy))
            with suppress(CoordinatorUnavailable), queries.open_client(self._cluster) as client:
                _end(client, claim)
        queries.set_standbys(target.cluster)
        _remember(self._cluster, target, command)
        self._point_daemons(target.cluster, survey, claim)
        found = queries.wait_for_daemons(target.cluster, survey.found)
        late = [name for name in survey.found if name not in found]
        count, place = len(survey.found) - len(late), target.cluster.coordinator
        output.write(f"{count} of {len(self._cluster.machines)} daemons connected to {place.addr}.")
        _advise(target, survey)
        return not late

    def _survey(self) -> Survey:
        authority = (Token.parse(self._token).authority or b"").hex()
        port = self._cluster.coordinator.port

        def work(remote: RemoteMachine, report: Report) -> StandbyFacts:
            answer = remote.call("coordinator.survey", name=remote.machine.daemon, port=port)
            return StandbyFacts.of(answer, authority, remote.machine.id)

        done = on_machines(
            self._cluster,
            "Asking {name}",
            work,
            describe=_shown,
            connections=self._reservation.connections,
        )
        found = {one.machine.id: one.result for one in done if one.result is not None}
        for name, one in found.items():
            if one.forged is not None:
                output.warn(
                    f'"{name}" has a claim of {one.forged} that is not signed by the authority of '
                    "this cluster; it was ignored: examine that machine"
                )
        stores = {name: one.store for name, one in found.items() if one.store is not None}
        with suppress(DoraError, OSError), open_place(self._file) as host:
            answer = host.call("coordinator.own_store", port=self._file.coordinator.port)
            if (first := StoreFacts.of(answer, authority, "")) is not None:
                stores[""] = first
        missing = tuple(one.machine.id for one in done if not one.ok)
        return Survey(authority, found, missing, stores)

    def _leads_already(self, target: NewPlace, survey: Survey) -> Claim | None:
        """Return the claim of the coordinator on the machine if it leads.

        A coordinator that was replaced is ended, because another one is started at its address.
        """
        place = target.cluster.coordinator
        at = Endpoint(place.addr, place.port, self._token)
        claims = [one.claim for one in survey.found.values() if one.claim is not None]
        with suppress(CoordinatorUnavailable), CoordinatorClient(at) as client:
            claim = _claim(client)
            if client.successor is None and leads(claim, survey.found.values()):
                return claim
            _end(client, max(claims, key=lambda one: one.rank, default=claim))
        return None

    def _state(self, survey: Survey) -> CoordinatorCopy:
        """Return the newest available state, and print its source."""
        at = queries.endpoint_of(self._cluster)
        present = present_copy(at)
        if present is not None and self._is_newest(present, survey):
            output.write(
                f"The coordinator at {at} answers, and its present state is used (change "
                f"{present.number}). It will be replaced and ended."
            )
            return present
        found = self._newest_copy(survey)
        name = newer_store(survey.stores, None if found is None else found[1])
        if name is not None:
            return self._own_store(name, survey.stores[name], found)
        if found is None:
            raise NotReady(
                "no reachable machine has a copy of the state of this cluster's coordinator; "
                "nothing was changed"
            )
        holder, copy = found
        facts = survey.found[holder].copy_
        assert facts is not None
        output.write(
            f'The newest copy is on "{holder}": change {copy.number}, {show_age(facts.age)} old. '
            "What was applied later is not in it; dataflows that run are adopted, stopped ones "
            "stay so."
        )
        lost = [one.machine for one in standbys_of(self._cluster) if one.machine in survey.missing]
        if lost:
            output.warn(f"not reached, and may have a newer copy: {', '.join(lost)}")
        return copy

    def _is_newest(self, copy: CoordinatorCopy, survey: Survey) -> bool:
        made = parse_copy(copy.model_dump(), survey.authority) is not None
        claim = Claim(epoch=copy.epoch, machine=copy.machine)
        return made and leads(claim, survey.found.values())

    def _newest_copy(self, survey: Survey) -> tuple[str, CoordinatorCopy] | None:
        """Return the machine with the newest copy that a coordinator of this cluster made."""
        for name in by_age(survey.found):
            chosen = self._cluster.machine(name)
            with self._reservation.connections.open(chosen) as connection:
                remote = RemoteMachine(self._cluster, chosen, connection)
                content = remote.call("coordinator.read", name=chosen.daemon)["copy"]
            copy = parse_copy(content, survey.authority)
            if copy is not None:
                return name, copy
            output.warn(f'ignored the copy on "{name}": no coordinator of this cluster made it')
        return None

    def _own_store(
        self, name: str, facts: StoreFacts, found: tuple[str, CoordinatorCopy] | None
    ) -> CoordinatorCopy:
        """Return a copy of the store on a coordinator's own machine."""
        where = f'"{name}"' if name else "the coordinator's machine"
        newer = "no machine has a copy"
        if found is not None:
            holder, copy = found
            newer = (
                f'the newest copy, on "{holder}", has change {copy.number} of epoch {copy.epoch}'
            )
        sentence = (
            f"The coordinator's own store on {where} has change {facts.number} of epoch "
            f"{facts.claim.epoch}; {newer}"
        )
        try:
            own = copy_own_store(self._place(name), self._installer, self._token)
        except (DoraError, OSError) as problem:
            raise NotReady(
                f"{sentence}. It is newer and cannot be read: {problem}; start the coordinator "
                "there again: dora cluster up; nothing was changed"
            ) from problem
        output.write(f"{sentence}. The store is used.")
        return own

    def _place(self, name: str) -> Cluster:
        """Return the cluster with its coordinator on a machine; empty: where the file names it."""
        if not name:
            return self._file
        machine = self._cluster.machine(name)
        assert machine.address is not None  # the machine has had a coordinator
        moved = Moved(machine.address, self._cluster.coordinator.port, name)
        return promoted(self._cluster, moved)

    def _start(self, target: NewPlace, copy: CoordinatorCopy, epoch: int) -> Claim:
        """Start the coordinator of a copy on its machine; return its claim."""
        as_user = None
        if target.machine is not None:
            with self._reservation.connections.open(target.machine) as connection:
                remote = RemoteMachine(target.cluster, target.machine, connection)
                facts = remote.facts()
                require_ready(facts, target.machine)
                service = DaemonService.find(remote, facts)
                as_user = None if service is None else service.user
        given = Restoration(
            token=self._token, state=copy, epoch=epoch, machine=target.id, address=target.address
        )
        restored, way = restore_and_start(target.cluster, self._installer, given, as_user=as_user)
        output.write(
            f"Starting coordinator on {target.label}... OK ({way}, epoch {epoch}, "
            f"{restored.dataflows} dataflows)"
        )
        return restored.claim

    def _point_daemons(self, new: Cluster, survey: Survey, claim: Claim) -> None:
        machines = [one for one in new.machines if one.id in survey.found]
        standbys = [one.address for one in standbys_of(new)]
        known = {"authority": survey.authority, "claim": claim.model_dump(), "standbys": standbys}

        def work(remote: RemoteMachine, report: Report) -> None:
            name = remote.machine.daemon
            remote.call("coordinator.follow", name=name, known=known)

        label = "Pointing daemon on {name} to it"
        connections = self._reservation.connections
        on_machines(new, label, work, machines=machines, connections=connections)


def promote_standby(
    file: Cluster,
    cluster: Cluster,
    installer: Installer,
    command: ClusterCommand,
    machine_id: str | None,
    confirm: Callable[[], bool],
) -> bool:
    """Start the coordinator on a standby (None: on the machine that the file names).

    Return whether all reachable daemons are connected to it.
    """
    target = _target(file, cluster, machine_id)
    with reserve(cluster, command) as reservation:
        return Promotion(file, cluster, installer, reservation).run(target, command, confirm)


def _target(file: Cluster, cluster: Cluster, machine_id: str | None) -> NewPlace:
    if machine_id is None:
        return NewPlace(returned(file, cluster), None)
    place = cluster.coordinator
    machine = next((one for one in cluster.machines if one.id == machine_id), None)
    if machine is not None and machine.address == place.addr and place.former:
        return NewPlace(cluster, machine)
    names = [one.machine for one in standbys_of(cluster)]
    if machine is None or machine_id not in names or machine.address is None:
        known = ", ".join(names) or "none"
        raise NotReady(
            f'"{machine_id}" is not a standby of this cluster; coordinator.standby has: {known}'
        )
    moved = Moved(machine.address, place.port, machine_id)
    return NewPlace(promoted(cluster, moved), machine)


def _claim(client: CoordinatorClient) -> Claim:
    report = client.request(ClusterStatus())
    return report.claim or Claim(epoch=0)


def _end(client: CoordinatorClient, claim: Claim) -> None:
    """End a coordinator that was replaced by the one with a claim; nothing else ends with it."""
    show_claim(client.endpoint, claim)

    def stands_aside() -> bool:
        _claim(client)
        return client.successor is not None

    # Destroy would also end the daemons of a coordinator that still leads.
    if not wait_until(stands_aside, STAND_ASIDE_TIMEOUT, every=0.2):
        raise NotReady(
            f"the coordinator at {client.endpoint} was replaced and has not noticed it within "
            f"{STAND_ASIDE_TIMEOUT:g} s; see its output, then run this command again"
        )
    client.request(Destroy(force=True))
    client.wait_until_gone()


def _token(cluster: Cluster) -> str:
    token = queries.endpoint_of(cluster).token
    if token is None or Token.parse(token).authority is None:
        raise NotReady(
            "this account does not have the token of the cluster, with which the copies are "
            "encrypted; copy ~/.config/dora/token of the account that ran `dora cluster up`, or "
            "set DORA_AUTH_TOKEN"
        )
    return token


def _shown(one: StandbyFacts) -> str:
    copy = one.copy_
    if copy is None:
        return "no copy"
    age = show_age(copy.age)
    return f"copy {copy.number} of epoch {copy.epoch}, {age} old"


def _shown_id(target: NewPlace) -> str:
    return f'"{target.id}"' if target.id else f"{target.label}, as the file names it,"


def _remember(cluster: Cluster, target: NewPlace, command: ClusterCommand) -> None:
    """Use the new address for this account's commands from now on."""
    place = target.cluster.coordinator
    forget_moves(place.addr, place.port, *place.former)
    if target.machine is not None:
        moved = Moved(place.addr, place.port, target.id, place.former)
        addresses = set(place.former)
        if any(is_local(split_address(one)[0]) for one in place.former):
            # the default address of commands on the machine of the former coordinator
            addresses.add(address_text(DEFAULT_HOST, place.port))
        for text in addresses:
            host, port = split_address(text)
            write_moved(moved_path(host, int(port)), moved)
    if target.cluster is not cluster:
        known_clusters.forget(cluster)
    known_clusters.keep(target.cluster, command.file)


def _advise(target: NewPlace, survey: Survey) -> None:
    place = target.cluster.coordinator
    if survey.missing:
        output.remark(
            f"not reached: {', '.join(survey.missing)}; their daemons try the standbys in turn, "
            "and follow when they are back"
        )
    if target.machine is None:
        output.remark(
            f"Commands of this account use {place.addr} again, as the file names it. Other "
            "accounts: run this command there too"
        )
        return
    old = split_address(place.former[-1])
    output.remark(
        f"Commands of this account that name {old[0]} use {place.addr} from now on (recorded in "
        f"{moved_path(old[0], place.port).parent}). Other accounts: run this command there too, or "
        f"use --coordinator-addr {place.addr}. `dora cluster up` gives the daemons the new address"
    )
