"""Messages of errors that reach the user."""

from __future__ import annotations

import pytest

from dora_cli.errors import describe


def test_a_missing_temporary_folder_has_a_remedy() -> None:
    error = FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")
    message, _ = describe(error)
    assert message is not None
    assert message.endswith("free space there, or set TMPDIR to a writable folder")


def test_an_argument_that_is_not_utf8() -> None:
    with pytest.raises(UnicodeEncodeError) as raised:
        "\udcff".encode()
    message, _ = describe(raised.value)
    assert message == "an argument, path or variable is not valid UTF-8; change it"
