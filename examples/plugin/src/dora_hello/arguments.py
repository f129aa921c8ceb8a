"""What is wrong with a node `path: dora-hello-node` in a dataflow file."""

from collections.abc import Iterator, Sequence


def problems(
    arguments: Sequence[str], inputs: Sequence[str], outputs: Sequence[str]
) -> Iterator[str]:
    if arguments:
        yield f"dora-hello-node has no arguments; remove {' '.join(arguments)!r}"
    if not inputs:
        yield "an input is missing; for example `tick: dora/timer/millis/50`"
    if "greeting" not in outputs:
        yield "the output `greeting` is missing"
