"""Command `dora ros2`: shows a ROS graph and exchanges messages with it, without a dataflow.

All results go to standard output, one line each; everything else to standard error. Names come
from other nodes, so control characters in them are shown escaped.
"""

from __future__ import annotations

import difflib
import itertools
import json
import logging
import math
import os
import platform
import signal
import sys
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import zenoh

from dora_cli import output
from dora_config.terminal import visible
from dora_ros2 import __version__
from dora_ros2.connection import RosConnection, RosNode
from dora_ros2.definitions.description import (
    PARTS,
    Structure,
    TypeDescription,
    action_structures,
    describe,
    full_name,
)
from dora_ros2.errors import DefinitionError, MalformedMessage, Ros2Error, SessionError
from dora_ros2.types import ActionType, MessageType, ServiceType, Types
from dora_ros2.zenoh.actions import ActionClient, CancelCode, GoalState
from dora_ros2.zenoh.endpoints import ServiceClient, direct
from dora_ros2.zenoh.graph import Channel, Graph, Profile
from dora_ros2.zenoh.node_services import (
    DESCRIBE,
    decoded,
    encoded,
    find_description,
    parameter_service,
)
from dora_ros2.zenoh.session import ZenohSession, open_router
from dora_ros2.zenoh.tokens import (
    NO_HASH,
    OLD_ATTACHMENT,
    SPACE,
    Attachment,
    EndpointToken,
    Kind,
    Qos,
    absolute,
    decode_attachment,
)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_END_SECONDS = 1.5
"""Seconds to cancel a goal after a signal."""
_CANCEL_SECONDS = 0.7
"""Seconds for the answer to a goal, and for the answer to its cancellation."""
_CANCELED = {
    CancelCode.ACCEPTED: "canceling the goal",
    CancelCode.REJECTED: "the server refuses to cancel the goal, which runs on",
    CancelCode.GOAL_ENDED: "the goal has ended, or the server did not accept it",
}
_QUIET_SECONDS = 0.5
"""Seconds without a change after which the graph counts as complete."""
_GRAPH_SECONDS = 5.0
"""Longest wait for a graph that changes without end, or for a server."""
_ITEMS = 16
"""Items of a list that `echo` shows."""
_WINDOW = 1000
"""Messages that `hz` counts."""
_at_signal: list[Callable[[], None]] = []
"""Functions that a thread calls before a signal ends the process: they cancel goals."""
_interrupted = threading.Event()
_PROFILES = {
    frozenset(): "unknown without nodes of ROS itself",
    frozenset({Profile.HUMBLE}): "humble: types have no hashes",
    frozenset({Profile.REP2016}): "rep2016: types have hashes (Jazzy and newer)",
    frozenset(Profile): "both: Humble and newer nodes, which cannot talk to each other",
}
_ROUTER_SECONDS = 5.0
"""Longest wait of `dora ros2 check` for a router."""
_NO_ROUTER = (
    "start the router of ROS: `ros2 run rmw_zenoh_cpp rmw_zenohd` (without ROS: `dora ros2"
    " router`), and the nodes with RMW_IMPLEMENTATION=rmw_zenoh_cpp; if it runs on another"
    " machine, give its address: --router tcp/HOST:7447"
)


@dataclass(frozen=True)
class Reach:
    """Place of the graph that a command reads, and the time that it waits for the graph."""

    word: str
    domain: int | None
    router: str
    config: str
    types: Types
    humble: bool
    timeout: float


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the process during the block.

    A thread ends the process: KeyboardInterrupt can be lost in finalizers, callbacks and waits that
    begin at that moment, and the main thread may be inside Zenoh.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    wakeup = signal.set_wakeup_fd(writer)
    handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
    ending = threading.Thread(target=_end_at_signal, args=[reader], daemon=True)
    ending.start()
    try:
        yield
    finally:
        if _interrupted.is_set():
            ending.join()
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(writer)
        ending.join()
        os.close(reader)


