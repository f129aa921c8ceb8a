"""Imports form no circles and point one way between sub-packages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

import pytest
from support.sources import ROOT, Source, packaged_sources, tracked_files

LAYERS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "dora_config": (
        (
            "errors",
            "ids",
            "access",
            "access_token",
            "addresses",
            "atomic_write",
            "control_plane",
            "_version",
            "spawn_argv",
            "process_identity",
            "machine_identity",
            "frozen",
            "file_store",
            "installation",
            "linux",
            "plugins",
            "program",
            "quick_imports",
            "retry",
            "service_logging",
            "streams",
            "terminal",
        ),
        ("yaml",),
        ("disk_space",),
        ("dataflow",),
        ("cluster",),
        ("render",),
        ("protocol", "history"),
        ("transfers", "zygote_process"),
        ("launcher",),
    ),
    "dora_node_api": (
        (
            "_version",
            "errors",
            "frozen",
            "ids",
            "joining",
            "loaded_libraries",
            "plugins",
            "queue_policy",
        ),
        ("transport.shared",),
        ("data",),
        ("transport",),
        ("protocol",),
        ("logging", "virtual_time"),
        ("backends",),
        ("events",),
        ("joined",),
        ("node", "operators", "testing", "builder", "launch", "tracing", "zygote"),
    ),
    "dora_coordinator": (
        ("settings", "_version"),
        ("state",),
        ("links",),
        ("dataflow",),
        ("fleet",),
        ("coordinator",),
        ("telemetry",),
        ("queries",),
        ("io",),
        ("command",),
    ),
    "dora_daemon": (
        (
            "_version",
            "out_dir",
            "lifecycle_lines",
            "daemon_threads",
            "signatures",
        ),
        ("process_tree",),
        ("build.python_env", "build.arrow_versions"),
        ("runner", "link", "inspection", "code"),
        ("build",),
        ("agent",),
        ("command",),
    ),
    "dora_daemon.runner": (
        ("errors",),
        ("machine",),
        ("dispatcher",),
        ("logs",),
        ("process",),
        ("nodes",),
        ("link",),
        ("service",),
        ("control",),
        ("foreground",),
        ("background", "spare"),
        ("__main__",),
    ),
    "dora_daemon.link": (
        ("errors",),
        ("protocol",),
        ("io", "codecs"),
        ("streams",),
        ("peers",),
        ("process",),
        ("__main__",),
    ),
    "dora_cli": (
        (
            "_version",
            "polling",
            "templates",
            "self_test",
            "registry",
            "command",
        ),
        ("output",),
        (
            "errors",
            "screen",
            "options",
            "dataflow_file",
            "diagnosis",
            "plugin_commands",
            "page",
        ),
        ("coordinator",),
        ("logs", "topics", "monitor"),
        ("why",),
        ("shipping",),
        ("build",),
        ("live",),
        ("commands",),
        ("main",),
    ),
    "dora_cluster": (
        ("_version", "errors", "remote_program"),
        ("connection",),
        ("ssh",),
        ("remote_call",),
        ("bundle",),
        ("decisions",),
        ("coordinator", "machines", "ownership"),
        ("operations",),
        ("commands", "plugin"),
    ),
    "dora_recordings": (
        ("_version", "plugin"),
        (
            "arrow_messages",
            "mcap_file",
            "message_checks",
            "channel_statistics",
            "conversion",
            "foxglove_messages",
        ),
        ("reading", "writing", "status_file", "message_file"),
        ("recorder", "player", "merging", "replaying", "received", "export"),
        ("recorders", "client"),
        ("formats",),
        ("commands",),
    ),
    "dora_gate": (("_version", "gate"), ("options",), ("node",)),
    "lerobot_robot_dora": (
        ("_version", "messages", "template"),
        ("chunks", "observations", "pictures", "events"),
        ("session", "config", "devices", "checkpoint"),
        ("client",),
        ("dorarobot", "dorateleoperator"),
        ("robot_node",),
        ("teleop_node", "steps_node", "policy_node"),
    ),
    "dora_testing": (
        ("_version", "errors", "schedule", "comparison"),
        ("sources", "messages", "queues"),
        ("recordings", "results", "children", "programs"),
        ("participants",),
        ("directing", "turns"),
        ("engine", "replaying"),
        ("flow",),
        ("cluster",),
        ("plugin", "command"),
    ),
    "dora_ui": (
        ("_version", "viewers"),
        ("connection", "rows"),
        ("feed", "streams", "actions", "page"),
        ("server", "graph_page"),
        ("page_process",),
        ("__main__",),
    ),
    "dora_ros2": (
        ("_version", "errors", "topics", "backlog", "drops"),
        ("definitions",),
        ("cdr",),
        ("types",),
        ("zenoh.graph", "zenoh.tokens"),
        ("connection",),
        ("zenoh",),
        ("dds",),
        ("transport",),
        ("bridge", "api", "commands"),
        ("block", "bags", "sessions"),
        ("plugin", "kind", "__main__"),
    ),
}
"""Modules and sub-packages of a package, from the lowest layer to the highest.

