"""Command `dora ros2`: looks at a ROS graph and talks to it, without a dataflow.

All results go to standard output, one line each; everything else to standard error.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from queue import SimpleQueue
from typing import Any

from dora_ros2.definitions.description import TypeDescription, full_name
from dora_ros2.errors import DefinitionError, MalformedMessage, Ros2Error
from dora_ros2.types import MessageType, ServiceType, Types
from dora_ros2.zenoh import keys
from dora_ros2.zenoh.actions import ActionClient
from dora_ros2.zenoh.attachment import Attachment
from dora_ros2.zenoh.descriptions import find_description
from dora_ros2.zenoh.graph import Channel, Graph, Profile
from dora_ros2.zenoh.node import Node
from dora_ros2.zenoh.parameters import ParameterClient
from dora_ros2.zenoh.qos import Qos
from dora_ros2.zenoh.session import Session

_QUIET_SECONDS = 0.5
"""The graph is complete after so long without a change."""
_GRAPH_SECONDS = 5.0
_ITEMS = 16
"""Items of a list that `echo` shows."""


def main(arguments: Sequence[str]) -> int:
    """Run `dora ros2` with its arguments; return the exit code."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    parsed = argument_parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed) or 0)
    except Ros2Error as error:
        print(f"[ERROR]\n{error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stdout = None
        return 0


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of `dora ros2`; the reference page is made from it."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--domain", type=int, help="default: ROS_DOMAIN_ID, or 0")
    common.add_argument("--router", default="", help="default: tcp/localhost:7447")
    common.add_argument("--config", default="", help="Zenoh session file")
    common.add_argument("--types", action="append", default=[], help="folder of definitions")
    common.add_argument("--humble", action="store_true", help="talk to ROS 2 Humble; else detected")
    common.add_argument("--timeout", type=float, default=30.0, help="seconds; default: 30")
    parser = argparse.ArgumentParser(
        prog="dora ros2",
        description="Look at the graph of ROS 2 nodes that use rmw_zenoh, and talk to them.",
    )
    words = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(word: str, run: Callable[[Any], int | None], help: str, *names: str) -> Any:
        added = words.add_parser(word, parents=[common], help=help, description=help)
        for name in names:
            added.add_argument(name)
        added.set_defaults(run=run)
        return added

    for word in ("topics", "nodes", "services", "actions"):
        listed = command(word, _list, f"List {word}.")
        listed.set_defaults(word=word)
        listed.add_argument("--json", action="store_true")
    echo = command("echo", _echo, "Print the messages of a topic as JSON.", "topic")
    echo.add_argument("type", nargs="?", help="default: that of the topic")
    echo.add_argument("-n", "--count", type=int, default=0, help="end after so many messages")
    echo.add_argument("--full", action="store_true", help="do not shorten long lists")
    hz = command("hz", _hz, "Measure the rate of a topic, each second.", "topic")
    hz.add_argument("-n", "--count", type=int, default=0, help="end after so many lines")
    command("type", _type, "Print the definition of a type or of a topic's type.", "name")
    pub = command("pub", _pub, "Publish a message.", "topic", "type", "value")
    pub.add_argument("--rate", type=float, default=0.0, help="repeat so often per second")
    pub.add_argument("-n", "--count", type=int, default=0, help="end after so many messages")
    call = command("call", _call, "Call a service and print the response.", "service", "value")
    call.add_argument("--type", dest="type", help="default: that of the server")
    goal = command("send-goal", _send_goal, "Send a goal, print feedback and result.")
    for name in ("action", "value"):
        goal.add_argument(name)
    goal.add_argument("--type", dest="type", help="default: that of the server")
    param = command("param", _param, "List, read or change the parameters of a node.", "node")
    param.add_argument("name", nargs="?", help="default: list all with their values")
    param.add_argument("value", nargs="?", help="new value, as JSON")
    check = command("check", _check, "Check the connection to a robot; write a capture of it.")
    check.add_argument("--capture", default="ros2-capture.json", help="file for an issue report")
    check.add_argument("--seconds", type=float, default=5.0, help="how long to watch topics")
    return parser


@contextmanager
def _session(parsed: Any) -> Iterator[Session]:
    """A session whose graph is complete."""

    def on_state(state: str | None) -> None:
        if state:
            print(
                f"dora ros2 {state}; start one with `ros2 run rmw_zenoh_cpp rmw_zenohd`, or give"
                " its address: --router tcp/HOST:7447",
                file=sys.stderr,
            )

    with Session(
        domain=parsed.domain,
        router=parsed.router,
        config=parsed.config,
        # Its router knows the whole graph; peers would have to find each other first.
        client=True,
        profile=Profile.HUMBLE if parsed.humble else None,
        on_state=on_state,
    ) as session:
        _settle(session)
        yield session


def _settle(session: Session) -> None:
    """Wait until the graph stops changing."""
    deadline = time.monotonic() + _GRAPH_SECONDS
    while time.monotonic() < deadline:
        seen = session.graph.changes
        if not session.wait_for(partial(_has_changed, seen), _QUIET_SECONDS):
            return


