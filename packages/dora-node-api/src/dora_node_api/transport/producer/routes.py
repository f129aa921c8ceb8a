"""The routes of one node's outputs: which queues each output goes to; the Sender holds its lock."""

from __future__ import annotations

from collections.abc import Iterator

from dora_node_api.transport.producer.pool import Pool
from dora_node_api.transport.producer.route import Route
from dora_node_api.transport.shared.owned_lock import OwnedLock


class OutputRoutes:
    """The routes of one output, and the lock that keeps sends that wait in order."""

    __slots__ = ("backpressure", "order", "routes")

    def __init__(self) -> None:
        self.routes: tuple[Route, ...] = ()
        """drop_oldest queues first: they never make the others wait."""
        self.backpressure = False
        self.order = OwnedLock()

    def set_routes(self, routes: tuple[Route, ...]) -> None:
        """Replace the routes."""
        self.routes = tuple(sorted(routes, key=lambda route: route.backpressure))
        self.backpressure = any(route.backpressure for route in routes)


class RouteTable:
    """All routes of a sender, by output; and the removed ones whose consumers still hold blocks."""

    def __init__(self) -> None:
        self.outputs: dict[str, OutputRoutes] = {}
        self._lingering: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        for output in self.outputs.values():
            yield from output.routes
        yield from self._lingering

    def has(self, queue: int) -> bool:
        """Whether a queue has a route."""
        return any(route.spec.queue == queue for route in self)

    def of(self, output: str) -> tuple[Route, ...]:
        """Return the routes of an output."""
        known = self.outputs.get(output)
        return () if known is None else known.routes

    def add(self, output: str, route: Route) -> None:
        """Send an output to a further queue."""
        known = self.outputs.setdefault(output, OutputRoutes())
        known.set_routes((*known.routes, route))

    def remove(self, queue: int, pool: Pool) -> None:
        """Close the route of a queue. Blocks that its consumer still holds stay until released."""
        for output in self.outputs.values():
            for route in output.routes:
                if route.spec.queue == queue:
                    while route.evict(None):
                        pass
                    route.close()
                    self._lingering.append(route)
                    output.set_routes(tuple(r for r in output.routes if r is not route))
        self._sweep_lingering(pool)

    def sweep(self, pool: Pool) -> None:
        """Take back every released block, in any order."""
        for output in self.outputs.values():
            for route in output.routes:
                if route.order or route.slotless:
                    route.sweep(pool)
        if self._lingering:
            self._sweep_lingering(pool)

    def _sweep_lingering(self, pool: Pool) -> None:
        self._lingering = [route for route in self._lingering if route.sweep(pool)]

    def evict_oldest(self) -> bool:
        """Drop the oldest message of the drop_oldest queue that keeps the most bytes waiting."""
        candidates = [route for route in self if not route.backpressure and not route.removed]
        candidates.sort(key=Route.outstanding_bytes, reverse=True)
        return any(route.evict("memory") for route in candidates)

    def queue_to_wait_for(self) -> Route | None:
        """Return a backpressure queue whose consumer may release memory, or None.

        Queues with waiting messages precede those whose consumers only hold some.
        """
        candidates = [route for route in self if route.backpressure and not route.removed]
        for route in candidates:
            if route.waiting():
                return route
        return next((route for route in candidates if route.outstanding_bytes()), None)

    def held_bytes(self) -> dict[str, int]:
        """Return the bytes that are queued or held by the consumer, by edge."""
        held = {route.spec.edge: route.outstanding_bytes() for route in self}
        return {edge: size for edge, size in held.items() if size}

    def close(self) -> None:
        """Close every route."""
        for output in self.outputs.values():
            for route in output.routes:
                route.close()
            output.set_routes(())
