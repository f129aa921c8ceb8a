"""The command `dora ros2`, a plug-in of dora-cli."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from dora_cli import output
from dora_ros2 import commands
from dora_ros2.commands import Reach
from dora_ros2.errors import Ros2Error
from dora_ros2.types import Types
from dora_ros2.zenoh.session import ROUTER

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


Domain = Annotated[
    int | None, typer.Option("--domain", metavar="ID", help="Default: ROS_DOMAIN_ID, or 0.")
]
RouterAddress = Annotated[
    str, typer.Option("--router", metavar="ADDRESS", help="Default: tcp/localhost:7447.")
]
ConfigFile = Annotated[str, typer.Option("--config", metavar="FILE", help="Zenoh session file.")]
TypeFolders = Annotated[
    list[str] | None,
    typer.Option("--types", metavar="DIR", help="Folder of definitions (repeatable)."),
]
Humble = Annotated[
    bool, typer.Option("--humble", help="Talk to ROS 2 Humble; detected by default.")
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout", parser=parse_number, metavar="SECONDS", help="Longest wait in seconds."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@app.callback(rich_help_panel="ROS 2")
def ros2(context: typer.Context) -> None:
    commands.log_escaped()
    context.with_resource(commands.ended_by_signals())


def run(arguments: Sequence[str]) -> int:
    """Run `dora ros2` with its arguments; return the exit code."""
    try:
        typer.main.get_command(app).main(args=list(arguments), prog_name="dora ros2")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0


def _reach(
    word: str,
    domain: int | None,
    router: str,
    config: str,
    folders: list[str] | None,
    *,
    humble: bool,
    timeout: float,
) -> Reach:
    for folder in folders or ():
        if not Path(folder).is_dir():
            raise typer.BadParameter(f"{folder} is not a folder", param_hint="'--types'")
    return Reach(word, domain, router, config, Types(folders or ()), humble, timeout)


def _run(command: Callable[[], int | None]) -> None:
    try:
        code = command() or 0
    except Ros2Error as error:
        output.failure(str(error))
        code = 1
    raise typer.Exit(code)


def list_(
    context: typer.Context,
    as_json: AsJson = False,
    domain: Domain = None,
    router: RouterAddress = "",
    config: ConfigFile = "",
    types: TypeFolders = None,
    humble: Humble = False,
    timeout: Timeout = 30.0,
) -> None:
    word = context.info_name or ""
    reach = _reach(word, domain, router, config, types, humble=humble, timeout=timeout)
    _run(lambda: commands.list_graph(reach, as_json=as_json))


for _word in ("topics", "nodes", "services", "actions"):
    app.command(_word, help=f"List {_word}.")(list_)


@app.command("echo")
def echo(
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    type_name: Annotated[
        str | None, typer.Argument(metavar="[TYPE]", help="Default: that of the topic.")
    ] = None,
    count: Annotated[
        int, typer.Option("--count", "-n", metavar="N", help="End after so many messages.")
    ] = 0,
    full: Annotated[bool, typer.Option("--full", help="Do not shorten long lists.")] = False,
    domain: Domain = None,
    router: RouterAddress = "",
    config: ConfigFile = "",
    types: TypeFolders = None,
    humble: Humble = False,
    timeout: Timeout = 30.0,
) -> None:
    """Print the messages of a topic as JSON."""
    reach = _reach("echo", domain, router, config, types, humble=humble, timeout=timeout)
    _run(lambda: commands.show_messages(reach, topic, type_name, count, full=full))


@app.command("hz")
def hz(
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    count: Annotated[
        int, typer.Option("--count", "-n", metavar="N", help="End after so many lines.")
    ] = 0,
    domain: Domain = None,
    router: RouterAddress = "",
    config: ConfigFile = "",
    types: TypeFolders = None,
    humble: Humble = False,
    timeout: Timeout = 30.0,
) -> None:
    """Measure the rate of a topic, each second."""
    reach = _reach("hz", domain, router, config, types, humble=humble, timeout=timeout)
    _run(lambda: commands.hz(reach, topic, count))


@app.command("type")
def type_(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    domain: Domain = None,
    router: RouterAddress = "",
    config: ConfigFile = "",
    types: TypeFolders = None,
    humble: Humble = False,
    timeout: Timeout = 30.0,
) -> None:
    """Print the definition of a type or of a topic's type."""
    reach = _reach("type", domain, router, config, types, humble=humble, timeout=timeout)
    _run(lambda: commands.show_type(reach, name))