def _has_changed(seen: int, graph: Graph) -> bool:
    return graph.changes != seen


def _list(parsed: Any) -> None:
    with _session(parsed) as session:
        graph = session.graph
        rows = _node_rows(graph) if parsed.word == "nodes" else _channel_rows(graph, parsed.word)
        if parsed.json:
            for row in rows:
                print(json.dumps(row, ensure_ascii=False))
        else:
            _table(rows)


def _node_rows(graph: Graph) -> list[dict[str, Any]]:
    endpoints = graph.endpoints()
    return [
        {
            "node": node.full_name,
            "endpoints": sum(endpoint.node == node for endpoint in endpoints),
            "session": node.zid,
        }
        for node in graph.nodes()
    ]


def _channel_rows(graph: Graph, word: str) -> list[dict[str, Any]]:
    channels: Mapping[str, Channel] = getattr(graph, word)()
    offers, uses = ("publishers", "subscriptions") if word == "topics" else ("servers", "clients")
    rows = []
    for name, channel in channels.items():
        row = {
            word[:-1]: name,
            "type": ", ".join(channel.types),
            offers: len(channel.offers),
            uses: len(channel.uses),
        }
        if word == "topics":
            row["qos"] = "; ".join(sorted({str(one.qos) for one in channel.offers}))
        rows.append(row)
    return rows


def _echo(parsed: Any) -> None:
    with _session(parsed) as session:
        node = Node(session, "dora_ros2_echo")
        name = keys.absolute(parsed.topic)
        type, qos = _topic_type(session, node, parsed, name)
        received: SimpleQueue[bytes] = SimpleQueue()
        node.subscription(name, type, lambda payload, _: received.put(payload), qos)
        shown = 0
        while not parsed.count or shown < parsed.count:
            try:
                value = type.decode(received.get()).to_pylist()[0]
            except MalformedMessage as error:
                print(f"ignored a message: {error}", file=sys.stderr)
                continue
            print(_json(value if parsed.full else _short(value)), flush=True)
            shown += 1


def _hz(parsed: Any) -> None:
    with _session(parsed) as session:
        node = Node(session, "dora_ros2_hz")
        name = keys.absolute(parsed.topic)
        wire, qos = _wire_type(session, parsed, name)
        times: list[float] = []
        sizes: list[int] = []

        def on_message(payload: bytes, _: Attachment | None) -> None:
            times.append(time.monotonic())
            sizes.append(len(payload))

        node.subscription(name, wire, on_message, qos)
        shown = 0
        while not parsed.count or shown < parsed.count:
            threading.Event().wait(1.0)
            seen, size = times[-1000:], sizes[-1000:]
            del times[:-1000], sizes[:-1000]
            if len(seen) > 1 and seen[-1] > seen[0]:
                rate = (len(seen) - 1) / (seen[-1] - seen[0])
                gap = max(after - before for before, after in pairwise(seen))
                kilobytes = sum(size) / len(size) * rate / 1000
                print(f"{rate:.2f} Hz, longest gap {gap * 1000:.1f} ms, {kilobytes:.1f} kB/s")
            else:
                print(f"{len(seen)} messages")
            sys.stdout.flush()
            shown += 1


def _type(parsed: Any) -> None:
    types = Types(parsed.types)
    if not parsed.name.startswith("/"):
        print(types.description(full_name(parsed.name, "msg")).concatenated_text, end="")
        return
    with _session(parsed) as session:
        graph = session.graph
        found = graph.topics().get(parsed.name) or graph.services().get(parsed.name)
        if found is None:
            raise DefinitionError(f"no topic or service {parsed.name}", remedy="`dora ros2 topics`")
        endpoint = (*found.offers, *found.uses)[0]
        described = find_description(Node(session, "dora_ros2_type"), types, endpoint)
        print(f"# {described.name} {endpoint.hash}\n{described.concatenated_text}", end="")


def _pub(parsed: Any) -> None:
    type = Types(parsed.types).message(parsed.type)
    payload = type.encode(_value(parsed.value))
    with _session(parsed) as session:
        name = keys.absolute(parsed.topic)
        publisher = Node(session, "dora_ros2_pub").publisher(name, type)
        if (
            not session.wait_for(
                lambda graph: name in graph.topics() and graph.topics()[name].uses,
                parsed.timeout if not parsed.rate else 0,
            )
            and not parsed.rate
        ):
            raise Ros2Error(f"{name} has no subscription; repeat with --rate to wait for one")
        sent = 0
        while True:
            publisher.publish(payload)
            sent += 1
            if sent == parsed.count or (not parsed.rate and not parsed.count):
                break
            threading.Event().wait(1 / (parsed.rate or 1.0))
        _settle(session)
        print(f"published {sent} to {name}")


