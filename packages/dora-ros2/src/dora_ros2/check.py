"""`dora ros2 check`: what a person with a ROS robot must see, and a capture for an issue report."""

from __future__ import annotations

import json
import platform
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import zenoh

from dora_ros2 import __version__
from dora_ros2.errors import DefinitionError, MalformedMessage, SessionError
from dora_ros2.types import Types
from dora_ros2.zenoh.attachment import OLD_ATTACHMENT, decode_attachment
from dora_ros2.zenoh.graph import Graph, Profile
from dora_ros2.zenoh.keys import ros_type
from dora_ros2.zenoh.session import Session, direct
from dora_ros2.zenoh.tokens import SPACE

_CONTROL = re.compile(r"[^\n\t -~\xa0-\u200d\u2010-\u2027\u202f-\u205f\u2070-\U0010ffff]")
"""Characters that control a terminal, or the direction of its text."""
_ROUTER_SECONDS = 5.0
_NO_ROUTER = (
    "start the router of ROS: `ros2 run rmw_zenoh_cpp rmw_zenohd`, and the nodes with"
    " RMW_IMPLEMENTATION=rmw_zenoh_cpp; if it runs on another machine, give its address:"
    " --router tcp/HOST:7447"
)


@dataclass
class Seen:
    """Messages of one key while the check watched."""

    count: int = 0
    size: int = 0
    attachment: bytes | None = None


def check(parsed: Any) -> int:
    """Print what is found, write the capture, return 0 if there are nodes."""
    wait_seconds = min(parsed.timeout, _ROUTER_SECONDS)
    try:
        session = Session(
            domain=parsed.domain,
            router=parsed.router,
            config=parsed.config,
            client=True,
            wait_seconds=wait_seconds,
        )
    except SessionError as error:
        _line("router", f"{error}; {_NO_ROUTER}")
        return 1
    with session:
        session.wait_for(lambda _: session.waiting is None, wait_seconds)
        seen: dict[str, Seen] = {}
        domains = _watch(session, seen, parsed.seconds)
        graph = session.graph
        for word, text in _report(session, seen, domains, Types(parsed.types)):
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
            "messages": {
                key: {
                    "count": one.count,
                    "size": one.size,
                    "attachment": None if one.attachment is None else one.attachment.hex(),
                }
                for key, one in sorted(seen.items())
            },
        }
    path = Path(parsed.capture)
    try:
        path.write_text(json.dumps(capture, indent=1) + "\n")
    except OSError as error:
        show(f"[ERROR]\ncannot write the capture {path}: {error.strerror}", error=True)
        return 1
    _line("capture", f"{path}: names, types and sizes, no message contents; attach it to an issue")
    return 0 if graph.nodes() else 1


def _watch(session: Session, seen: dict[str, Seen], seconds: float) -> dict[int, int]:
    """Count messages for some seconds; return the number of nodes by domain."""

    def on_sample(sample: zenoh.Sample) -> None:
        one = seen.setdefault(str(sample.key_expr), Seen())
        one.count += 1
        if one.attachment is None and sample.attachment is not None:
            one.attachment = sample.attachment.to_bytes()
            one.size = len(sample.payload)

    everything = session.raw.declare_subscriber(f"{session.domain}/**", direct(on_sample))
    everyone = Graph()

    def on_token(sample: zenoh.Sample) -> None:
        everyone.add(str(sample.key_expr))

    liveliness = session.raw.liveliness()
    tokens = liveliness.declare_subscriber(f"{SPACE}/**", direct(on_token), history=True)
    threading.Event().wait(seconds)
    for watcher in (everything, tokens):
        watcher.undeclare()  # type: ignore[no-untyped-call]
    domains: dict[int, int] = {}
    for node in everyone.nodes():
        domains[node.domain] = domains.get(node.domain, 0) + 1
    return domains


def _report(
    session: Session, seen: Mapping[str, Seen], domains: Mapping[int, int], types: Types
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
    yield "profile", _profile(graph)
    known, unknown = _types(graph, types)
    if known or unknown:
        yield "types", f"{known} known" + "".join(f"\n  {text}" for text in unknown)
    for word in ("topics", "services", "actions"):
        channels = getattr(graph, word)()
        if channels:
            yield word, str(len(channels))
            for name, channel in channels.items():
                if len(channel.types) > 1 or len({one.hash for one in channel.offers}) > 1:
                    yield name, f"its endpoints differ in their type: {', '.join(channel.types)}"
    yield "messages", _messages(seen)
    if graph.skipped:
        yield "tokens", f"{len(graph.skipped)} could not be read; the capture has them"


def _profile(graph: Graph) -> str:
    match graph.profiles():
        case found if found == {Profile.HUMBLE}:
            return "humble: types have no hashes"
        case found if found == {Profile.REP2016}:
            return "rep2016: types have hashes (Jazzy and newer)"
        case found if found:
            return "both: Humble and newer nodes, which cannot talk to each other"
        case _:
            return "unknown without nodes"


def _types(graph: Graph, types: Types) -> tuple[int, list[str]]:
    known, unknown = 0, []
    describers = {
        name.removesuffix("/get_type_description")
        for name in graph.services()
        if name.endswith("/get_type_description")
    }
    found: dict[tuple[str, str], set[str]] = {}
    for endpoint in graph.endpoints():
        if "/_action/" not in endpoint.name:
            users = found.setdefault((endpoint.dds_name, endpoint.hash), set())
            users.add(endpoint.node.full_name)
    for (dds, type_hash), users in sorted(found.items()):
        name = ros_type(dds)
        try:
            described = types.description(name)
            problem = f"has another hash here ({described.hash}): the ROS versions differ"
            is_known = type_hash in (described.hash, "TypeHashNotSupported")
        except DefinitionError:
            is_known, problem = False, "is not installed"
        if is_known:
            known += 1
        elif users & describers:
            unknown.append(f"{name} {problem}; taken from {sorted(users & describers)[0]}")
        else:
            unknown.append(
                f"{name} {problem}, and no node describes it: put its .msg, .srv or .action file"
                " beside the dataflow, or give its folder: --types"
            )
    return known, unknown


def _messages(seen: Mapping[str, Seen]) -> str:
    if not seen:
        return "none while watching; publishers with a token may wait for a subscription"
    old = without = 0
    for one in seen.values():
        try:
            attachment = None if one.attachment is None else decode_attachment(one.attachment)
        except MalformedMessage:
            attachment = None
        without += attachment is None
        old += attachment is not None and attachment.old
    text = f"{sum(one.count for one in seen.values())} on {len(seen)} topics"
    if old:
        text += f"; {old} topics have {OLD_ATTACHMENT}"
    if without:
        text += f"; {without} topics have no attachment that can be read, so ROS drops them"
    return text


def _line(word: str, text: str) -> None:
    show(f"{word:<10} {text}")


def show(text: str, *, error: bool = False) -> None:
    """Print a text at once, control characters in it as `\\u001b`."""
    escaped = _CONTROL.sub(lambda found: json.dumps(found[0])[1:-1], text)
    print(escaped, file=sys.stderr if error else sys.stdout, flush=True)
