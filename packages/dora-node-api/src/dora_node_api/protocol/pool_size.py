"""Size of a node's shared memory: from its configuration, the environment, or the default."""

from __future__ import annotations

import os

from dora_node_api.errors import SetUpError
from dora_node_api.protocol.messages import NodeConfig
from dora_node_api.transport import default_pool_cap

POOL_SIZE_VARIABLE = "DORA_NODE_SHM_POOL_SIZE"


def pool_size(config: NodeConfig) -> int:
    """Return the bytes of shared memory that a node may use.

    Raises SetUpError for an invalid environment variable.
    """
    if config.pool_size is not None:
        return config.pool_size
    given = os.environ.get(POOL_SIZE_VARIABLE, "").strip()
    if not given:
        return default_pool_cap()
    size = parse_pool_size(given)
    if size is None:
        raise SetUpError(
            f"{POOL_SIZE_VARIABLE}={given!r} is not a valid size; give bytes, or 256MB for example"
        )
    return size


def parse_pool_size(given: str) -> int | None:
    """Return the bytes of a size such as `256MB` (powers of 1024); None if it is invalid."""
    number = given.strip().upper().removesuffix("B").removesuffix("I")
    unit = 1
    if number[-1:] in ("K", "M", "G"):
        unit = 1024 ** ("KMG".index(number[-1]) + 1)
        number = number[:-1]
    try:
        size = int(float(number) * unit)
    except (ValueError, OverflowError):
        return None
    return size if size > 0 else None
