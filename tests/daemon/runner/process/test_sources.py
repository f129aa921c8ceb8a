"""Programs that the ``path`` of a node names."""

from __future__ import annotations

import hashlib
import http.server
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.serving import served

from dora_daemon.runner.process.download import download
from dora_daemon.runner.process.sources import (
    SourceNotFound,
    expand,
    find_program,
    require_executable,
)

PROGRAM = b"#!/bin/sh\necho downloaded\n"


def executable(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_file_is_relative_to_the_working_directory(tmp_path: Path) -> None:
    script = executable(tmp_path / "nodes" / "a.py")
    assert find_program("nodes/a.py", working_dir=tmp_path, variables={}) == script
    deeper = tmp_path / "nodes" / "x"
    deeper.mkdir()
    assert find_program("../a.py", working_dir=deeper, variables={}) == script
    assert find_program(str(script), working_dir=Path("/"), variables={}) == script


def test_a_bare_name_is_looked_for_here_then_in_the_environment_then_on_path(
    tmp_path: Path,
) -> None:
    on_path = executable(tmp_path / "bin" / "tool")
    variables = {"PATH": str(tmp_path / "bin")}

    def found() -> Path:
        python = str(tmp_path / "env" / "bin" / "python")
        work = tmp_path / "work"
        return find_program("tool", working_dir=work, variables=variables, managed_python=python)

    assert found() == on_path
    managed = executable(tmp_path / "env" / "bin" / "tool")
    assert found() == managed
    here = executable(tmp_path / "work" / "tool")
    assert found() == here


@pytest.mark.parametrize("path", ["missing.py", "sub/missing", "tool", "x" * 300, "a/" + "x" * 300])
def test_an_error_names_the_path_as_written_and_in_full(tmp_path: Path, path: str) -> None:
    with pytest.raises(SourceNotFound) as caught:
        find_program(path, working_dir=tmp_path, variables={"PATH": ""})
    assert "Could not find source path" in str(caught.value)
    assert f"`{path}`" in str(caught.value)
    assert str(tmp_path / path) in str(caught.value)


def test_programs_beside_the_interpreter_of_dora_come_last(tmp_path: Path) -> None:
    own = executable(tmp_path / "dora" / "bin" / "dora-rerun")
    there = executable(tmp_path / "path" / "dora-rerun")
    variables = {"PATH": str(tmp_path / "path")}

    def found() -> Path:
        python = str(own.with_name("python"))
        return find_program(
            "dora-rerun", working_dir=tmp_path, variables=variables, own_python=python
        )

    assert found() == there
    there.unlink()
    assert found() == own
    own.unlink()
    with pytest.raises(SourceNotFound, match=r"install it with: .* pip install "):
        found()


def test_directory_is_not_a_program(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    with pytest.raises(SourceNotFound, match="a directory"):
        find_program("./node", working_dir=tmp_path, variables={})


def test_only_a_few_variables_expand_in_paths() -> None:
    variables = {"HOME": "/h", "USER": "u", "OTHER": "o"}
    assert expand("$HOME/x/${USER}/$OTHER/$PWD", variables) == "/h/x/u/$OTHER/$PWD"


def test_a_file_that_may_not_be_executed(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("x")
    with pytest.raises(SourceNotFound, match=r"chmod \+x"):
        require_executable(path, "notes")


class Handler(http.server.BaseHTTPRequestHandler):
    requests = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        if self.path not in ("/bin/node", "/bin/torn"):
            self.send_error(404)
            return
        self.send_response(200)
        torn = self.path == "/bin/torn"
        self.send_header("Content-Length", str(len(PROGRAM) + 7 * torn))
        self.end_headers()
        self.wfile.write(PROGRAM)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Handler.requests = 0
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server, served(server):
        yield f"http://127.0.0.1:{server.server_port}"


def test_a_download_is_checked_made_executable_and_used_again(tmp_path: Path, url: str) -> None:
    digest = hashlib.sha256(PROGRAM).hexdigest()
    stale = tmp_path / "build" / ".node.999999999.part"  # of a process that was killed
    stale.parent.mkdir()
    stale.touch()
    program = download(f"{url}/bin/node", digest.upper(), tmp_path)
    assert list(stale.parent.iterdir()) == [tmp_path / "build" / "node"]
    assert program == tmp_path / "build" / "node"
    assert program.read_bytes() == PROGRAM
    assert program.stat().st_mode & 0o111
    assert download(f"{url}/bin/node", digest, tmp_path) == program
    assert Handler.requests == 1


def test_a_wrong_checksum_is_never_run(tmp_path: Path, url: str) -> None:
    with pytest.raises(SourceNotFound) as caught:
        download(f"{url}/bin/node", "0" * 64, tmp_path)
    assert hashlib.sha256(PROGRAM).hexdigest() in str(caught.value)
    assert list((tmp_path / "build").iterdir()) == []


def test_a_download_that_fails_names_address_and_target(tmp_path: Path, url: str) -> None:
    with pytest.raises(SourceNotFound, match="404") as caught:
        download(f"{url}/bin/other", None, tmp_path)
    assert f"{url}/bin/other" in str(caught.value)
    assert str(tmp_path / "build" / "other") in str(caught.value)


def test_a_download_that_ends_early_is_never_run(tmp_path: Path, url: str) -> None:
    with pytest.raises(SourceNotFound, match="connection closed 7 bytes before the end"):
        download(f"{url}/bin/torn", None, tmp_path)
    assert list((tmp_path / "build").iterdir()) == []


def test_a_download_to_a_folder(tmp_path: Path, url: str) -> None:
    folder = tmp_path / "build" / "node"
    folder.mkdir(parents=True)
    with pytest.raises(SourceNotFound, match=f"cannot download .* to {folder}: .*directory"):
        download(f"{url}/bin/node", None, tmp_path)
    assert list((tmp_path / "build").iterdir()) == [folder]


@pytest.mark.parametrize("host", ["[", "127.0.0.1:port", "a b", "a..b"])
def test_download_from_an_invalid_address(tmp_path: Path, host: str) -> None:
    with pytest.raises(SourceNotFound, match="cannot download http"):
        download(f"http://{host}/node", None, tmp_path)


def test_a_download_to_an_invalid_file_name(tmp_path: Path, url: str) -> None:
    with pytest.raises(SourceNotFound, match="cannot download"):
        download(f"{url}/bin/{'x' * 300}", "0" * 64, tmp_path)
