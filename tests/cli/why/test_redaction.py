"""Secrets are removed from reports."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from dora_cli.why.archive import REDACTED, Redactor, looks_secret


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_KEY", "x"),
        ("DB_PASSWORD", "hunter2"),
        ("github_token", "abc"),
        ("SSH_PRIVATE", "abc"),
        ("KEY", "abc"),
        ("ANY", "postgres://user:pw@host/db"),
        ("ANY", "ghp_0123456789abcdefghij0123456789abcdef"),
        ("ANY", "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"),
        ("ANY", "9f86d081884c7d659a2feaa0c55ad015"),
    ],
)
def test_values_that_look_secret(name: str, value: str) -> None:
    assert looks_secret(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODEL", "/opt/models/yolo-v8-large-pose-estimation"),
        ("RATE", "30"),
        ("API_KEY", ""),
        ("URL", "https://example.org/a/b"),
        ("KEYBOARD", "us"),
    ],
)
def test_other_values(name: str, value: str) -> None:
    assert not looks_secret(name, value)


def test_values_are_removed_by_their_keys() -> None:
    redactor = Redactor()
    document = {
        "nodes": [
            {
                "id": "camera",
                "env": {"TOKEN": "abcdef123", "SEED": "9f86d081884c7d659a2feaa0c55ad015", "N": 3},
            }
        ],
        "uuid": "01a20e4b-f5a3-4858-99fe-d510d04b9561",
        "params": {"camera": {"password": 12345678, "gain": 2, "dark": True, "none": None}},
    }
    assert redactor.values(document) == {
        "nodes": [{"id": "camera", "env": {"TOKEN": REDACTED, "SEED": REDACTED, "N": 3}}],
        "uuid": "01a20e4b-f5a3-4858-99fe-d510d04b9561",
        "params": {"camera": {"password": REDACTED, "gain": 2, "dark": True, "none": None}},
    }
    assert redactor.removed == 3
    text = "sent abcdef123 and 12345678"
    assert redactor.text(text) == f"sent {REDACTED} and {REDACTED}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("git+https://bot:s3cret@host/x.git", f"git+https://bot:{REDACTED}@host/x.git"),
        ("Authorization: Bearer abcdef0123456789", f"Authorization: Bearer {REDACTED}"),
        ("api_key=abc123 next", f"api_key={REDACTED} next"),
        ("--auth-token abc123 next", f"--auth-token {REDACTED} next"),
        ('{"access_key": "abc123", "b": 1}', f'{{"access_key": "{REDACTED}", "b": 1}}'),
        ("-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----", REDACTED),
        ('{"msg": "-----BEGIN KEY-----\\nMHc"}', f'{{"msg": "{REDACTED}"}}'),
        ("using AKIAABCDEFGHIJKLMNOP now", f"using {REDACTED} now"),
        ("the token of the cluster", "the token of the cluster"),
        ("secretary: x", "secretary: x"),
    ],
)
def test_forms_of_secrets_in_texts(text: str, expected: str) -> None:
    assert Redactor().text(text) == expected
    again = Redactor()
    again.text(again.text(text))
    assert again.text(expected) == expected


def test_a_secret_inside_of_json_is_found() -> None:
    redactor = Redactor(['quo"ted\nsecret'])
    line = json.dumps({"msg": 'x quo"ted\nsecret y'})
    assert json.loads(redactor.text(line)) == {"msg": f"x {REDACTED} y"}


def test_short_values_stay_since_they_are_too_common() -> None:
    assert Redactor(["abc"]).text("abc") == "abc"


@given(st.text(min_size=6, max_size=30), st.text(max_size=20), st.text(max_size=20))
def test_a_known_secret_never_stays(secret: str, before: str, after: str) -> None:
    shown = Redactor([secret]).text(f"{before}{secret}{after}")
    assert secret not in shown or secret in REDACTED
