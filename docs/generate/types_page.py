"""The page about types: every `std/` type with its Arrow type, fields and parameters."""

from __future__ import annotations

from itertools import groupby

from tables import NOTICE, table

from dora_config.dataflow.types import STANDARD_TYPES, TypeDefinition

PAGE = "reference/types.md"

INTRODUCTION = f"""\
{NOTICE}

# Types of messages

A node may declare what its outputs send and its inputs expect. `dora validate`, `build` and `run` check that both fit; a mismatch is a warning, with `strict_types: true`
in the file an error. Where only one side has a type, nothing is checked.

```yaml
strict_types: true
nodes:
  - id: camera
    path: camera.py
    outputs: [image]
    output_types: {{image: "std/media/v1/Image[encoding=rgb8]"}}
  - id: detector
    path: detector.py
    inputs: {{image: camera/image}}
    input_types: {{image: std/media/v1/Image}}
```

A value in brackets restricts a parameter; a missing parameter fits every value. With `DORA_RUNTIME_TYPE_CHECK=warn` (or `error`) nodes also compare each array with its `std/` type, structs with all
their fields (others may be added); a message names the first field that differs. Numbers of a Python `dict` become `Int64`: give `pyarrow.array` the type.
Viewers and exports use the type of an output to [decide what a message shows](../howto/record.md#foxglove-lichtblick-and-rerun).
"""
ENDING = """\
**Pictures.** Send an array of `UInt8` with the metadata `width`, `height` and `encoding`: it is written to shared memory once and read without a copy, and nodes of the dora hub expect it.
It fits `std/media/v1/Image`, as does the struct, whose `data` a reader has to unpack; both are shown as pictures by `dora ui` and the viewers, and by their size by `dora topic echo`. In the same way, the other fields of
`PointCloud`, `AudioFrame` and `Segmentation` may be metadata of an array with the data. `CompressedImage` is an array of `UInt8`, or one binary value.

A timer is a `std/core/v1/UInt64`, a log line a `std/core/v1/String`. `std/core/v1/Bytes` as the type of an input accepts everything. Numbers fit a wider type of the same kind:
`UInt8` a `UInt32` and `UInt64`, `UInt32` a `UInt64`, `Int32` an `Int64`, `Float32` a `Float64`; `type_rules` of the file adds more.

## Types of your own

Files in the folder `types/` beside the dataflow; `types/lab/sensors/v1.yml` defines types that begin with `lab/sensors/v1/`:

```yaml
types:
  Range:
    arrow: Struct
    fields:
      - {name: metres, type: Float32}
      - {name: valid, type: Boolean}
    parameters: [unit]
```
"""


def render() -> str:
    parts = [INTRODUCTION]
    columns = ("type", "Arrow", "fields", "parameters")
    for category, found in groupby(STANDARD_TYPES.values(), _category):
        parts += [f"## std/{category}\n", table(columns, [_row(one) for one in found]), ""]
    return "\n".join([*parts, ENDING])


def _category(one: TypeDefinition) -> str:
    return one.name.split("/")[1]


def _row(one: TypeDefinition) -> tuple[str, ...]:
    fields = ", ".join(f"`{name}`: {kind}" for name, kind in one.fields.items())
    parameters = ", ".join(f"`{name}`" for name in sorted(one.parameters or ()))
    return (f"`{one.name}`", one.arrow, fields, parameters)
