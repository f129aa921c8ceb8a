"""Requests that wait until dataflows run or have ended, or until everything has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import anyio

from dora_config.protocol import control
from dora_config.protocol.daemon import EndDaemon
from dora_config.protocol.snapshot import MachineSample, SampleMachine
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.queries.clients import RequestClient
from dora_coordinator.queries.cluster import QueryContext
from dora_coordinator.state.commands import Begun, RequestRefused
from dora_coordinator.state.events import EndRequested
from dora_coordinator.state.records import Phase

ANSWER_SECONDS: Final = 5.0
"""Seconds for machines to answer before a dataflow is stopped for a restart."""
RECENT_SECONDS: Final = 0.5
"""Age in seconds of a last message that counts as an answer."""


async def start(
    request: control.StartDataflow, cluster: QueryContext, client: RequestClient
) -> control.Started:
    """Start a dataflow, and wait until it runs.

    Raises :class:`RequestRefused`, also if nodes could not be started.
    """
    accepted = await cluster.decide(request)
    assert isinstance(accepted, Begun)
    (uuid,) = accepted.dataflows
    client.notify(control.StartTriggered(uuid=uuid))
    return await _started(uuid, cluster, client)


async def _started(uuid: str, cluster: QueryContext, client: RequestClient) -> control.Started:
    shown = None
    (dataflow,) = _present([uuid], cluster)
    while not dataflow.released or dataflow.phase is Phase.RELEASING:
        if dataflow.has_ended:
            reason = f"dataflow {dataflow.label} was not started: {dataflow.reason}"
            raise RequestRefused("failed", reason, dataflow.ended())
        if dataflow.waits_for is not None and dataflow.waits_for != shown:
            shown = dataflow.waits_for
            client.notify(control.StartTriggered(uuid=uuid, waits_for=shown))
        await cluster.changed()
        dataflow = cluster.registry.get(uuid) or dataflow
    return control.Started(uuid=uuid, warnings=dataflow.warnings)


async def restart(
    request: control.RestartDataflow | control.ReplaceDataflow,
    cluster: QueryContext,
    client: RequestClient,
) -> control.Restarted:
    """Stop a dataflow and start it again; the restart continues without its client.

    Raises :class:`RequestRefused`.
    """
    await _require_reachable(cluster.registry.find(request.dataflow, archived=False), cluster)
    accepted = await cluster.decide(request)
    assert isinstance(accepted, Begun)
    old_id, uuid = accepted.dataflows
    (old,) = _present([old_id], cluster)
    while cluster.registry.get(uuid) is None:
        if old.not_restarted is not None:
            raise old.not_restarted
        if old.restart_as != uuid:
            reason = f"dataflow {old.label} is stopped and not started again: a stop was requested"
            raise RequestRefused("failed", reason)
        await cluster.changed()
        old = cluster.registry.get(old_id) or old
    started = await _started(uuid, cluster, client)
    return control.Restarted(old=old_id, new=uuid, warnings=started.warnings)


async def _require_reachable(dataflow: Dataflow, cluster: QueryContext) -> None:
    """Raise RequestRefused before a stop if a machine of the dataflow does not answer.

    A machine without power stays connected until it has been silent for long.
    """
    members = (cluster.membership.get(part.daemon) for part in dataflow.parts.left())
    latest = anyio.current_time() - RECENT_SECONDS
    replies = await cluster.calls.gather(
        [
            one.key
            for one in members
            if one is not None and one.connection is not None and one.last_message < latest
        ],
        SampleMachine(dataflows=(dataflow.id,), max_edges=0),
        MachineSample,
        seconds=ANSWER_SECONDS,
    )
    if replies.problems:
        reasons = "; ".join(replies.problems.values())
        text = f"dataflow {dataflow.label} was not restarted and runs on: {reasons}"
        raise RequestRefused("placement", text)


async def stop(request: control.StopDataflow, cluster: QueryContext) -> control.Ended:
    """Stop dataflows, and wait for their end; raises :class:`RequestRefused`."""
    accepted = await cluster.decide(request)
    assert isinstance(accepted, Begun)
    return await _ended(accepted.dataflows, cluster)


async def wait(request: control.WaitForEnd, cluster: QueryContext) -> control.Ended:
    """Wait for the end of a dataflow; raises :class:`RequestRefused`."""
    dataflow = cluster.registry.find(request.dataflow, archived=True)
    return await _ended([dataflow.id], cluster)


async def _ended(uuids: Iterable[str], cluster: QueryContext) -> control.Ended:
    dataflows = _present(uuids, cluster)
    while not all(one.has_ended for one in dataflows):
        await cluster.changed()
        dataflows = [cluster.registry.get(one.id) or one for one in dataflows]
    return control.Ended(dataflows=tuple(one.ended() for one in dataflows))


def _present(uuids: Iterable[str], cluster: QueryContext) -> list[Dataflow]:
    found = (cluster.registry.get(uuid) for uuid in uuids)
    return [one for one in found if one is not None]


async def destroy(request: control.Destroy, cluster: QueryContext) -> control.Destroyed:
    """End the dataflows, then the daemons, then the coordinator; also without the client.

    Raises :class:`RequestRefused`.
    """
    membership = cluster.membership
    with anyio.CancelScope(shield=True):
        accepted = await cluster.decide(request)
        if isinstance(accepted, control.Destroyed):  # another coordinator leads
            return accepted
        assert isinstance(accepted, Begun)
        dataflows = _present(accepted.dataflows, cluster)
        deadline = anyio.current_time() + cluster.settings.destroy_timeout
        with anyio.CancelScope(deadline=deadline):
            await _ended(accepted.dataflows, cluster)
        for member in membership.connected():
            cluster.calls.send(member.key, EndDaemon())
        with anyio.CancelScope(deadline=deadline):
            while membership.connected():
                await cluster.changed()
    connected = (member.key for member in membership.connected())
    cluster.post(EndRequested())
    return control.Destroyed(
        dataflows=tuple(one.ended() for one in dataflows if one.has_ended),
        left=tuple(sorted({*cluster.registry.unfinished_daemons(), *connected})),
    )
