"""Golden values: programs of other releases use these paths and headers."""

from __future__ import annotations

from dora_config.protocol import code_http


def test_paths_and_headers() -> None:
    assert code_http.FILES_PATH == "/api/files"
    assert code_http.file_path("ab") == "/api/files/ab"
    assert (code_http.OFFSET_HEADER, code_http.FREE_HEADER, code_http.PLACE_HEADER) == (
        "X-Dora-Offset",
        "X-Dora-Free",
        "X-Dora-Store",
    )
