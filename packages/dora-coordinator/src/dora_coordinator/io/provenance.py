"""Signs what machines keep about dataflows, and verifies what they report of it.

A coordinator with an old or empty store takes over from machines which start is the latest, and
the nodes of other machines. It accepts only descriptions that a coordinator of this cluster has
signed; for its own nodes a machine needs no signature.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Final

from dora_config.protocol import daemon as messages
from dora_config.protocol.calls import LinkPart
from dora_config.protocol.claims import Signature
from dora_config.protocol.dataflow import UNPROVEN, StartIdentity, WholeDataflow
from dora_config.protocol.envelope import clean_text
from dora_coordinator.io.authority import Authority

logger = logging.getLogger("dora.coordinator")

MAX_CACHED: Final = 16_384
"""Texts whose signature is remembered: heartbeats repeat them."""


class Provenance:
    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._signature = lru_cache(MAX_CACHED)(lambda text: authority.sign_text(text).signature)
        self._is_signed = lru_cache(MAX_CACHED)(self._verify)
        self._logged: set[tuple[str, str]] = set()

    def _verify(self, text: bytes, signature: str) -> bool:
        return self._authority.has_signed(text, Signature(signature=signature))

    def signed(
        self, message: messages.PreparePart | LinkPart, name: str | None
    ) -> messages.PreparePart | LinkPart:
        """Return a message to a machine with signatures; ``name``: name of the dataflow."""
        whole, dataflow_id = message.whole, message.dataflow_id
        if whole is None:
            return message
        begun = whole.begun
        update = {"signature": self._signature(begun.text(dataflow_id, name))}
        whole = whole.model_copy(
            update={
                "begun": begun.model_copy(update=update),
                "signature": self._signature(whole.text(dataflow_id)),
            }
        )
        return message.model_copy(update={"whole": whole})

    # ------------------------------------------------------------------------ reports

    def registration(self, register: messages.Register) -> messages.Register:
        """Return a registration with the starts that were signed."""
        machine = register.machine_id or register.instance
        return register.model_copy(
            update={
                "parts": self._reports(machine, register.parts),
                "stored_ends": self._reports(machine, register.stored_ends),
            }
        )

    def message(self, machine: str, message: messages.DaemonMessage) -> messages.DaemonMessage:
        """Return a message of a machine with only those parts that were signed."""
        match message:
            case messages.Heartbeat(parts=parts):
                return message.model_copy(update={"parts": self._reports(machine, parts)})
            case messages.PartChanged(report=report):
                (report,) = self._reports(machine, (report,))
                return message.model_copy(update={"report": report})
            case messages.PartDescribed():
                return message.model_copy(update={"whole": self._whole(machine, message)})
            case _:
                return message

    def _reports(
        self, machine: str, reports: tuple[messages.PartReport, ...]
    ) -> tuple[messages.PartReport, ...]:
        return tuple(
            one.model_copy(
                update={"begun": self._begun(machine, one.dataflow_id, one.name, one.begun)}
            )
            for one in reports
        )

    def _begun(
        self, machine: str, dataflow_id: str, name: str | None, begun: StartIdentity
    ) -> StartIdentity:
        if self._is_signed(begun.text(dataflow_id, name), begun.signature):
            return begun
        if begun != StartIdentity():
            self._log(machine, dataflow_id)
        return StartIdentity()

    def _whole(self, machine: str, message: messages.PartDescribed) -> WholeDataflow:
        whole, dataflow_id = message.whole, message.dataflow_id
        begun = self._begun(machine, dataflow_id, message.spec.name, whole.begun)
        if self._is_signed(whole.text(dataflow_id), whole.signature):
            return whole.model_copy(update={"begun": begun})
        if whole.placement or whole.packed:
            self._log(machine, dataflow_id)
        return WholeDataflow(begun=begun, changes=UNPROVEN)

    def _log(self, machine: str, dataflow_id: str) -> None:
        if (machine, dataflow_id) in self._logged or len(self._logged) > MAX_CACHED:
            return
        self._logged.add((machine, dataflow_id))
        logger.error(
            'ignored what daemon "%s" reports about the start of dataflow %s and the nodes of '
            "other machines: it is not signed by the authority of this cluster; examine that "
            "machine",
            clean_text(machine, limit=100),
            dataflow_id,
        )
