"""Pages of libraries that a process unmaps and uses again."""

from __future__ import annotations

import subprocess
import sys

USE = """
import pathlib, re
import numpy, pyarrow, pyarrow.compute
from dora_node_api.loaded_libraries import release_pages

def mapped():
    return int(re.search(r"RssFile:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])

def use():
    return pyarrow.compute.sum(pyarrow.array(numpy.arange(100_000))).as_py()

first, before = use(), mapped()
release_pages()
print(mapped() < before / 2, use() == first)
"""


def test_released_pages_are_mapped_again_when_they_are_used() -> None:
    done = subprocess.run([sys.executable, "-c", USE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
