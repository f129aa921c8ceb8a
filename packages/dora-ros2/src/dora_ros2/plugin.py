"""The command `dora ros2`, a plug-in of dora-cli.

Functions import Zenoh and pyarrow, because `dora --help` imports this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from dora_cli import output
from dora_ros2.errors import Ros2Error
from dora_ros2.zenoh import ROUTER

app = typer.Typer(
    help="Look at the graph of ROS 2 nodes that use rmw_zenoh, and talk to them.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def parse_number(text: str) -> float:
    """Return a number of at least 0; raises BadParameter."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise typer.BadParameter(f"expected a number of at least 0, found {text}")
    return value


def reach(
    context: typer.Context,
    domain: Annotated[
        int | None, typer.Option("--domain", metavar="ID", help="Default: ROS_DOMAIN_ID, or 0.")
    ] = None,
    router: Annotated[
        str, typer.Option("--router", metavar="ADDRESS", help="Default: tcp/localhost:7447.")
    ] = "",
    config: Annotated[
        str, typer.Option("--config", metavar="FILE", help="Zenoh session file.")
    ] = "",
    types: Annotated[
        list[str] | None,
        typer.Option("--types", metavar="DIR", help="Folder of definitions (repeatable)."),
    ] = None,
    humble: Annotated[
        bool, typer.Option("--humble", help="Talk to ROS 2 Humble; detected by default.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", parser=parse_number, metavar="SECONDS", help="Longest wait in seconds."
        ),
    ] = 30.0,
) -> None:
    """Take the options of all commands that reach a graph."""
    from dora_ros2.commands import Reach
    from dora_ros2.types import Types

    for folder in types or ():
        if not Path(folder).is_dir():
            raise typer.BadParameter(f"{folder} is not a folder", param_hint="'--types'")
    word = context.info_name or ""
    context.obj = Reach(word, domain, router, config, Types(types or ()), humble, timeout)


class ReachCommand(TyperCommand):
    """Command with the options of :func:`reach`, whose function finds them in `context.obj`."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        options = typer.Typer(add_completion=False)
        options.command()(reach)
        self._reach: Any = typer.main.get_command(options)
        self.params += self._reach.params

    def invoke(self, ctx: Any) -> Any:
        ctx.invoke(
            self._reach.callback,
            **{one.name: ctx.params.pop(one.name) for one in self._reach.params},
        )
        return super().invoke(ctx)


AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@app.callback(rich_help_panel="ROS 2")
def ros2(context: typer.Context) -> None:
    from dora_ros2 import commands

    commands.log_escaped()
    context.with_resource(commands.ended_by_signals())


def run(arguments: Sequence[str]) -> int:
    """Run `dora ros2` with its arguments; return the exit code."""
    try:
        typer.main.get_command(app).main(args=list(arguments), prog_name="dora ros2")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0


def _run(command: Callable[[], int | None]) -> None:
    try:
        code = command() or 0
    except Ros2Error as error:
        output.failure(str(error))
        code = 1
    raise typer.Exit(code)


def list_(context: typer.Context, as_json: AsJson = False) -> None:
    from dora_ros2 import commands

    _run(lambda: commands.list_graph(context.obj, as_json=as_json))


for _word in ("topics", "nodes", "services", "actions"):
    app.command(_word, cls=ReachCommand, help=f"List {_word}.")(list_)


@app.command("echo", cls=ReachCommand)
def echo(
    context: typer.Context,
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    type_name: Annotated[
        str | None, typer.Argument(metavar="[TYPE]", help="Default: the type of the topic.")
    ] = None,
    count: Annotated[
        int, typer.Option("--count", "-n", metavar="N", help="End after N messages.")
    ] = 0,
    full: Annotated[bool, typer.Option("--full", help="Do not shorten long lists.")] = False,
) -> None:
    """Print the messages of a topic as JSON."""
    from dora_ros2 import commands

    _run(lambda: commands.show_messages(context.obj, topic, type_name, count, full=full))


@app.command("hz", cls=ReachCommand)
def hz(
    context: typer.Context,
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    count: Annotated[
        int, typer.Option("--count", "-n", metavar="N", help="End after N lines.")
    ] = 0,
) -> None:
    """Measure the rate of a topic, each second."""
    from dora_ros2 import commands

    _run(lambda: commands.hz(context.obj, topic, count))


@app.command("type", cls=ReachCommand)
def type_(context: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Print the definition of a type or of a topic's type."""
    from dora_ros2 import commands

    _run(lambda: commands.show_type(context.obj, name))


@app.command("pub", cls=ReachCommand)
def pub(
    context: typer.Context,
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    type_name: Annotated[str, typer.Argument(metavar="TYPE")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The message as JSON.")],
    rate: Annotated[
        float, typer.Option("--rate", parser=parse_number, help="Repeat so often per second.")
    ] = 0.0,
    count: Annotated[
        int, typer.Option("--count", "-n", metavar="N", help="End after N messages.")
    ] = 0,
) -> None:
    """Publish a message."""
    from dora_ros2 import commands

    _run(lambda: commands.pub(context.obj, topic, type_name, value, rate, count))


@app.command("call", cls=ReachCommand)
def call(
    context: typer.Context,
    service: Annotated[str, typer.Argument(metavar="SERVICE")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The request as JSON.")],
    type_name: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Default: the type of the server.")
    ] = None,
) -> None:
    """Call a service and print the response."""
    from dora_ros2 import commands

    _run(lambda: commands.call(context.obj, service, value, type_name))


@app.command("send-goal", cls=ReachCommand)
def send_goal(
    context: typer.Context,
    action: Annotated[str, typer.Argument(metavar="ACTION")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The goal as JSON.")],
    type_name: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Default: the type of the server.")
    ] = None,
) -> None:
    """Send a goal, print feedback and result."""
    from dora_ros2 import commands

    _run(lambda: commands.send_goal(context.obj, action, value, type_name))


@app.command("param", cls=ReachCommand)
def param(
    context: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE")],
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Default: list all with their values.")
    ] = None,
    value: Annotated[
        str | None, typer.Argument(metavar="[VALUE]", help="New value, as JSON.")
    ] = None,
) -> None:
    """List, read or change the parameters of a node."""
    from dora_ros2 import commands

    _run(lambda: commands.param(context.obj, node, name, value))


@app.command("router")
def router_(
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS", help="Address to listen on.")
    ] = ROUTER,
) -> None:
    """Run a router of Zenoh, for a computer without ROS."""
    from dora_ros2 import commands

    _run(lambda: commands.run_router(listen))


@app.command("check", cls=ReachCommand)
def check(
    context: typer.Context,
    capture: Annotated[
        str, typer.Option("--capture", metavar="FILE", help="File for an issue report.")
    ] = "ros2-capture.json",
    seconds: Annotated[
        float, typer.Option("--seconds", parser=parse_number, help="How long to watch topics.")
    ] = 5.0,
) -> None:
    """Check the connection to a robot; write a capture of it."""
    from dora_ros2 import commands

    _run(lambda: commands.check(context.obj, capture, seconds))
