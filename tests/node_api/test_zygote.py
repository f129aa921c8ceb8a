"""Which nodes may be forked: one row for each difference that a fork cannot bridge."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dora_node_api.protocol.spawn_request import SpawnRequest
from dora_node_api.zygote import _UNCHANGED, Facts, importable, why_not

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


@pytest.mark.parametrize(("anonymous", "swapped", "count"), [(0, 0, 1), (4, 0, 0), (0, 4, 0)])
def test_pages_that_differ_from_their_file_are_kept(
    anonymous: int, swapped: int, count: int
) -> None:
    """The linker writes to some; they may be in the swap space."""
    text = (
        "7f00-7f08 r--p 00000000 fe:00 42    /usr/lib/libarrow.so\n"
        f"Size:    32 kB\nAnonymous:  {anonymous} kB\nKSM:  0 kB\nSwap:    {swapped} kB\n"
        "7f08-7f10 r--p 00000000 00:00 0 \nSize:  32 kB\nAnonymous:  0 kB\nSwap:  0 kB\n"
    )
    assert len(_UNCHANGED.findall(text.encode())) == count


def test_unchanged_pages_of_files_are_given_back() -> None:
    program = (
        "import pyarrow\n"
        "from dora_node_api.zygote import release_files\n"
        "def resident():\n"
        "    lines = open('/proc/self/smaps_rollup')\n"
        "    return next(int(line.split()[1]) for line in lines if line.startswith('Rss:'))\n"
        "before = resident()\n"
        "release_files()\n"
        "after = resident()\n"
        "print(before > after + 10_000, pyarrow.array([1, None]).null_count)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.stdout.split() == [b"True", b"1"], done.stderr
