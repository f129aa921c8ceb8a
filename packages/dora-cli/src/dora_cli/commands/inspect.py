"""`dora inspect top`: another way to say `dora top`."""

from __future__ import annotations

from dora_cli import options
from dora_cli.commands.top import top

app = options.application()


@app.callback()
def inspect() -> None:
    """Look at running dataflows."""


app.command(name="top")(top)
