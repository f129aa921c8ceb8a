"""Uploads to the store of the coordinator."""

from __future__ import annotations

import hashlib
import http.client

import pytest
from support.fleets.coordinator import running_coordinator
from support.waiting import wait_until
from support.workspace import Workspace

from dora_cli.shipping.sending import Collected, upload
from dora_config.protocol.code import CodeSet


@pytest.mark.integration
def test_an_interrupted_upload_is_resumed(workspace: Workspace) -> None:
    content = bytes(range(256)) * 4096
    digest, arrived = hashlib.sha256(content).hexdigest(), 300_000
    with running_coordinator() as coordinator:
        path, there = f"/api/files/{digest}", coordinator.endpoint
        cut = http.client.HTTPConnection(there.host, there.port, timeout=60)
        cut.putrequest("PUT", path)
        for name, value in {**there.headers(), "Content-Length": str(len(content))}.items():
            cut.putheader(name, value)
        cut.endheaders(content[:arrived])
        cut.close()
        wait_until(
            lambda: (
                coordinator.request(path, method="HEAD").headers["x-dora-offset"] == str(arrived)
            ),
            what="the received part to be stored",
        )
        # the store would refuse the whole content of this file
        rest = workspace.file("model.bin", "")
        rest.write_bytes(bytes(arrived) + content[arrived:])
        upload(there, [Collected(CodeSet(files=()), {digest: rest})])
        assert coordinator.request(path).body == content
