"""DORA_NODE_CONFIG: the environment variable by which a runner configures a node that it starts."""

import json
import os
from typing import Any, Self

from dora_node_api import _version
from dora_node_api.errors import ControlError, SetUpError
from dora_node_api.frozen import FrozenRecord
from dora_node_api.protocol.messages import (
    PROTOCOL_VERSION,
    OperatorConfig,
    record_from_json,
    to_json,
)

CONFIG_VARIABLE = "DORA_NODE_CONFIG"
_WRITER = "python"
"""Value of `dora`: distinguishes this variable from the one of other programs of that name."""


class LaunchConfig(FrozenRecord):
    """Content of DORA_NODE_CONFIG: where the node connects, and as which node."""

    socket: str
    node_id: str
    incarnation: int
    runner: str = ""
    """Mark by which leftover processes of a killed runner are found."""
    receives_arrays: bool = True
    """Whether the node has an input that is not a timer: then it imports pyarrow before Hello."""
    operators: tuple[OperatorConfig, ...] = ()
    """Operators of the node, constructed before Hello."""

    def to_text(self) -> str:
        """Return the value of the environment variable."""
        values: dict[str, Any] = {"dora": _WRITER, "protocol": PROTOCOL_VERSION}
        values |= to_json(self)
        return json.dumps({k: value for k, value in values.items() if value not in (None, "", [])})

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse the environment variable. Raises SetUpError with what to do."""
        try:
            values = json.loads(text)
        except ValueError:
            values = None
        if not isinstance(values, dict) or values.get("dora") != _WRITER:
            raise SetUpError(
                f"{CONFIG_VARIABLE} was not written by this dora, but by another program of that"
                " name (dora-rs?); start the dataflow with the `dora` of the package dora-cli of"
                " dora for Python"
            )
        if values.get("protocol") != PROTOCOL_VERSION:
            package = os.path.dirname(_version.__file__)  # noqa: PTH120 - pathlib is slow to import
            raise SetUpError(
                f"the runner uses version {values.get('protocol')} of the node protocol, this"
                f" dora_node_api ({package}) version {PROTOCOL_VERSION}; install the same version"
                " of dora on both sides"
            )
        try:
            config: Self = record_from_json(cls, values, CONFIG_VARIABLE)
        except ControlError as error:
            raise SetUpError(str(error)) from error
        return config