def _end_at_signal(reader: int) -> None:
    """End the process at a signal, even if the output blocks."""
    found = os.read(reader, 1)
    if not found:
        return
    _interrupted.set()
    for call in list(_at_signal):
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        thread.join(_END_SECONDS)
    os._exit(128 + found[0])


def log_escaped() -> None:
    """Write log lines to stderr, escaped."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_EscapedText("%(message)s"))
    logging.basicConfig(handlers=[handler])


def _open(
    reach: Reach, wait_seconds: float, on_state: Callable[[str | None], None] | None = None
) -> ZenohSession:
    return ZenohSession(
        domain=reach.domain,
        router=reach.router,
        config=reach.config,
        # The router has the complete graph at once; peers would have to discover each other.
        client=True,
        wait_seconds=wait_seconds,
        profile=Profile.HUMBLE if reach.humble else None,
        on_state=on_state,
    )


@contextmanager
def _session(reach: Reach) -> Iterator[ZenohSession]:
    """Open a session, and wait until its graph is complete."""

    def on_state(state: str | None) -> None:
        if state:
            output.remark(f"dora ros2 {state}; {_NO_ROUTER}")

    with _open(reach, reach.timeout, on_state) as session:
        session.load_graph(_GRAPH_SECONDS)
        _settle(session)
        yield session


@contextmanager
def _node(reach: Reach) -> Iterator[RosNode]:
    """Open a node for a command, and wait until its graph is complete."""
    with _session(reach) as session:
        yield RosNode(session, f"dora_ros2_{reach.word.replace('-', '_')}")


def _settle(session: RosConnection) -> None:
    """Wait until the graph stops changing."""
    deadline = time.monotonic() + _GRAPH_SECONDS
    while time.monotonic() < deadline:
        seen = session.graph.changes
        if not session.wait_for(partial(_has_changed, seen), _QUIET_SECONDS):
            return


def _has_changed(seen: int, graph: Graph) -> bool:
    return graph.changes != seen


def list_graph(reach: Reach, *, as_json: bool) -> None:
    with _session(reach) as session:
        graph = session.graph
        rows = _node_rows(graph) if reach.word == "nodes" else _channel_rows(graph, reach.word)
        if as_json:
            for row in rows:
                output.write(_json(row))
        elif not rows:
            output.remark("none")
        else:
            output.table([name.upper() for name in rows[0]], [list(row.values()) for row in rows])


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


def show_messages(
    reach: Reach, topic: str, type_name: str | None, count: int, *, full: bool
) -> None:
    with _node(reach) as node:
        name = absolute(topic)
        publishers = _publishers(node.connection, reach, name, wait=type_name is None)
        if type_name:
            type = reach.types.message(type_name)
            if publishers and all(one.type != type.name for one in publishers):
                raise Ros2Error(f"the publishers of {name} have the type {publishers[0].type}")
        else:
            type = MessageType(find_description(node, reach.types, publishers[0]))
        received: SimpleQueue[bytes] = SimpleQueue()
        node.subscription(
            name, type, lambda payload, _: received.put(payload), _matching_qos(publishers)
        )
        shown = 0
        while not count or shown < count:
            try:
                value = type.decode(received.get()).to_pylist()[0]
            except MalformedMessage as error:
                output.remark(f"ignored a message: {error}")
                continue
            output.write(_json(value, items=None if full else _ITEMS))
            shown += 1


def hz(reach: Reach, topic: str, lines: int) -> None:
    with _node(reach) as node:
        name = absolute(topic)
        publishers = _publishers(node.connection, reach, name)
        seen: deque[tuple[float, int]] = deque(maxlen=_WINDOW)
        count = before = 0

        def on_message(payload: bytes, _: Attachment | None) -> None:
            nonlocal count
            count += 1
            seen.append((time.monotonic(), len(payload)))

        node.subscription(name, publishers[0], on_message, _matching_qos(publishers))
        for _ in range(lines) if lines else itertools.count():
            threading.Event().wait(1.0)
            times, sizes = zip(*list(seen), strict=True) if seen else ((), ())
            if count == before:
                output.write("no new messages")
            elif len(times) > 1 and times[-1] > times[0]:
                rate = (len(times) - 1) / (times[-1] - times[0])
                gap = max(later - one for one, later in itertools.pairwise(times))
                kilobytes = sum(sizes) / len(sizes) * rate / 1000
                output.write(
                    f"{rate:.2f} Hz, longest gap {gap * 1000:.1f} ms, {kilobytes:.1f} kB/s"
                )
            else:
                output.write(f"{count} messages")
            before = count


def show_type(reach: Reach, name: str) -> None:
    if not name.startswith("/"):
        output.write(_described(reach.types, name).concatenated_text.rstrip("\n"))
        return
    with _node(reach) as node:
        endpoints = node.connection.graph.endpoints(name=name)
        if not endpoints:
            raise DefinitionError(f"no topic or service {name}", remedy="`dora ros2 topics`")
        found = find_description(node, reach.types, endpoints[0])
        output.write(f"# {found.name} {endpoints[0].hash}\n{found.concatenated_text}".rstrip("\n"))


def _described(types: Types, name: str) -> TypeDescription:
    """Return the message, service or action of a name. Raises DefinitionError."""
    problems = []
    for full in dict.fromkeys(full_name(name, kind) for kind in PARTS):
        try:
            return types.description(full)
        except DefinitionError as error:
            if error.file:
                raise
            problems.append(error)
    raise problems[0]


def pub(reach: Reach, topic: str, type_name: str, text: str, rate: float, count: int) -> None:
    value, wanted = _value(text), full_name(type_name, "msg")
    try:
        reach.types.message(wanted).encode(value)  # a mistake is shown before anything waits
    except DefinitionError as error:
        if error.file:
            raise
    with _node(reach) as node:
        name = absolute(topic)

        def subscriptions(graph: Graph) -> list[EndpointToken]:
            return graph.endpoints(Kind.SUBSCRIPTION, name=name)

        if not rate and not subscriptions(node.connection.graph):
            output.remark(f"dora ros2 waits for a subscription of {name}")
            node.connection.wait_for(subscriptions, reach.timeout)
        others = subscriptions(node.connection.graph)
        fitting = [one for one in others if one.type == wanted]
        if others and not fitting:
            raise Ros2Error(f"the subscriptions of {name} have the type {others[0].type}")
        if not others and not rate:
            raise Ros2Error(f"{name} has no subscription; repeat with --rate to wait for one")
        if fitting:
            type = MessageType(find_description(node, reach.types, fitting[0]))
        else:
            type = reach.types.message(wanted)
        payload = type.encode(value)
        publisher = node.publisher(name, type)
        last = count or (0 if rate else 1)
        for sent in itertools.count(1):
            publisher.publish(payload)
            if sent == last:
                break
            threading.Event().wait(1 / (rate or 1.0))
        _settle(node.connection)
        output.write(f"published {last} to {name}")


def call(reach: Reach, service: str, text: str, type_name: str | None) -> None:
    with _node(reach) as node:
        name = absolute(service)
        if type_name:
            type = reach.types.service(type_name)
        else:
            server = _server(node, reach, Kind.SERVER, name, "services")
            type = ServiceType(find_description(node, reach.types, server))
        output.write(_json(_ask(node, reach, name, type, _value(text))))


def _ask(node: RosNode, reach: Reach, name: str, type: ServiceType, value: Any) -> dict[str, Any]:
    """Return the answer of a service. Raises MalformedMessage, NoReply."""
    type.request.encode(value)  # a mistake is shown before anything waits
    client: ServiceClient = node.service_client(name, type)
    client.wait_for_server(min(reach.timeout, _GRAPH_SECONDS))
    answer: dict[str, Any] = client.ask(value, timeout=reach.timeout).result()[0].as_py()
    return answer


def _server(
    node: RosNode, reach: Reach, kind: Kind, name: str, word: str, part: str = ""
) -> EndpointToken:
    """Return an endpoint of the server of a service or action; wait for it.

    Raises DefinitionError.
    """

    def found(graph: Graph) -> list[EndpointToken]:
        return graph.endpoints(kind, name=f"{name}{part}")

    if not found(node.connection.graph):
        output.remark(f"dora ros2 waits for a server of {name}")
        if not node.connection.wait_for(found, min(reach.timeout, _GRAPH_SECONDS)):
            raise DefinitionError(f"no server of {name}", remedy=f"`dora ros2 {word}`")
    return found(node.connection.graph)[0]


def send_goal(reach: Reach, action: str, text: str, type_name: str | None) -> int:
    with _node(reach) as node:
        name = absolute(action)
        types = reach.types
        type = types.action(type_name) if type_name else _served_action(node, reach, name)
        client = ActionClient(node, name, type)
        client.wait_for_server(min(reach.timeout, _GRAPH_SECONDS))
        goal_id, answered = uuid.uuid4().bytes, threading.Event()
        _at_signal.append(partial(_cancel, client, goal_id, answered))
        try:
            accepted = client.send_goal(
                _value(text),
                goal_id=goal_id,
                timeout=reach.timeout,
                on_feedback=lambda one: output.write(f"feedback {_json(one.to_pylist()[0])}"),
            )
            accepted.add_done_callback(lambda _: answered.set())
            accepted.result()
            result = client.result(goal_id).result()
        finally:
            _at_signal.clear()
        output.write(f"{result.state.name.lower()} {_json(result.result.to_pylist()[0])}")
        return 0 if result.state is GoalState.SUCCEEDED else 1


def _cancel(client: ActionClient, goal_id: bytes, answered: threading.Event) -> None:
    """Cancel the goal of a command that is interrupted."""
    answered.wait(_CANCEL_SECONDS)  # a server does not cancel what it has not accepted yet
    try:
        code = client.cancel(goal_id, timeout=_CANCEL_SECONDS).result()
    except Ros2Error as error:
        output.remark(f"the goal may run on: {error}")
    else:
        output.remark(_CANCELED.get(code, _CANCELED[CancelCode.GOAL_ENDED]))


def _served_action(node: RosNode, reach: Reach, name: str) -> ActionType:
    """Return the type of an action, with the definitions of its server. Raises DefinitionError."""
    served: dict[str, Structure] = {}
    for kind, word in (
        (Kind.PUBLISHER, "feedback"),
        (Kind.SERVER, "get_result"),
        (Kind.SERVER, "send_goal"),
    ):
        endpoint = _server(node, reach, kind, name, "actions", f"/_action/{word}")
        described = find_description(node, reach.types, endpoint)
        served |= described.structures
    action = described.name.removesuffix("_SendGoal")
    parts = [served[f"{action}_{part}"] for part in ("Goal", "Result", "Feedback")]
    served |= {one.name: one for one in action_structures(action, *parts)}
    return ActionType(describe(action, served.__getitem__))


def param(reach: Reach, of: str, name: str | None, text: str | None) -> int:
    with _node(reach) as node:

        def ask(word: str, request: Mapping[str, Any]) -> dict[str, Any]:
            service = f"{absolute(of)}/{word}"
            return _ask(node, reach, service, parameter_service(reach.types, word), request)

        if text is not None:
            changed = {"name": name, "value": encoded(_value(text))}
            for result in ask("set_parameters", {"parameters": [changed]})["results"]:
                if not result["successful"]:
                    output.remark(f"{name}: {result['reason'] or 'refused'}")
                    return 1
        declared = ask("list_parameters", {})["result"]["names"]
        if name not in (None, *declared):
            similar = difflib.get_close_matches(name, declared, n=1)
            hint = f' (did you mean "{similar[0]}"?)' if similar else ""
            raise Ros2Error(f"{of} has no parameter {name}{hint}")
        names = [name] if name else declared
        values = ask("get_parameters", {"names": names})["values"]
        for name, value in zip(names, map(decoded, values), strict=False):
            output.write(f"{name}: {_json(list(value) if isinstance(value, bytes) else value)}")
        return 0


def run_router(listen: str) -> None:
    with open_router(listen):
        output.write(f"the router listens at {listen}; Ctrl-C ends it")
        threading.Event().wait()


def _publishers(
    session: RosConnection, reach: Reach, name: str, *, wait: bool = True
) -> list[EndpointToken]:
    """Return the publishers of a topic; wait for one, unless the type is given."""

    def found(graph: Graph) -> list[EndpointToken]:
        return graph.endpoints(Kind.PUBLISHER, name=name)

    if wait and not found(session.graph):
        output.remark(f"dora ros2 waits for a publisher of {name}")
        if not session.wait_for(found, reach.timeout):
            raise Ros2Error(f"no publisher of {name} within {reach.timeout:g} s")
    return found(session.graph)


def _matching_qos(publishers: Sequence[EndpointToken]) -> Qos:
    """Return a QoS that receives kept messages if any publisher keeps them."""
    kept = [one.qos for one in publishers if one.qos.transient_local]
    return kept[0] if kept else Qos()


def _value(text: str) -> Any:
    """Read a value that a user wrote. Raises Ros2Error."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Ros2Error(
            f"{text!r} is not valid JSON: {error}; write values as '{{\"data\": 1}}'"
        ) from None


