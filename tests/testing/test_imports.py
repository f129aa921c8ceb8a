"""What pytest and `dora --help` import of this wheel, also where no dataflow is tested."""

import subprocess
import sys


def test_the_plugin_and_the_command_import_neither_pyarrow_nor_numpy() -> None:
    code = (
        "import sys, dora_testing.plugin, dora_testing.command\n"
        "print([n for n in ('pyarrow', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