@app.command("pub")
def pub(
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    type_name: Annotated[str, typer.Argument(metavar="TYPE")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The message as JSON.")],
    rate: Annotated[
        float,
        typer.Option("--rate", parser=parse_number, help="Repeat so often per second."),
    ] = 0.0,
    count: Annotated[
        int, typer.Option("--count", "-n", metavar="N", help="End after so many messages.")
    ] = 0,
    domain: Domain = None,
    router: RouterAddress = "",
    config: ConfigFile = "",
    types: TypeFolders = None,
    humble: Humble = False,
    timeout: Timeout = 30.0,
) -> None:
    """Publish a message."""
    reach = _reach("pub", domain, router, config, types, humble=humble, timeout=timeout)
    _run(lambda: commands.pub(reach, topic, type_name, value, rate, count))


@app.command("call")
def call(
    service: Annotated[str, typer.Argument(metavar="SERVICE")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The request as JSON.")],
    type_name: Annotated[
        str | None,
        typer.Option("--type", metavar="TYPE", help="Default: that of the server."),
    ] = None,
    domain: Domain = None,
    router: RouterAddress = "",
    config: ConfigFile = "",
    types: TypeFolders = None,
    humble: Humble = False,
    timeout: Timeout = 30.0,
) -> None:
    """Call a service and print the response."""
    reach = _reach("call", domain, router, config, types, humble=humble, timeout=timeout)
    _run(lambda: commands.call(reach, service, value, type_name))


@app.command("send-goal")
def send_goal(
    action: Annotated[str, typer.Argument(metavar="ACTION")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The goal as JSON.")],
    type_name: Annotated[
        str | None,
        typer.Option("--type", metavar="TYPE", help="Default: that of the server."),
    ] = None,
    domain: Domain = None,
    router: RouterAddress = "",
    config: ConfigFile = "",
    types: TypeFolders = None,
    humble: Humble = False,
    timeout: Timeout = 30.0,
) -> None:
    """Send a goal, print feedback and result."""
    reach = _reach("send-goal", domain, router, config, types, humble=humble, timeout=timeout)
    _run(lambda: commands.send_goal(reach, action, value, type_name))


@app.command("param")
def param(
    node: Annotated[str, typer.Argument(metavar="NODE")],
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Default: list all with their values.")
    ] = None,
    value: Annotated[
        str | None, typer.Argument(metavar="[VALUE]", help="New value, as JSON.")
    ] = None,
    domain: Domain = None,
    router: RouterAddress = "",
    config: ConfigFile = "",
    types: TypeFolders = None,
    humble: Humble = False,
    timeout: Timeout = 30.0,
) -> None:
    """List, read or change the parameters of a node."""
    reach = _reach("param", domain, router, config, types, humble=humble, timeout=timeout)
    _run(lambda: commands.param(reach, node, name, value))


@app.command("router")
def router_(
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS", help="Address to listen on.")
    ] = ROUTER,
) -> None:
    """Run a router of Zenoh, for a computer without ROS."""
    _run(lambda: commands.run_router(listen))


@app.command("check")
def check(
    capture: Annotated[
        str, typer.Option("--capture", metavar="FILE", help="File for an issue report.")
    ] = "ros2-capture.json",
    seconds: Annotated[
        float,
        typer.Option("--seconds", parser=parse_number, help="How long to watch topics."),
    ] = 5.0,
    domain: Domain = None,
    router: RouterAddress = "",
    config: ConfigFile = "",
    types: TypeFolders = None,
    humble: Humble = False,
    timeout: Timeout = 30.0,
) -> None:
    """Check the connection to a robot; write a capture of it."""
    reach = _reach("check", domain, router, config, types, humble=humble, timeout=timeout)
    _run(lambda: commands.check(reach, capture, seconds))
