"""`dora restart`: stop a dataflow and start what the coordinator has stored of it."""

from __future__ import annotations

from dora_cli import options, output
from dora_cli.coordinator import options as coordinator

app = options.application()


@app.command()
def restart(
    dataflow: coordinator.Chosen = None,
    name: coordinator.Name = None,
    grace_duration: coordinator.Grace = None,
    force: coordinator.Force = False,
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """Stop a dataflow and start it again, without its file."""
    from dora_config.protocol.control import RestartDataflow, Restarted

    request = RestartDataflow(
        dataflow=coordinator.reference(dataflow, name),
        grace=coordinator.grace_seconds(grace_duration, force=force),
        force=force,
    )
    with coordinator.client(coordinator_addr, coordinator_port) as client:
        answer = client.ask(request, Restarted)
    for warning in answer.warnings:
        output.warn(warning)
    output.write(f"dataflow restarted: {answer.old} -> {answer.new}")
