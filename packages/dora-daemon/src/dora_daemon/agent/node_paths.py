"""Working directories of a part's nodes on this machine, and the runner's plan.

Relative paths start at the folder of the dataflow file if it exists on this machine, otherwise at
``_work/<dataflow>`` in the folder where the daemon was started. A node's
``deploy.working_dir`` is joined to that; an absolute one replaces it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.protocol.code import CodeSet
from dora_config.protocol.dataflow import DataflowSpec, Origin
from dora_config.protocol.dataflow_setup import DataflowSetup
from dora_config.protocol.run_plan import RunPlan
from dora_config.protocol.runner import NodeLocation
from dora_daemon import out_dir
from dora_daemon.agent.builds.files import BuildFiles, NotBuilt
from dora_daemon.agent.records import PartRecord
from dora_daemon.build.own_environment import is_built
from dora_daemon.build.python_env import environment_python
from dora_daemon.code.delivery import CodeDelivery, CodeNotDelivered, node_directory

WORK_DIR = "_work"


@dataclass(frozen=True, slots=True)
class LocalMachine:
    """Facts about this daemon that plans depend on."""

    base_dir: Path
    """Folder where the daemon was started."""
    boot_id: str
    machine_id: str | None = None
    daemon_id: str | None = None
    allow_shell: bool = False
    builds: BuildFiles | None = None
    code: CodeDelivery | None = None
    parts: tuple[PartRecord, ...] = ()
    """Parts that run here and are not being stopped."""


def has_folder(machine: LocalMachine, origin: Origin) -> bool:
    """Return whether the folder of the dataflow file, not just its name, exists on this machine."""
    if not origin.boot_id or origin.boot_id != machine.boot_id:
        return False
    try:
        found = Path(origin.directory).stat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (origin.device, origin.inode)


def base_directory(spec: DataflowSpec, machine: LocalMachine, name: str) -> Path:
    """Return the base of relative paths; ``name`` is used without a workspace in ``spec``."""
    if has_folder(machine, spec.origin):
        return Path(spec.origin.directory)
    return machine.base_dir / WORK_DIR / (spec.workspace or name)


async def deliver(
    spec: DataflowSpec, machine: LocalMachine, name: str, replaces: str | None = None
) -> dict[str, CodeSet]:
    """Fetch sent code, unless the folder of the dataflow file exists on this machine.

    ``replaces``: the running dataflow to which the nodes of ``spec`` belong, whose other nodes keep
    their code. Raises :class:`CodeNotDelivered`.
    """
    if machine.code is None or has_folder(machine, spec.origin):
        return {}
    base = base_directory(spec, machine, name)
    whole = spec
    for part in machine.parts:
        if part.dataflow_id == replaces:
            whole = part.spec.with_sent(spec)
        elif part.spec.workspace == spec.workspace:
            _require_same_code(spec, part, base)
    running = [part.spec.workspace for part in machine.parts]
    delivered = await machine.code.deliver(whole, base, running)
    return {node: code for node, code in delivered.items() if node in spec.code}


def _require_same_code(spec: DataflowSpec, part: PartRecord, base: Path) -> None:
    """Raise CodeNotDelivered if the code would replace files of a running dataflow."""
    running = _code_by_folder(part.spec, base)
    for folder, code in _code_by_folder(spec, base).items():
        if folder in running and running[folder] != code:
            name = part.spec.name or part.dataflow_id
            raise CodeNotDelivered(
                f'{folder} contains other code, of dataflow "{name}", which runs there; stop it '
                "first, or change its nodes with `dora node replace`"
            )


def _code_by_folder(spec: DataflowSpec, base: Path) -> dict[Path, set[str]]:
    found: dict[Path, set[str]] = {}
    for node in spec.resolved.nodes:
        if node.id in spec.code:
            found.setdefault(node_directory(base, node), set()).add(spec.code[node.id])
    return found


def make_plan(record: PartRecord, machine: LocalMachine) -> RunPlan:
    """Return the runner's plan for one part. Raises :class:`NotBuilt`."""
    spec = record.spec
    base = base_directory(spec, machine, record.dataflow_id)
    return RunPlan(
        **{field: getattr(spec, field) for field in DataflowSetup.model_fields},
        dataflow_id=record.dataflow_id,
        working_dir=str(base),
        create_working_dirs=True,
        places=locate(spec, base, machine),
        allow_shell=machine.allow_shell,
        whole=record.links.whole,
        hold_at_barrier=True,
        machine_id=machine.machine_id,
        daemon_id=machine.daemon_id,
        revision=record.revision,
        recovered=record.recovers,
    )