def _json(value: Any, items: int | None = None) -> str:
    """Return a value as JSON; numbers that JSON does not have are texts: "NaN", "-Infinity".

    A list of more than `items` items ends in a text with their number.
    """

    def plain(value: Any) -> Any:
        match value:
            case dict():
                return {name: plain(item) for name, item in value.items()}
            case list() | tuple():
                shown = [plain(item) for item in value[:items]]
                more = [f"... {len(value)} items"] if len(shown) < len(value) else []
                return shown + more
            case float() if not math.isfinite(value):
                return json.dumps(value)
            case _:
                return value

    return json.dumps(plain(value), ensure_ascii=False)


@dataclass
class KeyTraffic:
    """Number of messages of one key, with size and attachment of the first one."""

    count: int = 0
    size: int = 0
    attachment: str | None = None


def check(reach: Reach, capture_file: str, seconds: float) -> int:
    """Print what is found, write the capture, return 0 if there are nodes."""
    wait_seconds = min(reach.timeout, _ROUTER_SECONDS)
    try:
        session = _open(reach, wait_seconds)
    except SessionError as error:
        _line("router", f"{error}; {_NO_ROUTER}")
        return 1
    with session:
        session.wait_for(lambda _: session.waiting is None, wait_seconds)
        seen, domains = _watch(session, seconds)
        graph = session.graph
        for word, text in _report(session, seen, domains, reach.types):
            _line(word, text)
        capture = {
            "versions": {
                "dora-ros2": __version__,
                "eclipse-zenoh": version("eclipse-zenoh"),
                "python": platform.python_version(),
                "system": platform.platform(),
            },
            "router": session.router,
            "waiting": session.waiting,
            "domain": session.domain,
            "domains": domains,
            "tokens": graph.texts(),
            "skipped_tokens": sorted(graph.skipped),
            "messages": {key: asdict(one) for key, one in sorted(seen.items())},
        }
    path = Path(capture_file)
    try:
        path.write_text(json.dumps(capture, indent=1) + "\n")
    except OSError as error:
        raise Ros2Error(f"cannot write the capture {path}: {error.strerror}") from None
    _line("capture", f"{path}: names, types and sizes, no message contents; attach it to an issue")
    return 0 if graph.nodes() else 1


