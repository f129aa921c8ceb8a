"""`dora doctor`: findings, and failure for required features only."""

from __future__ import annotations

from pathlib import Path

from support.command_line import Dora


def test_this_machine_passes(dora: Dora, hello: Path) -> None:
    shown = dora("doctor", "--dataflow", hello.name, "--coordinator-port", "1")
    assert shown.code == 0, shown.out
    lines = [line.split(":")[0] for line in shown.out.splitlines()]
    subjects = [line for line in lines if line != "PASS  plug-ins"]
    assert subjects[:3] == ["PASS  dora", "PASS  Python", "PASS  numpy"]
    assert subjects[3:5] == ["PASS  pyarrow", "PASS  import of dora"]
    assert subjects[5] == "PASS  codecs of `compress`"
    assert "WARN  coordinator: none at 127.0.0.1:1; not needed for `dora run`" in shown.out
    assert shown.out.endswith("PASS  dataflow: hello.yml: 2 nodes\n")


def test_a_bad_file_fails(dora: Dora, hello: Path) -> None:
    hello.write_text("nodes:\n  - id: a\n    pth: x\n")
    shown = dora("doctor", "--dataflow", hello.name)
    assert shown.code == 1
    assert "FAIL  dataflow: hello.yml:3:5: " in shown.out
    assert shown.err.startswith("[ERROR]\n1 of ")
    assert dora("doctor", "--dataflow", "missing.yml").code == 1


def test_a_cluster_file_is_named(dora: Dora, tmp_path: Path) -> None:
    assert "to check the machines" not in dora("doctor").err
    (tmp_path / "cluster.yml").write_text("coordinator: {addr: 127.0.0.1}\nmachines: 3\n")
    here = dora("doctor")
    assert here.code == 0
    assert "to check the machines of the cluster: dora doctor cluster.yml" in here.err
