"""Tests of dataflows: the real nodes as child processes, one event at a time, in virtual time."""

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
