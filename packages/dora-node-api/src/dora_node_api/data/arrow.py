"""Encode Arrow arrays into flat payloads, and decode them without copying.

A payload is a *descriptor* (type and position of each buffer), the metadata (module `metadata`),
and the *data area*, which begins at a multiple of 64 bytes. Flat types are written buffer by
buffer; all others (nested, dictionary, views, extensions) as an Arrow IPC stream, which is read in
place too. pyarrow is imported by `load_pyarrow`, or with the first array.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dora_node_api.data.metadata import OnWarning, UnsupportedData, encode_metadata
from dora_node_api.transport.shared.layout import ALIGNMENT
from dora_node_api.transport.shared.payload import Payload

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

FLAT = 1
IPC = 2
"""Layouts of a data area: buffers of a flat array, or an Arrow IPC stream.

The layout is the low byte of the block head's `layout` word. The rest of the word is the array's
offset in bits, for bitmaps that do not begin at a whole byte.
"""

_NO_BUFFER = (1 << 64) - 1
"""Position in a descriptor of a buffer that the array does not have."""
_DESCRIPTOR = struct.Struct("=BBH")
_BUFFER = struct.Struct("=QQ")
_ACCEPTED = (
    "pass bytes, a pyarrow Array (pyarrow.array(...)), a numpy array, or any other object "
    "with the buffer protocol"
)


# --- encoding ---------------------------------------------------------------------------------
def encode(
    data: Any, metadata: Mapping[str, Any] | None = None, *, on_warning: OnWarning | None = None
) -> Payload:
    """Describe ``data`` (bytes, pyarrow Array, numpy array, any buffer) and metadata for sending.

    Nothing is copied yet; ``data`` must not change before the payload was sent. A numpy array of
    several dimensions is flattened in C order. A RecordBatch is sent as a struct array.
    ``on_warning`` is called for each metadata value that was converted to text.
    Raises UnsupportedData (a TypeError), which names the accepted types.
    """
    encoded = encode_metadata(metadata, on_warning=on_warning) if metadata else b""
    kind = type(data)
    if kind is bytes:
        size = len(data)
        return Payload(_flat_descriptor(b"uint8", size), encoded, FLAT, size, 0, size, ((0, data),))
    pa = _types_made.pa if _types_made is not None else _imported_pyarrow()
    if pa is not None:
        if isinstance(data, pa.Array):
            return _encode_array(data, encoded)
        if isinstance(data, (pa.ChunkedArray, pa.RecordBatch, pa.Table, pa.Scalar)):
            return _encode_array(_as_array(data), encoded)
        if isinstance(data, pa.Buffer):  # an untyped buffer: its memoryview has signed bytes
            data = memoryview(data).cast("B")
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(data, numpy.ndarray):
        return _encode_numpy(data, encoded, numpy)
    if hasattr(kind, "__arrow_c_array__"):
        import pyarrow

        return _encode_array(pyarrow.array(data), encoded)
    return _encode_buffer(data, encoded)


def raw_payload(nbytes: int, metadata: bytes) -> Payload:
    """Return the head of a message whose ``nbytes`` bytes the caller writes."""
    return Payload(_flat_descriptor(b"uint8", nbytes), metadata, FLAT, nbytes, 0, nbytes, ())


def _imported_pyarrow() -> Any:
    """Return pyarrow if its import is complete, else None."""
    module = sys.modules.get("pyarrow")
    return None if getattr(getattr(module, "__spec__", None), "_initializing", False) else module


@lru_cache(256)
def _flat_descriptor(type_name: bytes, size: int, form: int = 0) -> bytes:
    """Descriptor of a fixed-width type without nulls: one buffer of ``size`` bytes."""
    return (
        _DESCRIPTOR.pack(form, 2, len(type_name))
        + _BUFFER.pack(_NO_BUFFER, 0)
        + _BUFFER.pack(0, size)
        + type_name
    )


def _as_array(data: Any) -> pa.Array:
    """Convert other objects of pyarrow to one array. Raises UnsupportedData."""
    import pyarrow

    if isinstance(data, pyarrow.ChunkedArray):
        combined = data.combine_chunks() if data.num_chunks != 1 else data.chunk(0)
        if isinstance(combined, pyarrow.ChunkedArray):
            raise UnsupportedData(
                "cannot send this ChunkedArray as one message: its chunks are too large for one "
                "array; send them one by one (`for chunk in data.chunks`)"
            )
        return combined
    if isinstance(data, pyarrow.RecordBatch):
        return data.to_struct_array()
    if isinstance(data, pyarrow.Table):
        raise UnsupportedData(
            "cannot send a pyarrow Table as one message: send its batches one by one "
            "(`for batch in table.to_batches()`)"
        )
    raise UnsupportedData(
        f"cannot send a pyarrow {type(data).__name__}: wrap it in an array "
        "(`pyarrow.array([scalar.as_py()], scalar.type)`)"
    )


def _encode_buffer(data: Any, metadata: bytes) -> Payload:
    try:
        view = memoryview(data)
    except TypeError:
        hint = ""
        if isinstance(data, str):
            hint = " (for text: `data.encode()` or `pyarrow.array([data])`)"
        elif isinstance(data, (list, tuple, int, float, dict)):
            hint = " (for Python values: `pyarrow.array([...])`)"
        raise UnsupportedData(
            f"invalid `data`: cannot send type {type(data).__name__}; {_ACCEPTED}{hint}"
        ) from None
    type_name = _buffer_type(view)
    if not view.contiguous:
        flat: Any = view.tobytes()
    elif view.ndim == 1 and view.format == "B":
        flat = view
    else:
        flat = view.cast("B") if view.c_contiguous else view.tobytes()
    size = view.nbytes
    length = size // view.itemsize if view.itemsize else 0
    return Payload(_flat_descriptor(type_name, size), metadata, FLAT, length, 0, size, ((0, flat),))


def _buffer_type(view: memoryview) -> bytes:
    code = view.format.lstrip("@=" + ("<" if sys.byteorder == "little" else ">"))
    bits = view.itemsize * 8
    if code in ("c", "B", "?"):
        return b"uint8"
    if code and code in "bhilqn":
        return b"int%d" % bits
    if code and code in "HILQN":
        return b"uint%d" % bits
    if code in _FLOAT_CODES:
        return _FLOAT_CODES[code]
    raise UnsupportedData(
        f"cannot send a buffer with elements of format {view.format!r}; send numbers, "
        "or its bytes (`memoryview(data).tobytes()`)"
    )


_FLOAT_CODES = {"e": b"halffloat", "f": b"float", "d": b"double"}
_NUMPY_TYPES = {
    f"{kind}{size}": b"%sint%d" % (b"u" if kind == "u" else b"", size * 8)
    for kind in "iu"
    for size in (1, 2, 4, 8)
} | {"f2": b"halffloat", "f4": b"float", "f8": b"double"}


def _encode_numpy(data: np.ndarray[Any, Any], metadata: bytes, numpy: Any) -> Payload:
    type_name = _NUMPY_TYPES.get(data.dtype.str[1:])
    if type_name is None or isinstance(data, numpy.ma.MaskedArray):
        return _encode_array(_numpy_to_arrow(data, numpy), metadata)
    size = data.nbytes
    part: Any
    if data.flags.c_contiguous and data.dtype.isnative:
        part = memoryview(data.reshape(-1).view(numpy.uint8))
    else:

        def part(view: memoryview) -> None:
            target = numpy.frombuffer(view, data.dtype.newbyteorder("="), data.size)
            target.reshape(data.shape)[...] = data

    return Payload(
        _flat_descriptor(type_name, size), metadata, FLAT, data.size, 0, size, ((0, part),)
    )


def _numpy_to_arrow(data: np.ndarray[Any, Any], numpy: Any) -> pa.Array:
    """Convert types with another memory layout: booleans, text, times, masked arrays."""
    import pyarrow

    flat = data.reshape(-1)
    mask = None
    if isinstance(data, numpy.ma.MaskedArray):
        mask = numpy.ma.getmaskarray(flat)
        flat = numpy.ma.getdata(flat)
    if not flat.dtype.isnative:
        flat = flat.astype(flat.dtype.newbyteorder("="))
    try:
        return pyarrow.array(flat, mask=mask)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise UnsupportedData(
            f"cannot send a numpy array of dtype {data.dtype}: {error}; {_ACCEPTED}"
        ) from error


class _Types:
    """pyarrow's flat types by their number, with their names in descriptors."""

    def __init__(self) -> None:
        import pyarrow as pa

        self.pa = pa
        simple = [
            *(getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)),
            pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.date32(), pa.date64(),
        ]  # fmt: skip
        self.widths: dict[int, int] = {t.id: t.bit_width for t in simple}
        self.names: dict[int, bytes] = {t.id: str(t).encode() for t in simple}
        # Of types with elements of whole bytes: the size of an element, and the name.
        self.whole_bytes: dict[int, tuple[int, bytes]] = {
            t.id: (t.bit_width >> 3, str(t).encode()) for t in simple if t.bit_width >= 8
        }
        text = (pa.string(), pa.binary(), pa.large_string(), pa.large_binary())
        self.text: dict[int, int] = {t.id: 8 if str(t).startswith("large") else 4 for t in text}
        self.names.update({t.id: str(t).encode() for t in text})
        # The widths of these depend on their parameters.
        parametric = (
            pa.timestamp("us"), pa.time32("s"), pa.time64("us"), pa.duration("us"),
            pa.binary(1), pa.decimal128(1), pa.decimal256(1),
        )  # fmt: skip
        self.parametric = {t.id for t in parametric}
        self.null = pa.null().id
        self.nothing = pa.nulls(0)
        self.written: dict[Any, tuple[int, bytes]] = {}
        self.aliases: dict[bytes, Any] = {str(t).encode(): t for t in (*simple, *text, pa.null())}
        self.described: dict[bytes, tuple[Any, tuple[tuple[int, int] | None, ...], int]] = {}
        # By descriptor: type and bytes an element, of payloads of elements without nulls only.
        self.plain: dict[bytes, tuple[Any, int]] = {}
        self.restore = _restorer(pa)
        # Looked up once, because they are called for every message.
        self.array = pa.Array
        self.from_buffers = pa.Array.from_buffers
        self.foreign_buffer = pa.foreign_buffer

    def write(self, data_type: Any) -> tuple[int, bytes]:
        """Return the form and the bytes of a type in a descriptor."""
        name = self.names.get(data_type.id)
        if name is not None:
            return 0, name
        known = self.written.get(data_type)
        if known is None:
            schema = self.pa.schema([self.pa.field("", data_type)])
            if len(self.written) > 256:
                self.written.clear()
            known = self.written[data_type] = (1, schema.serialize().to_pybytes())
        return known

    def read(self, form: int, written: bytes) -> Any:
        if form == 0:
            return self.aliases[written]
        return self.pa.ipc.read_schema(self.pa.py_buffer(written)).field(0).type


