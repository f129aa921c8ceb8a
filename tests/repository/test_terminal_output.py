"""All text for terminals passes functions that escape control characters."""

from __future__ import annotations

import ast

from support.sources import Source, packaged_sources

RAW = {
    "dora_cli.output": "escapes",
    "dora_cli.screen": "escapes the lines; moves the cursor",
    "dora_config.errors": "escapes",
    "dora_config.service_logging": "escapes",
    "dora_ros2.commands": "escapes",
    "dora_cli.main": "prints its version",
    "dora_config.launcher": "prints its version and names of commands",
    "dora_config.streams": "prints an error of the system",
    "dora_coordinator.command": "prints its port and counts",
}
"""Modules of commands that write to the terminal themselves."""
PROCESSES = {
    "dora_cluster.remote_program": "read by dora-cli",
    "dora_cli.self_test": "nodes",
    "dora_ui.__main__": "read by dora-cli",
    "dora_daemon.build.__main__": "read by the daemon",
    "dora_daemon.inspection": "read by the daemon",
    "dora_daemon.link": "read by the runner",
    "dora_recordings": "read by the daemon",
    "dora_daemon.runner": "written to the log of the runner",
    "dora_node_api": "of nodes",
}
"""Modules and sub-packages of processes whose streams are no terminal."""


def _writes(source: Source) -> set[str]:
    """Return the ways in which a module writes to standard streams."""
    found = set()
    for node in ast.walk(source.tree):
        match node:
            case ast.Call(func=ast.Name(id="print")):
                found.add("print")
            case ast.Call(func=ast.Attribute(attr="echo" | "secho" | "basicConfig" as name)):
                found.add(name)
            case ast.Call(func=ast.Name(id="Console")):
                found.add("Console")
            case ast.Attribute(
                value=ast.Attribute(value=ast.Name(id="sys"), attr="stdout" | "stderr"),
                attr="write" | "writelines" | "buffer" as name,
            ):
                found.add(name)
            case ast.Attribute(value=ast.Name(id="output"), attr="raw"):
                found.add("output.raw")
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="os"), attr="write"),
                args=[ast.Constant(value=1 | 2), *_],
            ):
                found.add("os.write")
    return found


def _is_of_a_process(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in PROCESSES)


def test_only_escaping_modules_write_to_the_terminal() -> None:
    writers = {source.module: found for source in packaged_sources() if (found := _writes(source))}
    others = {
        name: found
        for name, found in writers.items()
        if name not in RAW and not _is_of_a_process(name)
    }
    assert others == {}, "write with dora_cli.output, or dora_config.terminal.visible"
    assert set(RAW) <= set(writers)