def _watch(session: ZenohSession, seconds: float) -> tuple[dict[str, KeyTraffic], Counter[int]]:
    """Return the messages of some seconds by key, and the number of nodes by domain."""
    seen: dict[str, KeyTraffic] = {}
    everyone = Graph()

    def on_sample(sample: zenoh.Sample) -> None:
        one = seen.setdefault(str(sample.key_expr), KeyTraffic())
        one.count += 1
        if one.attachment is None and sample.attachment is not None:
            one.attachment = sample.attachment.to_bytes().hex()
            one.size = len(sample.payload)

    everything = session.raw.declare_subscriber(f"{session.domain}/**", direct(on_sample))
    tokens = session.raw.liveliness().declare_subscriber(
        f"{SPACE}/**", direct(lambda sample: everyone.add(str(sample.key_expr))), history=True
    )
    threading.Event().wait(seconds)
    for watcher in (everything, tokens):
        watcher.undeclare()  # type: ignore[no-untyped-call]
    return seen, Counter(node.domain for node in everyone.nodes())


def _report(
    session: ZenohSession, seen: Mapping[str, KeyTraffic], domains: Mapping[int, int], types: Types
) -> Iterator[tuple[str, str]]:
    graph = session.graph
    if session.waiting:
        yield "router", f"none answers at {session.router}; {_NO_ROUTER}"
    else:
        yield "router", f"{session.router} answers"
    others = {domain: count for domain, count in domains.items() if domain != session.domain}
    text = f"{session.domain}, {len(graph.nodes())} nodes"
    if others:
        listed = ", ".join(f"{domain} ({count} nodes)" for domain, count in sorted(others.items()))
        text += f"; others: {listed}: choose one with ROS_DOMAIN_ID or --domain"
    yield "domain", text
    if not graph.nodes():
        yield (
            "nodes",
            "none: nodes must run with RMW_IMPLEMENTATION=rmw_zenoh_cpp; those on Fast DDS or"
            " Cyclone DDS are not visible here",
        )
    yield "profile", _PROFILES[frozenset(graph.profiles())]
    known, unknown = _types(graph, types)
    if known or unknown:
        yield "types", f"{known} known" + "".join(f"\n  {text}" for text in unknown)
    for word in ("topics", "services", "actions"):
        channels = getattr(graph, word)()
        if channels:
            yield word, str(len(channels))
            for name, channel in channels.items():
                endpoints = (*channel.offers, *channel.uses)
                differing = {(one.dds_name, one.hash): one for one in endpoints}
                if len(differing) > 1:
                    found = ", ".join(
                        f"{one.type} {one.hash} in {one.node.full_name}"
                        for one in differing.values()
                    )
                    yield name, f"no messages between endpoints whose types differ: {found}"
    yield "messages", _messages(seen)
    if graph.skipped:
        yield "tokens", f"{len(graph.skipped)} could not be read; the capture has them"