def _restorer(pa: Any) -> Any:
    """Return the function by which pickle makes an array, at half the cost of `from_buffers`.

    Old pickles contain its argument, so it should not change; if it does, `from_buffers` replaces
    it. It checks nothing: the caller must check the sizes.
    """
    # Not `pa.array`, nor `to_numpy`: they import pandas if it is installed.
    sample = pa.Array.from_buffers(pa.uint8(), 2, [None, pa.py_buffer(b"\1\2")])
    restore, arguments = sample.__reduce__()
    parts: tuple[Any, ...] = (sample.type, 2, 0, 0, sample.buffers(), [], None)
    if arguments == (parts,) and restore(parts).equals(sample):
        return restore
    return lambda parts: pa.Array.from_buffers(parts[0], parts[1], parts[4], parts[2], parts[3])


_types_made: _Types | None = None


def _types() -> _Types:
    global _types_made
    if _types_made is None:
        _types_made = _Types()
    return _types_made


def load_pyarrow() -> None:
    """Import what the first array needs; takes 0.2 s."""
    _types()


def null_array() -> pa.Array:
    """Return the value of a tick: an empty array of null type, always the same one."""
    return _types().nothing


def _encode_array(array: pa.Array, metadata: bytes) -> Payload:
    types = _types_made or _types()
    data_type = array.type
    number = data_type.id
    plain = types.whole_bytes.get(number)
    if plain is not None:
        # The usual case, faster than `_encode_fixed`: the whole of one buffer.
        validity, values = array.buffers()
        if validity is None and values is not None and not array.offset:
            length, size = len(array), len(values)
            if size and size == length * plain[0]:
                return Payload(
                    _flat_descriptor(plain[1], size), metadata, FLAT, length, 0, size,
                    ((0, values),),
                )  # fmt: skip
    width = types.widths.get(number)
    if width is not None or number in types.parametric:
        payload = _encode_fixed(array, width or data_type.bit_width, types, metadata)
        if payload is not None:
            return payload
    elif number in types.text:
        payload = _encode_text(array, types.text[number], types, metadata)
        if payload is not None:
            return payload
    elif number == types.null:
        return Payload(
            _DESCRIPTOR.pack(0, 0, 4) + b"null", metadata, FLAT, len(array), len(array), 0, ()
        )
    return _encode_ipc(array, metadata)


