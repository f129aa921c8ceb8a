"""`dora schema`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from dora_cli import output


class FileKind(StrEnum):
    """Files that have a schema."""

    DATAFLOW = "dataflow"
    MODULE = "module"
    CLUSTER = "cluster"
    FLEET = "fleet"


def main(kind: Annotated[FileKind, typer.Argument(help="Kind of file.")]) -> None:
    """Print the JSON Schema of dataflow, module, cluster or fleet files, for editors."""
    import json

    from dora_config.render.schema import json_schema

    output.write(json.dumps(json_schema(kind.value), indent=2, ensure_ascii=False))
