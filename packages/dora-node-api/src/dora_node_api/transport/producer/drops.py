"""The warning about the first message that an edge drops; names the setting to change."""

from __future__ import annotations

from dora_node_api.transport.producer.route import Route
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.queue import shortfall


def reason_for_drops(route: Route, pool_cap: int) -> str:
    """Return why messages of an edge are dropped and what to do."""
    spec = route.spec
    if route.evicted_for_memory:
        return (
            f"{spec.edge}: the {pool_cap:,} bytes of shared memory of {spec.producer} are full, so"
            " the oldest waiting messages are dropped from now on. To prevent this, raise its"
            " `shared_memory_pool_size` (DORA_NODE_SHM_POOL_SIZE)"
        )
    if not route.words[layout.P_EVICTED]:
        return (
            f"{spec.edge}: {route.urgent_bytes // layout.RECORD_SIZE} requests and goals wait, "
            "as many as fit, so further ones are dropped from now on. Read them sooner, send "
            "fewer at once, or set `queue_policy: backpressure`"
        )
    if (short := shortfall(spec, route.ends)) is not None:
        return f"{spec.edge}: the oldest messages are dropped from now on, as {short}"
    return (
        f"{spec.edge}: the input is full ({spec.bound} messages wait), so its oldest "
        "messages are dropped from now on. To prevent this, raise `queue_size` of the input or "
        "set its `queue_policy: backpressure`"
    )