def _encode_fixed(array: pa.Array, width: int, types: _Types, metadata: bytes) -> Payload | None:
    length = len(array)
    validity, values = array.buffers()
    if not length or values is None or width == 0:
        return None
    offset = array.offset
    if validity is not None and not array.null_count:
        validity = None
    if validity is None and width >= 8:
        shift = 0
        start = offset
    else:
        # Bitmaps are copied by whole bytes; the receiver skips the bits before the first element.
        shift = offset & 7
        start = offset - shift
    count = length + shift
    if width >= 8:
        first, last = start * width >> 3, (start + count) * width >> 3
    else:
        first, last = start >> 3, start + count + 7 >> 3
    body: Any = values
    if first or last != len(values):
        body = memoryview(values).cast("B")[first:last]
    form, name = types.write(array.type)
    size = last - first
    if validity is None:
        descriptor = _flat_descriptor(name, size, form)
        word = FLAT | shift << 8
        return Payload(descriptor, metadata, word, length, 0, size, ((0, body),))
    bitmap = memoryview(validity).cast("B")[start >> 3 : start + count + 7 >> 3]
    values_at = -(-len(bitmap) // ALIGNMENT) * ALIGNMENT
    descriptor = (
        _DESCRIPTOR.pack(form, 2, len(name))
        + _BUFFER.pack(0, len(bitmap))
        + _BUFFER.pack(values_at, size)
        + name
    )
    return Payload(
        descriptor,
        metadata,
        FLAT | shift << 8,
        length,
        array.null_count,
        values_at + size,
        ((0, bitmap), (values_at, body)),
    )


def _encode_text(
    array: pa.Array, offset_size: int, types: _Types, metadata: bytes
) -> Payload | None:
    length = len(array)
    validity, offsets, values = array.buffers()
    if not length or offsets is None:
        return None
    shift = array.offset & 7 if validity is not None else 0
    start = array.offset - shift
    end = start + length + shift
    table = memoryview(offsets).cast("B")[start * offset_size : (end + 1) * offset_size]
    integers = table.cast("i" if offset_size == 4 else "q")
    if integers[0] != 0:
        return None  # sent as IPC, which rewrites the offsets of a slice
    text_size = integers[len(integers) - 1]
    parts: list[tuple[int, Any]] = []
    places: list[tuple[int, int]] = []
    at = 0
    bitmap = None if validity is None else memoryview(validity).cast("B")[start >> 3 : end + 7 >> 3]
    text = memoryview(b"") if values is None else memoryview(values).cast("B")[:text_size]
    for part in (bitmap, table, text):
        if part is None:
            places.append((_NO_BUFFER, 0))
            continue
        parts.append((at, part))
        places.append((at, len(part)))
        at += -(-len(part) // ALIGNMENT) * ALIGNMENT
    form, name = types.write(array.type)
    descriptor = (
        _DESCRIPTOR.pack(form, 3, len(name))
        + b"".join(_BUFFER.pack(*place) for place in places)
        + name
    )
    nulls = array.null_count if validity is not None else 0
    return Payload(descriptor, metadata, FLAT | shift << 8, length, nulls, at, tuple(parts))


def _encode_ipc(array: pa.Array, metadata: bytes) -> Payload:
    pa = _types().pa
    try:
        batch = pa.RecordBatch.from_arrays([array], names=[""])
        counter = pa.MockOutputStream()
        with pa.ipc.new_stream(counter, batch.schema) as stream:
            stream.write_batch(batch)
    except pa.ArrowException as error:
        raise UnsupportedData(f"cannot send an array of type {array.type}: {error}") from error

    def write(view: memoryview) -> None:
        sink = pa.FixedSizeBufferWriter(pa.py_buffer(view))
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        sink.close()

    descriptor = _DESCRIPTOR.pack(0, 0, 0)
    return Payload(descriptor, metadata, IPC, len(array), -1, counter.size(), ((0, write),))


# --- decoding ---------------------------------------------------------------------------------
def plain_size(descriptor: bytes, length: int) -> int:
    """Return the size of ``length`` numbers without nulls; -1 for a descriptor of another type.

    Does not import pyarrow.
    """
    if not _NUMBERS_AT < len(descriptor) <= _MAX_PLAIN:
        return -1
    width, size = _plain_numbers(descriptor)
    return size if width * length == size else -1


_NUMBERS_AT = _DESCRIPTOR.size + 2 * _BUFFER.size
_WIDTHS = {name: int(code[1:]) for code, name in _NUMPY_TYPES.items()}
_MAX_PLAIN = _NUMBERS_AT + max(map(len, _WIDTHS))


@lru_cache(256)
def _plain_numbers(descriptor: bytes) -> tuple[int, int]:
    """Return the width of a number and the size of the data area; a negative width if neither."""
    name = descriptor[_NUMBERS_AT:]
    _, size = _BUFFER.unpack_from(descriptor, _DESCRIPTOR.size + _BUFFER.size)
    plain = name in _WIDTHS and descriptor == _flat_descriptor(name, size)
    return (_WIDTHS[name], size) if plain else (-1, -1)


def buffer_of(base: bytes, offset: int, size: int) -> Any:
    """Return a pyarrow buffer over part of a bytes object."""
    return _types().pa.py_buffer(base).slice(offset, size)


def decode_in_place(
    descriptor: bytes,
    layout: int,
    length: int,
    null_count: int,
    address: int,
    size: int,
    base: object,
    validate: bool,
) -> pa.Array:
    """Decode ``size`` bytes at ``address``, which exist as long as ``base``."""
    types = _types_made or _types()
    data = types.foreign_buffer(address, size, base)
    plain = types.plain.get(descriptor)
    if plain is not None and layout == FLAT and length * plain[1] == size:
        return types.restore((plain[0], length, 0, 0, (None, data), (), None))
    return decode(descriptor, layout, length, null_count, data, validate=validate)


def decode(
    descriptor: bytes,
    layout: int,
    length: int,
    null_count: int,
    data: Any,
    *,
    validate: bool = False,
) -> pa.Array:
    """Return the array of a payload over the buffer ``data``, without a copy.

    ``validate`` checks all contents, for data from an untrusted producer. Raises ValueError,
    KeyError or a pyarrow error (which derive from these) for an invalid payload.
    """
    types = _types()
    pa = types.pa
    if layout & 0xFF == IPC:
        array = pa.ipc.open_stream(data).read_next_batch().column(0)
    elif layout & 0xFF == FLAT:
        array = _decode_flat(types, descriptor, layout >> 8, length, null_count, data)
    else:
        raise ValueError(f"unknown layout {layout & 0xFF}")
    if validate:
        array.validate(full=True)
    return array


def _decode_flat(
    types: _Types, descriptor: bytes, shift: int, length: int, null_count: int, data: Any
) -> pa.Array:
    described = types.described.get(descriptor)
    if described is None:
        described = _read_descriptor(types, descriptor)
    data_type, places, end = described
    if end > data.size:
        raise ValueError(f"buffers end at {end} in a payload of {data.size} bytes")
    if not places:
        return types.pa.nulls(length, data_type)
    if len(places) == 2 and places[0] is None and places[1] == (0, data.size):
        buffers = [None, data]  # the usual case: one buffer is the whole payload
    else:
        buffers = [None if place is None else data.slice(*place) for place in places]
    return types.from_buffers(data_type, length, buffers, null_count, shift)


def _read_descriptor(
    types: _Types, descriptor: bytes
) -> tuple[Any, tuple[tuple[int, int] | None, ...], int]:
    try:
        form, count, size = _DESCRIPTOR.unpack_from(descriptor)
        places = [
            _BUFFER.unpack_from(descriptor, _DESCRIPTOR.size + i * _BUFFER.size)
            for i in range(count)
        ]
    except struct.error as error:
        raise ValueError(f"invalid descriptor of {len(descriptor)} bytes: {error}") from error
    data_type = types.read(form, descriptor[_DESCRIPTOR.size + count * _BUFFER.size :][:size])
    known = tuple(None if place[0] == _NO_BUFFER else place for place in places)
    end = max((place[0] + place[1] for place in known if place is not None), default=0)
    if len(types.described) > 1024:
        types.described.clear()
        types.plain.clear()
    types.described[descriptor] = (data_type, known, end)
    if form == 0 and len(known) == 2 and known[0] is None and known[1] and not known[1][0]:
        width = types.widths.get(data_type.id, 0)
        if width >= 8:
            types.plain[descriptor] = (data_type, width >> 3)
    return types.described[descriptor]
