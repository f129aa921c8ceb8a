"""The status board: one shared memory per dataflow with the counters of every edge and node."""

from __future__ import annotations


class NodeWords:
    """A node's health counter on the board. The node beats, the runner reads."""

    def beat(self) -> None:
        """Say that the node is alive. Costs a tenth of a microsecond."""
        raise NotImplementedError

    @property
    def beats(self) -> int:
        raise NotImplementedError

    @property
    def last_beat_ns(self) -> int:
        """CLOCK_MONOTONIC of the last beat; 0 before the first."""
        raise NotImplementedError

    def set_waiting(self, waiting: bool) -> None:
        """A node asleep in `next()` counts as alive: True before it sleeps, False after."""
        raise NotImplementedError

    @property
    def waiting(self) -> bool:
        raise NotImplementedError


class Board:
    """The mapped board. Areas are allocated by the runner alone; nodes attach and get offsets."""

    fd: int
    size: int

    @classmethod
    def create(cls, size: int = 64 * 1024 * 1024) -> Board:
        """Make a board of ``size`` bytes. Pages are only used as areas are allocated."""
        raise NotImplementedError

    @classmethod
    def attach(cls, fd: int, size: int) -> Board:
        """Map the board that another process made. Takes over ``fd`` and closes it with the board."""
        raise NotImplementedError

    def allocate_edge(self, bound: int) -> tuple[int, int]:
        """Area and ledger slots for a new edge (runner). Raises BoardFull."""
        raise NotImplementedError

    def free_edge(self, area: int) -> None:
        """Give an edge's area back, once neither end uses it any more (runner)."""
        raise NotImplementedError

    def allocate_node(self) -> int:
        """Area for a node's health words (runner). Raises BoardFull."""
        raise NotImplementedError

    def free_node(self, area: int) -> None:
        raise NotImplementedError

    def node_words(self, area: int) -> NodeWords:
        raise NotImplementedError

    def edge_words(self, area: int) -> memoryview:
        """The edge's words, as a memoryview of format `Q`; see layout.py for the indices."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the descriptor back; the mapping goes when the last user of it does."""
        raise NotImplementedError