A module imports from its own layer and from lower ones. ARCHITECTURE.md shows the same order.
"""


def _modules() -> dict[str, Source]:
    return {source.module.removesuffix(".__init__"): source for source in packaged_sources()}


def _imports(source: Source, modules: Mapping[str, Source]) -> Iterator[tuple[int, str]]:
    """Yield line and module of every import of our own, also inside functions."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif node.module and not node.level:
            full = (f"{node.module}.{alias.name}" for alias in node.names)
            names = [name if name in modules else node.module for name in full]
        yield from ((node.lineno, name) for name in names if name in modules)


def test_imports_form_no_circles() -> None:
    modules = _modules()
    graph = {
        name: {found for _, found in _imports(source, modules)} - {name}
        for name, source in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("package", LAYERS)
def test_imports_between_sub_packages_have_one_direction(package: str) -> None:
    modules = _modules()
    wrong = [
        f"{source.name}:{line}: {package}.{own[1]} must not import {found}"
        for name, source in modules.items()
        if (own := _layer(package, name)) is not None
        for line, found in _imports(source, modules)
        if (other := _layer(package, found)) is not None
        if other[0] > own[0]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", LAYERS)
def test_each_module_has_a_layer(package: str) -> None:
    modules = _modules()
    assert not [
        name for name in modules if name.startswith(f"{package}.") and _layer(package, name) is None
    ]
    entries = {f"{package}.{entry}" for layer in LAYERS[package] for entry in layer}
    assert not entries - set(modules), "these do not exist"


def test_each_package_has_layers() -> None:
    packages = {name.partition(".")[0] for name in _modules() if "." in name}
    assert packages - set(LAYERS) == {"dora"}  # other names of what dora_node_api has


def _layer(package: str, module: str) -> tuple[int, str] | None:
    """Return index and entry of a module's layer; None: it has none, or is of another package."""
    if not module.startswith(f"{package}."):
        return None
    rest = module.removeprefix(f"{package}.")
    for index, layer in enumerate(LAYERS[package]):
        for entry in layer:
            if rest == entry or rest.startswith(f"{entry}."):
                return index, entry
    return None


@pytest.mark.parametrize(
    "document",
    [
        *("ARCHITECTURE.md", "CONTRIBUTING.md", "RECIPES.md"),
        *(f"docs/explanation/{name}.md" for name in ("trace-sample", "trace-start")),
    ],
)
def test_paths_in_documents_exist(document: str) -> None:
    tracked = ["/" + path.relative_to(ROOT).as_posix() for path in tracked_files()]
    named = re.findall(r"`([\w./{},-]+/[\w./{},-]*)`", (ROOT / document).read_text())
    wrong = [
        text
        for text in named
        for path in _alternatives(text.rstrip("/"))
        if re.match(r"(\w+/)+[\w.]+$", path) and not path.startswith("api/")
        if not any(name.endswith(f"/{path}") or f"/{path}/" in name for name in tracked)
    ]
    assert not wrong


def _alternatives(text: str) -> list[str]:
    """Return the paths that `a/{b,c}.py` stands for."""
    found = re.search(r"\{([^}]*)\}", text)
    if found is None:
        return [text]
    return [text.replace(found[0], one) for one in found[1].split(",")]