def _call(parsed: Any) -> None:
    with _session(parsed) as session:
        node = Node(session, "dora_ros2_call")
        name = keys.absolute(parsed.service)
        types = Types(parsed.types)
        if parsed.type:
            type = types.service(parsed.type)
        else:
            servers = session.graph.services().get(name, Channel(name)).offers
            if not servers:
                raise DefinitionError(f"no server of {name}", remedy="`dora ros2 services`")
            type = _service_type(find_description(node, types, servers[0]))
        client = node.service_client(name, type)
        payload = type.request.encode(_value(parsed.value))
        client.wait_for_server(min(parsed.timeout, _GRAPH_SECONDS))
        response = client.call(payload, timeout=parsed.timeout).result()
        print(_json(type.response.decode(response).to_pylist()[0]))


def _send_goal(parsed: Any) -> None:
    with _session(parsed) as session:
        name = keys.absolute(parsed.action)
        found = session.graph.actions().get(name)
        if found is None and not parsed.type:
            raise DefinitionError(f"no server of {name}", remedy="`dora ros2 actions`")
        type = Types(parsed.types).action(parsed.type or (found.types[0] if found else ""))
        client = ActionClient(Node(session, "dora_ros2_goal"), name, type)
        client.wait_for_server(min(parsed.timeout, _GRAPH_SECONDS))
        goal = client.send_goal(
            _value(parsed.value),
            timeout=parsed.timeout,
            on_feedback=lambda one: print("feedback", _json(one.to_pylist()[0]), flush=True),
        ).result()
        result = goal.result().result()
        print(result.state.name.lower(), _json(result.result.to_pylist()[0]))


def _param(parsed: Any) -> int:
    with _session(parsed) as session:
        client = ParameterClient(
            Node(session, "dora_ros2_param"), keys.absolute(parsed.node), Types(parsed.types)
        )
        client.wait_for_server(min(parsed.timeout, _GRAPH_SECONDS))
        if parsed.value is not None:
            refused = client.set({parsed.name: _value(parsed.value)}).result()[parsed.name]
            if refused is not None:
                print(f"{parsed.name}: {refused}", file=sys.stderr)
                return 1
        names = [parsed.name] if parsed.name else client.list().result()
        for name, value in client.get(names).result().items():
            print(f"{name}: {_json(value if not isinstance(value, bytes) else list(value))}")
        return 0


def _check(parsed: Any) -> int:
    from dora_ros2.check import check

    return check(parsed)


def _topic_type(session: Session, node: Node, parsed: Any, name: str) -> tuple[MessageType, Qos]:
    """Return the type and QoS with which to subscribe to a topic."""
    types = Types(parsed.types)
    publishers = _publishers(session, parsed, name)
    if parsed.type:
        type = types.message(parsed.type)
    else:
        type = MessageType(find_description(node, types, publishers[0]))
    return type, _matching_qos(publishers)


def _wire_type(session: Session, parsed: Any, name: str) -> tuple[keys.NamedType, Qos]:
    publishers = _publishers(session, parsed, name)
    first = publishers[0]
    return keys.NamedType(first.dds_name, first.hash), _matching_qos(publishers)


def _publishers(session: Session, parsed: Any, name: str) -> list[Any]:
    def found(graph: Graph) -> list[Any]:
        return graph.topics().get(name, Channel(name)).offers

    if not found(session.graph) and not getattr(parsed, "type", None):
        print(f"dora ros2 waits for a publisher of {name}", file=sys.stderr)
        if not session.wait_for(found, parsed.timeout):
            raise Ros2Error(f"no publisher of {name} within {parsed.timeout:g} s")
    return found(session.graph)


def _matching_qos(publishers: Sequence[Any]) -> Qos:
    """Receive kept messages if any publisher keeps them."""
    kept = [one.qos for one in publishers if one.qos.transient_local]
    return kept[0] if kept else Qos()


def _service_type(described: TypeDescription) -> ServiceType:
    def message(suffix: str) -> MessageType:
        return MessageType(described.of(f"{described.name}_{suffix}"))

    return ServiceType(
        described, request=message("Request"), response=message("Response"), event=message("Event")
    )


def _value(text: str) -> Any:
    """Read a value that a user wrote. Raises Ros2Error."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Ros2Error(
            f"{text!r} is not valid JSON: {error}; write values as '{{\"data\": 1}}'"
        ) from None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _short(value: Any) -> Any:
    """Return a value whose long lists end in a text with their length."""
    if isinstance(value, dict):
        return {name: _short(item) for name, item in value.items()}
    if isinstance(value, list):
        items = [_short(item) for item in value[:_ITEMS]]
        return [*items, f"... {len(value)} items"] if len(value) > _ITEMS else items
    return value


def _table(rows: Iterable[Mapping[str, Any]]) -> None:
    rows = list(rows)
    if not rows:
        print("none", file=sys.stderr)
        return
    lines = [
        [name.upper() for name in rows[0]],
        *([str(cell) for cell in row.values()] for row in rows),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )
