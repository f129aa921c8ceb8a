"""Arrays and metadata to a payload and back: same type, same content, no copy where promised."""

from __future__ import annotations

import array
import contextlib
import ctypes
import datetime as dt
import enum
import math
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from dora_node_api.data import arrow
from dora_node_api.data.arrow import FLAT, IPC
from dora_node_api.data.metadata import UnsupportedData, decode_metadata, encode_metadata
from dora_node_api.transport.shared.layout import ALIGNMENT
from dora_node_api.transport.shared.payload import LARGE_COPY


def through(data: Any, *, validate: bool = True) -> pa.Array:
    """What a receiver sees of ``data``."""
    payload = arrow.encode(data)
    block = bytearray(payload.total)
    payload.write_into(block)
    start = 64
    descriptor = bytes(block[start : start + len(payload.descriptor)])
    area = pa.py_buffer(bytes(block)).slice(payload.data_offset, payload.nbytes)
    return arrow.decode(
        descriptor, payload.layout, payload.length, payload.null_count, area, validate=validate
    )


FLAT_ARRAYS = [
    pa.array([1, None, 3], t)
    for t in (
        pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(),
        pa.uint64(), pa.float32(), pa.float64(), pa.date32(), pa.timestamp("ns"),
        pa.timestamp("us", tz="Europe/Berlin"), pa.time32("ms"), pa.time64("ns"),
        pa.duration("s"), pa.decimal128(10, 2), pa.decimal256(50, 3),
    )
] + [
    pa.array(np.array([1.5, -2], np.float16)),
    pa.array([True, None, False]),
    pa.array(["a", None, "ünï", ""]),
    pa.array([b"a", None, b"\0\xff"], pa.binary()),
    pa.array(["a", None, "bcd"], pa.large_string()),
    pa.array([b"a", None], pa.large_binary()),
    pa.array([b"abc", None, b"def"], pa.binary(3)),
    pa.nulls(5),
]  # fmt: skip
OTHER_ARRAYS = [
    pa.array([[1, 2], None, [], [3]]),
    pa.array([[1.0, 2.0]] * 3, pa.list_(pa.float32(), 2)),
    pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": ["y"][0]}]),
    pa.array([{"a": [{"c": 1}]}, {"a": []}]),
    pa.array(["x", "y", "x", None]).dictionary_encode(),
    pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int8())),
    pa.array(["view", "a much longer string than twelve"], pa.string_view()),
    pa.UnionArray.from_sparse(
        pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]
    ),
    pa.array([], pa.int64()),
    pa.array([], pa.string()),
    pa.array([], pa.list_(pa.int8())),
    pa.array([b""] * 2, pa.binary(0)),
    pa.RunEndEncodedArray.from_arrays([3, 5], [1, 2]),
]


@pytest.mark.parametrize("data", FLAT_ARRAYS + OTHER_ARRAYS, ids=lambda a: str(a.type))
def test_every_type_arrives_as_it_was(data: pa.Array) -> None:
    got = through(data)
    assert got.type == data.type
    assert got.equals(data)


@pytest.mark.parametrize("data", FLAT_ARRAYS, ids=lambda a: str(a.type))
def test_flat_types_use_the_fast_path(data: pa.Array) -> None:
    assert arrow.encode(data).layout & 0xFF == FLAT


@pytest.mark.parametrize("data", FLAT_ARRAYS + OTHER_ARRAYS, ids=lambda a: str(a.type))
def test_slices_of_every_type(data: pa.Array) -> None:
    longer = pa.concat_arrays([data] * 9) if len(data) and data.type.id != 38 else data
    for start in (0, 1, 7, 8, 9, 17):
        for length in (0, 1, 8, 100):
            part = longer.slice(start, length)
            if not str(data.type).startswith("run_end"):
                assert through(part).equals(part)


def test_a_slice_sends_only_its_part() -> None:
    numbers = pa.array(range(100_000), pa.int64())
    assert arrow.encode(numbers[500:510]).nbytes == 80
    words = pa.array(["a" * 1000] * 1000)
    assert arrow.encode(words[:10]).nbytes < 20_000
    assert arrow.encode(words[500:510]).nbytes < 20_000


class Celsius(pa.ExtensionType):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(pa.float64(), "test.celsius")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: Any, serialized: bytes) -> Celsius:
        return cls()


def test_an_extension_type_arrives_as_itself_where_it_is_known_and_as_storage_elsewhere() -> None:
    values = pa.ExtensionArray.from_storage(Celsius(), pa.array([1.0, 2.0]))
    assert through(values).equals(pa.array([1.0, 2.0]))
    pa.register_extension_type(Celsius())
    try:
        assert through(values).type == Celsius()
    finally:
        pa.unregister_extension_type("test.celsius")


def test_array_like_objects() -> None:
    chunked = pa.chunked_array([[1, 2], [3]])
    assert through(chunked).equals(pa.array([1, 2, 3]))
    assert through(pa.chunked_array([pa.array([1])])).equals(pa.array([1]))
    assert through(pa.chunked_array([], pa.int8())).equals(pa.array([], pa.int8()))
    batch = pa.record_batch({"a": [1, 2], "b": ["x", None]})
    assert through(batch).equals(pa.array([{"a": 1, "b": "x"}, {"a": 2, "b": None}]))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("text", "encode"),
        ([1, 2], "pyarrow.array"),
        (3, "pyarrow.array"),
        (None, "NoneType"),
        (object(), "buffer protocol"),
        (pa.scalar(1), "array"),
        (pa.table({"a": [1]}), "to_batches"),
        (np.array([object()]), "numpy"),
        (np.array([1j]), "numpy"),
        (memoryview(bytes(16)).cast("P"), "format"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_refused_data_is_named(data: Any, problem: str) -> None:
    with pytest.raises(UnsupportedData, match=problem) as caught:
        arrow.encode(data)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, RuntimeError)


@pytest.mark.parametrize(
    "data",
    [
        b"abc",
        bytearray(b"abc"),
        memoryview(b"abc"),
        memoryview(b"aXbXcX")[::2],
        pa.py_buffer(b"abc"),
    ],
)
def test_bytes_arrive_as_uint8(data: Any) -> None:
    assert through(data).equals(pa.array(b"abc", pa.uint8()))
    assert through(b"").equals(pa.array([], pa.uint8()))


@pytest.mark.parametrize("code", "bBhHiIlLqQfd")
def test_buffers_of_numbers(code: str) -> None:
    values = array.array(code, [1, 2, 3])
    got = through(values)
    assert got.to_pylist() == [1, 2, 3]
    assert got.type.bit_width == values.itemsize * 8
    assert through((ctypes.c_int16 * 2)(4, -5)).equals(pa.array([4, -5], pa.int16()))


@pytest.mark.parametrize(
    "dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">i4", ">f8", "?"]
)
def test_numpy_arrays(dtype: str) -> None:
    values = np.array([[1, 0, 1], [0, 1, 1]], dtype=dtype)
    expected = values.reshape(-1).astype(values.dtype.newbyteorder("="))
    for given_ in (values, np.asfortranarray(values), np.repeat(values, 2, axis=1)[:, ::2]):
        got = through(given_)
        assert got.to_numpy(zero_copy_only=False).tolist() == expected.tolist()
        assert got.type == pa.from_numpy_dtype(expected.dtype)
    assert len(through(np.zeros((3, 0), dtype))) == 0
    assert len(through(np.array(1, dtype))) == 1


def test_numpy_times_text_and_masks() -> None:
    times = np.array(["2024-01-01", "NaT"], "M8[s]")
    assert through(times).equals(pa.array(times))
    assert through(np.array(["a", "bc"])).to_pylist() == ["a", "bc"]
    masked = np.ma.array([1, 2, 3], mask=[False, True, False])
    assert through(masked).to_pylist() == [1, None, 3]


def test_contiguous_numpy_is_not_copied_before_it_is_written() -> None:
    values = np.zeros(1000)
    payload = arrow.encode(values)
    values[:] = 7
    block = bytearray(payload.total)
    payload.write_into(block)
    assert np.frombuffer(block, "f8", 1000, payload.data_offset).tolist() == [7.0] * 1000


class HasArray:
    def __arrow_c_array__(self, requested_schema: object = None) -> Any:
        return pa.array([1, 2]).__arrow_c_array__(requested_schema)


def test_objects_with_the_arrow_interface() -> None:
    assert through(HasArray()).equals(pa.array([1, 2]))


def test_sending_while_another_thread_imports_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished = ModuleType("pyarrow")
    unfinished.__spec__ = ModuleSpec("pyarrow", None)
    unfinished.__spec__._initializing = True  # type: ignore[attr-defined]
    monkeypatch.setattr(arrow, "_types_made", None)
    monkeypatch.setitem(sys.modules, "pyarrow", unfinished)
    payload = arrow.encode(bytearray(b"ab"))
    assert (payload.length, payload.nbytes) == (2, 2)


def test_buffers_are_aligned_and_decoded_in_place() -> None:
    data = pa.array([1, None, 3] * 100)
    payload = arrow.encode(data)
    assert payload.data_offset % ALIGNMENT == 0
    block = bytearray(payload.total)
    payload.write_into(block)
    area = pa.py_buffer(block).slice(payload.data_offset)
    got = arrow.decode(payload.descriptor, payload.layout, payload.length, -1, area)
    low, high = area.address, area.address + area.size
    assert all(low <= part.address < high for part in got.buffers())
    nested = arrow.encode(pa.array([[1, 2]] * 100))
    assert nested.layout & 0xFF == IPC


values_ = st.one_of(
    st.lists(st.none() | st.integers(-(2**31), 2**31 - 1)).map(lambda v: pa.array(v, pa.int32())),
    st.lists(st.none() | st.booleans()).map(lambda v: pa.array(v, pa.bool_())),
    st.lists(st.none() | st.text()).map(lambda v: pa.array(v, pa.string())),
    st.lists(st.none() | st.binary()).map(lambda v: pa.array(v, pa.large_binary())),
    st.lists(st.none() | st.lists(st.integers(0, 9))).map(
        lambda v: pa.array(v, pa.list_(pa.int8()))
    ),
    st.lists(
        st.none() | st.fixed_dictionaries({"a": st.none() | st.text(), "b": st.booleans()})
    ).map(lambda v: pa.array(v, pa.struct({"a": pa.string(), "b": pa.bool_()}))),
    st.lists(st.text(max_size=2)).map(lambda v: pa.array(v, pa.string()).dictionary_encode()),
)


@given(values_, st.integers(0, 20), st.integers(0, 20))
def test_any_array_and_any_slice_of_it(data: pa.Array, start: int, length: int) -> None:
    assert through(data).equals(data)
    part = data.slice(min(start, len(data)), length)
    assert through(part).equals(part)


@given(
    st.lists(st.none() | st.integers(0, 255), max_size=40).map(lambda v: pa.array(v, pa.uint8()))
)
def test_a_received_array_can_be_forwarded(data: pa.Array) -> None:
    assert through(through(data)[1:]).equals(data[1:])


@given(st.binary(max_size=80))
def test_a_descriptor_of_any_bytes_is_refused_or_read(descriptor: bytes) -> None:
    with contextlib.suppress(ValueError, KeyError, TypeError, OSError, NotImplementedError):
        arrow.decode(descriptor, FLAT, 3, 0, pa.py_buffer(b"abc" * 30), validate=True)


def test_buffers_outside_the_payload_are_refused() -> None:
    payload = arrow.encode(b"abcdef")
    with pytest.raises(ValueError, match="payload of 5 bytes"):
        arrow.decode(payload.descriptor, FLAT, 6, 0, pa.py_buffer(b"abcde"))
    with pytest.raises(ValueError, match="layout"):
        arrow.decode(payload.descriptor, 7, 6, 0, pa.py_buffer(b"abcdef"))


