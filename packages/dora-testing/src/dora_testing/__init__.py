"""Tests of dataflows in virtual time: the real nodes as child processes, or a fleet in one process.

The fleet is in `dora_testing.cluster`.
"""

from dora_testing._version import __version__
from dora_testing.errors import FlowError
from dora_testing.flow import Flow
from dora_testing.recordings import from_recording
from dora_testing.results import Output, Result, Sent
from dora_testing.sources import Source, from_function, from_messages

__all__ = [
    "Flow",
    "FlowError",
    "Output",
    "Result",
    "Sent",
    "Source",
    "__version__",
    "from_function",
    "from_messages",
    "from_recording",
]
