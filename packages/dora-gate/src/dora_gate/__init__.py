"""The node `dora-gate`: decides which of several commands a robot obeys."""

from dora_gate._version import __version__ as __version__