def test_validation_finds_bad_offsets() -> None:
    payload = arrow.encode(pa.array(["abc", "de"]))
    block = bytearray(payload.total)
    payload.write_into(block)
    block[payload.data_offset + 4 : payload.data_offset + 8] = (99).to_bytes(4, "little")
    area = pa.py_buffer(bytes(block)).slice(payload.data_offset)
    arguments = (payload.descriptor, payload.layout, payload.length, 0, area)
    arrow.decode(*arguments)
    with pytest.raises(ValueError, match="offset"):
        arrow.decode(*arguments, validate=True)


# --- metadata ---------------------------------------------------------------------------------
def test_no_metadata_costs_nothing() -> None:
    assert encode_metadata(None) == b""
    assert encode_metadata({}) == b""
    assert decode_metadata(b"") == {}


class Level(enum.IntEnum):
    LOW = 1


def test_metadata_of_each_kind() -> None:
    berlin = dt.timezone(dt.timedelta(hours=2))
    sent = {
        "bool": True, "int": -(2**63), "big": 2**63 - 1, "float": 1.5, "text": "ü\ud800",
        "ints": [1, 2], "tuple": (3, 4), "floats": [1.5, 2.0], "mixed": [1, 2.5], "texts": ["a"],
        "empty": [], "time": dt.datetime(2024, 5, 6, 7, 8, 9, 123456, berlin), "enum": Level.LOW,
        "inf": math.inf,
    }  # fmt: skip
    warned: list[str] = []
    got = decode_metadata(encode_metadata(sent, on_warning=warned.append))
    assert warned == []
    assert got == sent | {"tuple": [3, 4], "mixed": [1.0, 2.5]}
    assert type(got["mixed"][0]) is float
    assert type(got["bool"]) is bool
    assert got["time"].tzinfo is dt.timezone.utc  # noqa: UP017
    assert math.isnan(decode_metadata(encode_metadata({"n": math.nan}))["n"])


@pytest.mark.parametrize(
    "value", [None, {"a": 1}, 2**63, np.int64(3), b"x", ["a", 1], {1, 2}, dt.date(2024, 1, 1)]
)
def test_other_values_are_sent_as_text_with_a_warning(value: Any) -> None:
    warned: list[str] = []
    got = decode_metadata(encode_metadata({"k": value}, on_warning=warned.append))
    assert got == {"k": str(value)}
    assert len(warned) == 1
    assert "'k'" in warned[0]


def test_a_naive_datetime_is_local_time() -> None:
    naive = dt.datetime(2024, 5, 6, 7, 8, 9)
    got = decode_metadata(encode_metadata({"t": naive}))["t"]
    assert got == naive.astimezone()


def test_keys_must_be_text() -> None:
    with pytest.raises(UnsupportedData, match="keys must be str"):
        encode_metadata({1: "x"})  # type: ignore[dict-item]


plain = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(),
    st.lists(st.integers(-(2**63), 2**63 - 1)), st.lists(st.floats(allow_nan=False)),
    st.lists(st.text()),
    st.datetimes(timezones=st.just(dt.timezone.utc)),  # noqa: UP017
)  # fmt: skip


@given(st.dictionaries(st.text(), plain))
def test_any_metadata(metadata: dict[str, Any]) -> None:
    assert decode_metadata(encode_metadata(metadata)) == metadata


@given(st.binary(max_size=40))
def test_invalid_metadata_bytes_are_refused(encoded: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(decode_metadata(encoded), dict)


@pytest.mark.parametrize("two_cores", [False, True])
def test_a_copy_beyond_the_caches_is_whole(
    monkeypatch: pytest.MonkeyPatch, two_cores: bool
) -> None:
    monkeypatch.setattr("dora_node_api.transport.shared.payload.two_cores", lambda: two_cores)
    data = pa.array(np.arange((LARGE_COPY >> 3) + 3, dtype=np.int64))
    payload = arrow.encode(data)
    block = bytearray(payload.total)
    payload.write_into(block)
    assert block[payload.data_offset :] == memoryview(data.buffers()[1]).cast("B")[: payload.nbytes]
