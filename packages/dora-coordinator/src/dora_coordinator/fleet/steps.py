"""Next step of a dataflow towards its desired generation: an ordinary request; pure."""

from __future__ import annotations

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.protocol import control, fleet as fleets, runner as protocol
from dora_config.protocol.builds import BuildDataflow, BuildSettings
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.fleet_diff import next_step
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.placement import place
from dora_coordinator.fleet.comparison import Comparison, Copy, failed_parts
from dora_coordinator.settings import Settings
from dora_coordinator.state.commands import RequestRefused
from dora_coordinator.state.events import FleetStep
from dora_coordinator.state.records import Phase


class Held(Exception):
    """The next step is not possible now; the text is the reason."""


def require_checks_allowed(check: str | None, settings: Settings) -> None:
    """Raise RequestRefused if a roll-out may not run its command on this machine."""
    if check is not None and not settings.fleet_checks:
        raise RequestRefused(
            "failed",
            "`rollout: {check: ...}` would run a command on the coordinator's machine, and the"
            " coordinator was started without that permission; start it with `check` in the cluster"
            " file (`dora cluster install` for a service; otherwise end it, then `dora cluster up`)"
            " or with --set fleet_checks=1; nodes keep running",
        )


def step_towards(
    copy: Copy, difference: fleets.CopyDifference, comparison: Comparison, stepped_at: float
) -> FleetStep | None:
    """Return the next step; None: wait for the one in progress. Raises Held.

    ``stepped_at``: when the last step ended.
    """
    live, number = comparison.registry.live_named(copy.name), copy.generation or 0
    if difference.action == "start" and copy.spec is not None:
        start = control.StartDataflow(spec=copy.spec)
        return FleetStep(copy.name, number, start, _build_of(copy.spec))
    if live is None or live.phase in (Phase.STOPPING, Phase.ROLLING_BACK):
        return None
    if difference.action in ("stop", "restart"):
        _require_released(comparison, live)
        if copy.spec is None:
            return FleetStep(copy.name, number, control.StopDataflow(dataflow=live.id))
        _require_place(copy.spec, comparison)
        replace = control.ReplaceDataflow(dataflow=live.id, spec=copy.spec)
        return FleetStep(copy.name, number, replace, _build_of(copy.spec))
    assert copy.spec is not None
    change = next_step(live.spec, copy.spec)
    if change is None:
        return _start_of_node(copy, difference, comparison, live, stepped_at)
    if isinstance(change, protocol.SetParam):
        call = control.CallRunner(dataflow=live.id, node=change.node, request=change)
        return FleetStep(copy.name, number, call)
    if isinstance(change, protocol.RemoveNode | protocol.ReplaceNode):
        name = change.node if isinstance(change, protocol.RemoveNode) else change.node.id
        _require_released(comparison, live, name)
        limit, force = comparison.generations.fleet.rollout.deadline, comparison.generations.status
        change = change.model_copy(update={"hold_limit": limit, "force": force.force})
    build = None
    if isinstance(change, protocol.AddNode | protocol.ReplaceNode):
        build = _build_of(copy.spec, change.node, replaces=live.id)
    return FleetStep(copy.name, number, control.ChangeGraph(dataflow=live.id, change=change), build)


def _start_of_node(
    copy: Copy,
    difference: fleets.CopyDifference,
    comparison: Comparison,
    live: Dataflow,
    stepped_at: float,
) -> FleetStep | None:
    """Return the start of a node that was stopped or has failed."""
    stopped = [one.node for one in difference.nodes if one.action == "started"]
    if not stopped:
        return None
    is_certain = stopped[0] in failed_parts(live)
    if not is_certain and not comparison.has_reported(live, since=stepped_at):
        return None
    start = protocol.RestartNode(node=stopped[0], force=True)
    call = control.CallRunner(dataflow=live.id, node=stopped[0], request=start)
    return FleetStep(copy.name, copy.generation or 0, call)


def _require_released(comparison: Comparison, live: Dataflow, node: str | None = None) -> None:
    """Raise Held if a node holds updates, unless the roll-out is forced."""
    held = None if comparison.generations.status.force else comparison.held(live, node)
    if held is not None:
        raise Held(held)


def _require_place(spec: DataflowSpec, comparison: Comparison) -> None:
    """Raise Held if a dataflow would be stopped for a start that fails."""
    try:
        place(spec, comparison.membership.connected())
    except RequestRefused as problem:
        raise Held(str(problem).replace("\n", "; ")) from problem


def _build_of(
    spec: DataflowSpec, node: ResolvedNode | None = None, replaces: str | None = None
) -> BuildDataflow | None:
    """Return the build of what was sent, on the machines of its nodes; None without code."""
    nodes = spec.resolved.nodes if node is None else (node,)
    sent = {one.id for one in nodes} & spec.code.keys()
    if not sent:
        return None
    built = tuple(
        one if one.id in sent else one.model_copy(update={"build": (), "git": None})
        for one in nodes
    )
    whole = spec.with_nodes(built).model_copy(update={"build_id": None, "places": {}})
    if node is not None:
        whole = whole.model_copy(
            update={"built_on": {}, "code": {node.id: spec.code[node.id]}, "name": None}
        )
    return BuildDataflow(spec=whole, settings=BuildSettings(parallel=True), replaces=replaces)
