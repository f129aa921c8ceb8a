"""Arguments of `dora-gate`, and the roles of its inputs."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from dora_gate.gate import AUTO, EMERGENCY, NONE, RESERVED, GateSettings, Rest

TICK, CONTROL, STATE = "tick", "control", "state"
ROLES = (TICK, CONTROL, EMERGENCY, STATE)
"""Inputs that are not sources."""


@dataclass(frozen=True, slots=True)
class GateOptions:
    settings: GateSettings
    control: str
    """Start value of `control`."""


class OptionsRefused(Exception):
    """Arguments, inputs or outputs cannot be used."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionsRefused(message)


def problems(
    arguments: Sequence[str], inputs: Collection[str], outputs: Sequence[str]
) -> list[str]:
    """Return the errors of arguments and ports, for `dora validate`."""
    try:
        read(arguments, inputs, outputs)
    except OptionsRefused as refused:
        return [str(refused)]
    return []


def read(arguments: Sequence[str], inputs: Collection[str], outputs: Sequence[str]) -> GateOptions:
    """Return the options. Raises OptionsRefused."""
    parser = option_parser()
    given = parser.parse_args(arguments)
    sources = [name for name in inputs if name not in ROLES]
    if TICK not in inputs:
        parser.error(
            "the input `tick` is missing: it sets the rate of the actions; add it to the node's"
            " inputs, for example `tick: dora/timer/millis/20`"
        )
    if not sources:
        parser.error("no input has commands; add one to the node's inputs: `policy: policy/action`")
    if reserved := RESERVED.intersection(sources):
        parser.error(f"no source can have the name `{min(reserved)}`; rename this input")
    priority = given.priority or sources
    if set(priority) != set(sources) or len(priority) != len(sources):
        parser.error(
            f"--priority is {','.join(priority)}; expected each of these inputs once:"
            f" {','.join(sources)}"
        )
    if given.control not in (known := (*sources, AUTO, NONE)):
        parser.error(f"--control is {given.control}; expected one of: {', '.join(known)}")
    if len(outputs) != 1:
        parser.error(f"expected one output, the action; found {', '.join(outputs) or 'none'}")
    settings = GateSettings(
        sources=tuple(priority),
        hold_after=_nanoseconds(given.hold_after),
        rest=Rest(given.then),
        max_step=given.max_step,
        hand_over=_nanoseconds(given.hand_over),
        needs_state=STATE in inputs,
    )
    return GateOptions(settings, given.control)


def option_parser() -> _Parser:
    """Return a parser without `--help`, which a dataflow file cannot use."""
    parser = _Parser(
        prog="dora-gate",
        add_help=False,
        description="Decides which of several commands a robot obeys; started by a dataflow.",
    )
    parser.add_argument(
        "--priority",
        metavar="SOURCE,...",
        type=lambda text: text.split(","),
        help="inputs with commands, the highest priority first; by default in their order",
    )
    parser.add_argument(
        "--control",
        metavar="SOURCE",
        default=AUTO,
        help="start value of the parameter `control`: a source, `auto` (default) or `none`",
    )
    parser.add_argument(
        "--hold-after",
        metavar="SECONDS",
        type=_positive,
        default=0.2,
        help="age at which the newest command of a source is not obeyed any more; default 0.2",
    )
    parser.add_argument(
        "--then",
        choices=[str(rest) for rest in Rest],
        default=str(Rest.HOLD),
        help="without a source: repeat the last action (default), send zeros, or send nothing",
    )
    parser.add_argument(
        "--max-step",
        metavar="VALUE,...",
        type=_steps,
        default=(),
        help="largest change of each value from one action to the next; one number for all",
    )
    parser.add_argument(
        "--hand-over",
        metavar="SECONDS",
        type=_positive,
        default=0.0,
        help="duration of a change from one source to another; default 0",
    )
    return parser


def _positive(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (number := float(text)) < 1e6:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")


def _steps(text: str) -> tuple[float, ...]:
    with suppress(ValueError):
        steps = tuple(float(part) for part in text.split(","))
        if all(0 < step < float("inf") for step in steps):
            return steps
    raise argparse.ArgumentTypeError(f"{text!r}: each step must be a number above zero")


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
