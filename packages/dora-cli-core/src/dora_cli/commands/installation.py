"""Commands about this installation."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal, get_args

import typer

from dora_cli import output
from dora_cli._version import __version__
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort
from dora_cli.errors import CommandFailed

CLUSTER_FILE = Path("cluster.yml")


def doctor(
    cluster: Annotated[
        Path | None, typer.Argument(metavar="[CLUSTER]", help="The cluster file.")
    ] = None,
    dataflow: Annotated[
        Path | None,
        typer.Option("--dataflow", metavar="PATH", help="Also check this dataflow file."),
    ] = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Check this machine, and the machines of a cluster; print problems and remedies.

    On this machine: versions, programs, shared memory, limits, ports. Of a cluster: its
    coordinator, its machines over SSH and the links between them. The exit code is 1 if a check
    fails. Warnings concern features that only some dataflows use.
    """
    from dora_cli import diagnosis
    from dora_config.access import endpoint

    at = endpoint(coordinator_addr, coordinator_port)
    findings = [
        *diagnosis.check_versions(),
        *diagnosis.check_plugins(),
        *diagnosis.check_python(),
        *diagnosis.check_codecs(),
        *diagnosis.check_dora_rs(),
        *diagnosis.check_programs(),
        *diagnosis.check_shared_memory(),
        *diagnosis.check_pipes(),
        *diagnosis.check_state_dir(),
        *diagnosis.check_coordinator(at.host, at.port),
        *diagnosis.check_daemon(),
        *diagnosis.checks_of_plugins(),
    ]
    if dataflow is not None:
        findings += diagnosis.check_dataflow(dataflow)
    colour = output.wants_colour(sys.stdout)
    styles = {"PASS": "info", "WARN": "warn", "FAIL": "error"}
    for finding in findings:
        result = output.styled(finding.result, styles[finding.result], colour=colour)
        output.write(f"{result}  {finding.subject}: {finding.text}")
    failed = sum(finding.result == "FAIL" for finding in findings)
    if failed:
        output.failure(f"{failed} of {len(findings)} checks failed")
    if not _is_healthy(cluster) or failed:
        raise CommandFailed


def _is_healthy(cluster: Path | None) -> bool:
    """Check the machines of a cluster file, if one is given; return whether all checks pass."""
    if cluster is None:
        if CLUSTER_FILE.is_file():
            output.remark(f"to check the machines of the cluster: dora doctor {CLUSTER_FILE}")
        return True
    from dora_config import plugins

    check = plugins.load("dora.cluster_files", "check")
    output.write()
    return bool(check(cluster))


Shell = Literal["bash", "zsh", "fish", "powershell"]
SHELLS = get_args(Shell)


def completion(
    shell: Annotated[
        Shell | None, typer.Argument(metavar="SHELL", help="The shell; default $SHELL.")
    ] = None,
) -> None:
    """Print the completion script of a shell.

    For bash, put this line in ~/.bashrc: eval "$(dora completion bash)"
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    chosen = shell or _login_shell()
    script = get_completion_script(prog_name="dora", complete_var="_DORA_COMPLETE", shell=chosen)
    output.write(script)


def _login_shell() -> str:
    name = Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        known = ", ".join(SHELLS)
        raise typer.BadParameter(f"$SHELL is not a supported shell; give one of {known}")
    return name


def _words_below(context: typer.Context) -> list[str]:
    """Return the words that may follow those of `dora help`."""
    shown: Any = context.find_root().command
    for name in context.params.get("words") or ():
        shown = shown.get_command(context, name) if hasattr(shown, "get_command") else None
    return shown.list_commands(context) if hasattr(shown, "list_commands") else []


def help_(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND",
            autocompletion=_words_below,
            help="A command such as `run` or `cluster up`; default: list all commands.",
        ),
    ] = None,
) -> None:
    """Show the help of a command, like `dora COMMAND --help`."""
    names = words or []
    shown: Any = context.find_root()
    for name in names:
        if not hasattr(shown.command, "resolve_command"):
            context.fail(f"`{shown.command_path}` has no command {name!r}")
        # fails with a usage error for an unknown name
        _, command, _ = shown.command.resolve_command(shown, [name])
        shown = command.make_context(name, [], parent=shown, resilient_parsing=True)
        shown.resilient_parsing = False  # otherwise unknown names are accepted
    output.write(shown.get_help())


def update(
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Only print the installed version.")
    ] = False,
) -> None:
    """Print how to update dora."""
    output.write(f"dora {__version__}, installed for {sys.executable}")
    if check_only:
        output.write("dora does not check for newer versions")
        return
    output.write("install the new version from where it comes:")
    pip = f"{quote(sys.executable)} -m pip"
    output.write(f"  in a newer checkout of dora:  {pip} install packages/*")
    output.write(f"  from a folder of its wheels:  {pip} install FOLDER/dora_*.whl")


def test() -> None:
    """Run a test dataflow on two temporary daemons; exit code 1 if it fails."""
    from dora_cli import self_test

    self_test.run()
    output.write(f"dora {__version__} works, with {sys.executable}")


def uninstall(
    force: Annotated[
        bool, typer.Option("--force", help="Accepted for compatibility; has no effect.")
    ] = False,
) -> None:
    """Print how to remove dora."""
    from dora_cli.diagnosis import installed_wheels

    output.write(f"dora {__version__}, installed for {sys.executable}")
    output.write("remove it with the tool that installed it:")
    output.write(
        f"  {quote(sys.executable)} -m pip uninstall {' '.join(reversed(installed_wheels()))}"
    )
    output.write("  uv tool uninstall dora-config, or pipx uninstall dora-config")
    output.write("remaining settings and state: ~/.config/dora and ~/.local/state/dora")
