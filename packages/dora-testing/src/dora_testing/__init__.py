"""Tests of dataflows in virtual time: the real nodes as child processes, or a fleet in one process.

The fleet is in `dora_testing.cluster`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dora_testing._version import __version__ as __version__

if TYPE_CHECKING:
    from dora_testing.errors import FlowError as FlowError
    from dora_testing.flow import Flow as Flow
    from dora_testing.recordings import from_recording as from_recording
    from dora_testing.results import Output as Output, Result as Result, Sent as Sent
    from dora_testing.sources import (
        Source as Source,
        from_function as from_function,
        from_messages as from_messages,
    )

_HOMES = {
    "Flow": "flow",
    "FlowError": "errors",
    "Output": "results",
    "Result": "results",
    "Sent": "results",
    "Source": "sources",
    "from_function": "sources",
    "from_messages": "sources",
    "from_recording": "recordings",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a name when it is used: every pytest imports this package, also without dataflows."""
    if (module := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)
