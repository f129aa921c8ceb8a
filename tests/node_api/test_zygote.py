"""Which nodes may be forked: one row for each difference that a fork cannot bridge."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dora_node_api.protocol.spawn_request import SpawnRequest
from dora_node_api.zygote import Facts, importable, why_not

ENVIRON = {"HOME": "/home/a", "LANG": "C.UTF-8", "PYTHONPATH": "/lib", "USER": "a"}
NODE = {**ENVIRON, "PYTHONPATH": "/run/packages:/lib", "DORA_NODE_CONFIG": "{}", "MY": "1"}
LOADED = frozenset({"sys", "types", "queue", "numpy", "pyarrow", "dora_node_api"})
SCRIPT = ("/bin/python", "-u", "/nodes/a.py", "--fast")
MODULE = ("/bin/python", "-u", "-m", "dora_node_api.operators")


def refusal(
    argv: tuple[str, ...], env: dict[str, str], beside: list[str], begin: bytes, facts: Facts
) -> str | None:
    return why_not(SpawnRequest(argv, "/nodes", env), beside, begin, facts)


@pytest.mark.parametrize("argv", [SCRIPT, MODULE])
def test_the_usual_node_is_forked(argv: tuple[str, ...]) -> None:
    beside = ["a", "b", "helpers", "data"]
    assert refusal(argv, NODE, beside, b"impo", Facts(ENVIRON, LOADED)) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        *(
            ({name: "1"}, f"its {name} differs")
            for name in (
                *(
                    "PYTHONUTF8",
                    "PYTHONHASHSEED",
                    "PYTHONMALLOC",
                    "LD_BIND_NOW",
                    "MALLOC_ARENA_MAX",
                ),
                *("GLIBC_TUNABLES", "ARROW_DEFAULT_MEMORY_POOL", "OMP_NUM_THREADS", "LC_ALL"),
                *("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMPY_MADVISE_HUGEPAGE", "LANG"),
                *("SSL_CERT_FILE", "OPENSSL_CONF", "COVERAGE_PROCESS_START", "DD_TRACE", "HOME"),
            )
        ),
        ({"PYTHONPATH": "/run/packages:/other:/lib"}, "its PYTHONPATH differs"),
        ({"PYTHONPATH": "/run/packages"}, "its PYTHONPATH differs"),
        ({"PYTHONPATH": ""}, "its PYTHONPATH differs"),
    ],
)
def test_variables_that_are_read_at_the_start(changes: dict[str, str], reason: str) -> None:
    found = refusal(SCRIPT, {**NODE, **changes}, [], b"", Facts(ENVIRON, LOADED))
    assert found is not None
    assert found.startswith(reason)


def test_a_variable_that_only_the_zygote_has() -> None:
    facts = Facts({**ENVIRON, "OMP_NUM_THREADS": "1"}, LOADED)
    assert refusal(SCRIPT, NODE, [], b"", facts) is not None


def test_relative_entries_of_the_path_belong_to_a_directory() -> None:
    node = {**NODE, "PYTHONPATH": "/run/packages:lib"}
    found = refusal(SCRIPT, node, [], b"", Facts({**ENVIRON, "PYTHONPATH": "lib"}, LOADED))
    assert found == "its PYTHONPATH has relative entries"


@pytest.mark.parametrize(
    ("argv", "beside", "begin", "facts", "reason"),
    [
        (SCRIPT, ["a", "types"], b"", {}, "a module beside its file is called types"),
        (MODULE, ["numpy"], b"", {}, "a module beside its file is called numpy"),
        (SCRIPT, [], b"PK\3\4", {}, "its file is an archive or compiled"),
        (SCRIPT, [], b"\xa7\r\r\n", {}, "its file is an archive or compiled"),
        (("python", "-u", "a.py"), [], b"", {}, "its file is not an absolute path"),
        (("python", "-u"), [], b"", {}, "its file is not an absolute path"),
        (SCRIPT, [], b"", {"changed": "/site/pyarrow"}, "/site/pyarrow has changed"),
        (SCRIPT, [], b"", {"strange": "it starts threads"}, "it starts threads"),
    ],
)
def test_other_differences(
    argv: tuple[str, ...], beside: list[str], begin: bytes, facts: dict[str, str], reason: str
) -> None:
    assert refusal(argv, NODE, beside, begin, Facts(ENVIRON, LOADED, **facts)) == reason


def test_what_a_folder_has_to_import() -> None:
    files = ["a.py", "b.cpython-311-x86_64-linux-gnu.so", "c.pyc", "notes.txt", "data.yml"]
    entries = [*((name, False) for name in files), ("types", True)]
    assert importable(entries) == ["a", "b", "c", "types"]


SHOWING = """
import os, sys
from dora_node_api.zygote import show
for size in (9, 9000, 5):
    show(["a" * size, "two words"], {"B": "b" * size, "END": "1"})
    words, variables = (open(f"/proc/self/{name}").read() for name in ("cmdline", "environ"))
    print(words[:20].rstrip("\\0"), len(words) < 300, variables.rstrip("\\0").split("\\0")[-1][:9])
print(sorted(os.environ), os.popen("echo $B").read().strip())
"""


def test_command_line_and_environment_are_replaced_within_their_room() -> None:
    words = [sys.executable, "-c", SHOWING, "." * 20]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env={"R": "." * 300})
    assert done.stdout.splitlines() == [
        "aaaaaaaaa two words True END=1",
        "aaaaaaaaaaaaaaaaaaaa False B=bbbbbbb",
        "aaaaa two words True END=1",
        "['B', 'END'] bbbbb",
    ]