def _types(graph: Graph, types: Types) -> tuple[int, list[str]]:
    """Return how many types are known, and a text for each other one."""
    known, unknown, services = 0, [], graph.services()
    found: dict[tuple[str, str], set[str]] = {}
    for endpoint in graph.endpoints():
        if "/_action/" not in endpoint.name:
            users = found.setdefault((endpoint.type, endpoint.hash), set())
            users.add(endpoint.node.full_name)
    for (name, type_hash), users in sorted(found.items()):
        describers = [one for one in sorted(users) if f"{one}/{DESCRIBE}" in services]
        try:
            described = types.description(name)
            problem = f"has another hash here ({described.hash}): the ROS versions differ"
            is_known = type_hash in (described.hash, NO_HASH)
        except DefinitionError:
            is_known, problem = False, "is not installed"
        if is_known:
            known += 1
        elif describers:
            unknown.append(f"{name} {problem}; taken from {describers[0]}")
        else:
            unknown.append(
                f"{name} {problem}, and no node describes it: put its .msg, .srv or .action file"
                " beside the dataflow, or give its folder: --types"
            )
    return known, unknown


def _messages(seen: Mapping[str, KeyTraffic]) -> str:
    if not seen:
        return "none while watching; publishers with a token may wait for a subscription"
    old = without = 0
    for one in seen.values():
        try:
            old += decode_attachment(bytes.fromhex(one.attachment or "")).old
        except MalformedMessage:
            without += 1
    text = f"{sum(one.count for one in seen.values())} on {len(seen)} topics"
    if old:
        text += f"; {old} topics have {OLD_ATTACHMENT}"
    if without:
        text += f"; {without} topics have no attachment that can be read, so ROS drops them"
    return text


def _line(word: str, text: str) -> None:
    output.write(f"{word:<10} {text}")


class _EscapedText(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))
