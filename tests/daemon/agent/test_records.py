"""Formats of the files that a daemon writes for the next one."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.golden import check_golden
from support.message_examples import ONE_DATAFLOW, examples, without_defaults

from dora_config.machine_identity import key_digest
from dora_coordinator.io.authority import Authority
from dora_daemon.agent.builds.files import BuildRecord
from dora_daemon.agent.credentials import Credentials
from dora_daemon.agent.records import PartRecord

UUID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"
OVERRIDES = {
    r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$": UUID,
    r"^[0-9a-f]{64}$": "ab" * 32,
    r"^([A-Za-z0-9_-][A-Za-z0-9_.-]{0,127})?$": "workspace",
    "DataflowSpec.name": "name",
    **ONE_DATAFLOW,
}


@pytest.mark.parametrize(
    ("name", "model"), [("part-record", PartRecord), ("build-record", BuildRecord)]
)
def test_golden_bytes(name: str, model: type[PartRecord | BuildRecord]) -> None:
    version: tuple[int, int] = model.model_fields["format"].default
    records = examples(model, {**OVERRIDES, f"{model.__name__}.format": version})
    lines = [record.model_dump_json().encode() for record in records]
    golden = f"{name}-{version[0]}.{version[1]}.jsonl"
    compared = [without_defaults(line) for line in lines]
    check_golden(Path(__file__).parent / "golden" / golden, compared)
    assert [model.model_validate_json(line) for line in lines] == records


@pytest.mark.parametrize("version", [None, [1, 9], [2, 0]])
def test_only_records_of_the_same_major_version_are_read(version: list[int] | None) -> None:
    record: dict[str, Any] = json.loads(BuildRecord(build_id=UUID).model_dump_json())
    record.pop("format")
    if version is not None:
        record |= {"format": version, "new": 1}
    if version == [2, 0]:
        with pytest.raises(ValidationError, match="format 2, expected 1"):
            BuildRecord.model_validate(record)
    else:
        assert BuildRecord.model_validate(record).build_id == UUID


def test_files_of_credentials(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    credentials = Credentials(tmp_path / "robot")
    digest = key_digest(base64.b64decode(credentials.public_key))
    credentials.store(authority.sign(credentials.request(), "robot", digest), authority.pem)
    files = (tmp_path / "robot").iterdir()
    first_lines = {path.name: path.read_text().splitlines()[0] for path in files}
    assert first_lines == {
        "key.pem": "-----BEGIN PRIVATE KEY-----",
        "cert.pem": "-----BEGIN CERTIFICATE-----",
        "ca.pem": "-----BEGIN CERTIFICATE-----",
    }