def explain(record: PartRecord, machine: LocalMachine) -> str:
    """Return a sentence about where relative paths of this part start, for error messages."""
    base = base_directory(record.spec, machine, record.dataflow_id)
    if has_folder(machine, record.spec.origin):
        why = "the folder of the dataflow file, which exists on this machine"
    else:
        why = (
            "a folder of the daemon, since the folder of the dataflow file does not exist on this "
            "machine; only the code of nodes with `distribute: http` or `scp` is sent there"
        )
    return f"relative paths start at {base}: {why}; deploy.working_dir is joined to it"


def locate(spec: DataflowSpec, base: Path, machine: LocalMachine) -> dict[str, NodeLocation]:
    """Return the location of each node that is not at the default. Raises :class:`NotBuilt`."""
    at_origin = has_folder(machine, spec.origin)
    places = dict(spec.places) if at_origin else {}
    built = _built_here(spec, machine)
    for node in spec.resolved.nodes:
        if node.id in spec.code and not at_origin:
            places[node.id] = _place_of_code(node, base)
        elif node.id in built:
            places[node.id] = built[node.id]
        elif node.git is not None and node.id not in places:
            raise NotBuilt(
                f'node "{node.id}" has a git source, {node.git.url}, that was not cloned for this '
                "machine; run `dora build` with the same file and coordinator first"
            )
        elif node.deploy.working_dir is not None and node.git is None:
            place = places.get(node.id, NodeLocation())
            directory = str(base / node.deploy.working_dir)
            places[node.id] = place.model_copy(update={"working_dir": directory})
    return places


def _place_of_code(node: ResolvedNode, base: Path) -> NodeLocation:
    """Return the location of a node whose code was sent and, by ``dora start``, built."""
    directory = node_directory(base, node)
    if node.needs_build and not is_built(directory, node.id):
        raise NotBuilt(
            f'node "{node.id}" has build lines that were not run in {directory} on this machine; '
            "start the dataflow again where its files are"
        )
    python = environment_python(directory, node.id) if node.needs_build else None
    return NodeLocation(working_dir=str(directory), python=str(python) if python else None)


def _built_here(spec: DataflowSpec, machine: LocalMachine) -> dict[str, NodeLocation]:
    """Return the locations of the nodes that the dataflow's build prepared on this machine."""
    wanted = [node.id for node in spec.resolved.nodes if node.id in spec.built_on]
    if not wanted or spec.build_id is None or machine.builds is None:
        return {}
    places = machine.builds.places(spec.build_id)
    if places is None or not places.keys() >= set(wanted):
        raise NotBuilt(f"build {spec.build_id} is not on this machine; run `dora build` again")
    return {node: places[node] for node in wanted}


def log_dirs(plan: RunPlan) -> dict[str, str]:
    """Return the folder of each node's log file, by node id."""
    base = Path(plan.working_dir)
    return {
        node.id: log_dir(base, plan.places.get(node.id, NodeLocation()), plan.dataflow_id)
        for node in plan.resolved.nodes
    }


def log_dir(base: Path, place: NodeLocation, dataflow_id: str) -> str:
    """Return the folder of a node's log file."""
    return str(out_dir.log_dir(base / (place.working_dir or ""), dataflow_id))
