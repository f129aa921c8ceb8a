"""`dora-foxglove`: checks that the libraries are installed, then runs the node."""

from __future__ import annotations

import os
import sys

from dora_config.installation import wheel_command

from .viewer_node import CannotShow, run_viewer

LIBRARIES = ('"foxglove-sdk>=0.22"', '"foxglove-schemas-protobuf>=0.3"', '"protobuf>=5"')
"""Libraries of the extra `foxglove` of this wheel, quoted for a shell."""
_RECORDINGS = "dora_recordings"
"""Package with the messages of Foxglove, which exported recordings contain as well."""


def main() -> None:
    """Run the node; exits with 1 and one sentence if it cannot start."""
    try:
        from .foxglove_node import starter

        start = starter(os.environ)
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        remedy = f"pip install {' '.join(LIBRARIES)}"
        if missing == _RECORDINGS:
            remedy = wheel_command("dora-recordings")
        sys.exit(
            f"dora-foxglove needs {missing}; install it in the environment of the node with:"
            f" {remedy}"
        )
    except CannotShow as error:
        sys.exit(str(error))
    run_viewer(start)
