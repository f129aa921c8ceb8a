"""Statistics of the features of a dataset, as LeRobot normalizes with them (needs numpy)."""

from __future__ import annotations

from typing import Any


class FeatureStatistics:
    """Minimum, maximum, mean and deviation of each component."""

    def __init__(self) -> None:
        self._count = 0
        self._minimum: Any = None
        self._maximum: Any = None
        self._sum: Any = 0.0
        self._squares: Any = 0.0

    def add(self, values: Any) -> None:
        """Add an array of observations, each a row."""
        import numpy as np

        if not len(values):
            return
        rows = np.asarray(values, np.float64)
        low, high = rows.min(axis=0), rows.max(axis=0)
        first = self._minimum is None
        self._minimum = low if first else np.minimum(self._minimum, low)
        self._maximum = high if first else np.maximum(self._maximum, high)
        self._sum = self._sum + rows.sum(axis=0)
        self._squares = self._squares + (rows**2).sum(axis=0)
        self._count += len(rows)

    def merge(self, other: FeatureStatistics) -> None:
        import numpy as np

        if not other._count:
            return
        first = self._minimum is None
        self._minimum = other._minimum if first else np.minimum(self._minimum, other._minimum)
        self._maximum = other._maximum if first else np.maximum(self._maximum, other._maximum)
        self._sum = self._sum + other._sum
        self._squares = self._squares + other._squares
        self._count += other._count

    def as_lists(self, *, image: bool) -> dict[str, Any]:
        """Return the statistics; ``image``: with the shape of channels x 1 x 1."""
        import numpy as np

        mean = self._sum / self._count
        deviation = np.sqrt(np.maximum(self._squares / self._count - mean**2, 0.0))
        found = {"min": self._minimum, "max": self._maximum, "mean": mean, "std": deviation}
        shaped = {
            name: (value.reshape(-1, 1, 1) if image else value).tolist()
            for name, value in found.items()
        }
        return {**shaped, "count": [self._count]}
