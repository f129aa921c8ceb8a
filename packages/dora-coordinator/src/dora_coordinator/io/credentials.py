"""Certificates and tokens of machines."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from dora_config.errors import os_error_text
from dora_config.protocol import daemon as messages
from dora_config.protocol.control import TokenRotated
from dora_config.protocol.envelope import clean_text
from dora_coordinator.io.authority import Authority, AuthorityError
from dora_coordinator.io.connections import DaemonConnection, Renewal
from dora_coordinator.io.token_file import TokenFile
from dora_coordinator.state.commands import RequestRefused

logger = logging.getLogger("dora.coordinator")


class MachineCredentials:
    """Issues them to connected daemons."""

    def __init__(
        self,
        authority: Authority,
        tokens: TokenFile | None,
        connections: Mapping[str, DaemonConnection],
    ) -> None:
        self._authority = authority
        self._tokens = tokens
        self._connections = connections

    def send_certificate(self, daemon: str, request: str, digest: str) -> None:
        """Sign a request for a certificate, and send the certificate."""
        try:
            certificate = self._authority.sign(request, daemon, digest)
        except AuthorityError as error:
            logger.warning('daemon "%s": %s', daemon, clean_text(str(error)))
            return
        message = messages.Certificate(certificate=certificate, authority=self._authority.pem)
        if (connection := self._connections.get(daemon)) is not None:
            connection.send(messages.TO_DAEMON.encode(message))

    def renew_token(self, daemon: str, *when: Renewal) -> bool:
        """Send the current token to a daemon, if its connection permits it now."""
        connection = self._connections.get(daemon)
        if connection is None or self._tokens is None or connection.renewal not in when:
            return False
        current = self._tokens.current
        token = current.for_machine if connection.of_machine else current
        connection.send(messages.TO_DAEMON.encode(messages.NewToken(token=str(token))))
        return True

    def rotate_token(self, grace: float, daemons: Sequence[str]) -> TokenRotated:
        """Replace the token, and send it to daemons; raises RequestRefused."""
        if self._tokens is None:
            reason = "the coordinator was started with --no-auth and has no token"
            raise RequestRefused("failed", reason)
        try:
            token = self._tokens.rotate(grace)
        except OSError as error:
            reason = f"{os_error_text(error)}; the token was not changed"
            raise RequestRefused("failed", reason) from error
        sent = [one for one in daemons if self.renew_token(one, Renewal.NOW, Renewal.LATER)]
        logger.info("replaced the token; sent it to %d daemons", len(sent))
        return TokenRotated(token=str(token), daemons=tuple(sent))
