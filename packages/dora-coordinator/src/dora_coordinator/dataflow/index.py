"""Dataflows by id, name and daemon; pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from uuid import UUID

from dora_config.yaml.suggest import closest
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.state.commands import RequestRefused


class DataflowIndex:
    """All dataflows of a coordinator. An event of a daemon touches only its unfinished ones."""

    def __init__(self) -> None:
        self._dataflows: dict[str, Dataflow] = {}
        self._unfinished_by_daemon: dict[str, dict[str, Dataflow]] = {}
        self._live_by_name: dict[str, Dataflow] = {}
        self._live: dict[str, Dataflow] = {}
        self._ended: OrderedDict[str, Dataflow] = OrderedDict()
        self._to_restart: dict[str, Dataflow] = {}
        """Ended dataflows that are to be started again, by id."""

    def _put(self, dataflow: Dataflow, before: Iterable[str] = ()) -> None:
        """Add or update a dataflow; ``before``: the daemons of its parts until now."""
        self._dataflows[dataflow.id] = dataflow
        if dataflow.has_ended:
            self._live.pop(dataflow.id, None)
            if dataflow.name and self._live_by_name.get(dataflow.name) is dataflow:
                self._pass_name_on(dataflow.name)
            self._ended.setdefault(dataflow.id, dataflow)
        else:
            self._ended.pop(dataflow.id, None)
            self._live[dataflow.id] = dataflow
            if dataflow.name:
                holder = self._live_by_name.get(dataflow.name)
                if holder is None or _order(holder) < _order(dataflow):
                    self._live_by_name[dataflow.name] = dataflow
        if dataflow.waits_to_restart:
            self._to_restart[dataflow.id] = dataflow
        else:
            self._to_restart.pop(dataflow.id, None)
        for daemon in before:
            if daemon not in dataflow.parts:
                self._index_part(dataflow, daemon, unfinished=False)
        for part in dataflow.parts.values():
            self._index_part(dataflow, part.daemon, unfinished=not part.ended)

    def _pass_name_on(self, name: str) -> None:
        """Give the name of an ended dataflow to the last start that runs, if there is one."""
        del self._live_by_name[name]
        others = [one for one in self._live.values() if one.name == name]
        if others:
            self._live_by_name[name] = max(others, key=_order)

    def _index_part(self, dataflow: Dataflow, daemon: str, *, unfinished: bool) -> None:
        here = self._unfinished_by_daemon.setdefault(daemon, {})
        if unfinished:
            here[dataflow.id] = dataflow
        else:
            here.pop(dataflow.id, None)
        if not here:
            del self._unfinished_by_daemon[daemon]

    def _remove(self, dataflow: Dataflow) -> None:
        """Remove a dataflow that has ended."""
        del self._dataflows[dataflow.id]
        del self._ended[dataflow.id]
        self._to_restart.pop(dataflow.id, None)

    # -------------------------------------------------------------------- queries

    def __iter__(self) -> Iterator[Dataflow]:
        """Iterate over all dataflows, oldest start first."""
        return iter(sorted(self._dataflows.values(), key=lambda dataflow: dataflow.number))

    def live(self) -> list[Dataflow]:
        return sorted(self._live.values(), key=lambda dataflow: dataflow.number)

    def live_named(self, name: str) -> Dataflow | None:
        return self._live_by_name.get(name)

    def latest_named(self, name: str) -> Dataflow | None:
        """Return the dataflow of this name that runs, or else the one that was started last."""
        if (live := self._live_by_name.get(name)) is not None:
            return live
        ended = [dataflow for dataflow in self._ended.values() if dataflow.name == name]
        return max(ended, key=lambda dataflow: dataflow.number, default=None)

    def unfinished_on(self, daemon: str) -> list[Dataflow]:
        """Return the dataflows that have a part there that has not ended."""
        return list(self._unfinished_by_daemon.get(daemon, {}).values())

    def unfinished_daemons(self) -> list[str]:
        """Return the daemons with a part that has not ended."""
        return list(self._unfinished_by_daemon)

    def get(self, dataflow_id: str) -> Dataflow | None:
        return self._dataflows.get(dataflow_id)

    def find(self, text: str | None, *, archived: bool) -> Dataflow:
        """Return the dataflow of a UUID or name, None: the only one; ``archived``: also ended ones.

        Raises :class:`RequestRefused`.
        """
        if text is None:
            return self._find_only_one(archived=archived)
        uuid = uuid_in(text)
        if uuid is None:
            return self._find_named(text, archived=archived)
        found = self._dataflows.get(uuid)
        if found is None:
            raise RequestRefused("not_found", f"no dataflow with UUID {uuid}")
        if found.has_ended and not archived and not found.may_resume:
            raise RequestRefused(
                "not_found", f"dataflow {found.label} has ended already ({found.status()[0]})"
            )
        return found

    def _find_named(self, name: str, *, archived: bool) -> Dataflow:
        live = self._live_by_name.get(name)
        if live is not None:
            return live
        ended = [dataflow for dataflow in self._ended.values() if dataflow.name == name]
        fitting = [dataflow for dataflow in ended if archived or dataflow.may_resume]
        if fitting:
            return max(fitting, key=lambda dataflow: dataflow.number)
        note = ""
        if ended:
            listed = ", ".join(f"{d.id} ({d.status()[0]})" for d in ended)
            note = f"; archived under this name: {listed}"
        else:
            known = [one for one in self._dataflows.values() if archived or not one.has_ended]
            note = closest(name, [one.name for one in known if one.name])
        raise RequestRefused(
            "not_found", f'no {"" if archived else "running "}dataflow with name "{name}"{note}'
        )

    def _find_only_one(self, *, archived: bool) -> Dataflow:
        if len(self._live) == 1:
            return next(iter(self._live.values()))
        if self._live:
            listed = ", ".join(dataflow.label for dataflow in self.live())
            raise RequestRefused(
                "ambiguous", f"several dataflows are running; name one of them: {listed}"
            )
        if archived and self._ended:
            return max(self._ended.values(), key=lambda dataflow: dataflow.number)
        raise RequestRefused("nothing_runs", "No dataflows are running.")

    def waiting_to_restart(self) -> list[Dataflow]:
        """Return the ended dataflows that are to be started again."""
        return list(self._to_restart.values())


def uuid_in(text: str) -> str | None:
    """Return the UUID that a user wrote, in its usual form; None for a name."""
    try:
        return str(UUID(text))
    except ValueError:
        return None


def _order(dataflow: Dataflow) -> tuple[float, int, int, str]:
    return dataflow.begun.order(dataflow.id)
