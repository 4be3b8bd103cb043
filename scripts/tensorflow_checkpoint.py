"""Reads TensorFlow V2 checkpoints (``X.index`` and ``X.data-00000-of-00001``) with only numpy.

The index is a LevelDB table that maps each variable's name to the position of its bytes in the data file. Formats:
https://github.com/google/leveldb/blob/main/doc/table_format.md,
https://github.com/google/snappy/blob/main/format_description.txt and tensor_bundle.proto in TensorFlow.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TABLE_MAGIC = 0xDB4775248B80FB57  # LevelDB table_format.md, the footer's last eight bytes
FOOTER_BYTES = 48
CRC32C_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected (RFC 3720, appendix B.4)
CRC_MASK_DELTA = 0xA282EAD8  # LevelDB util/crc32c.h: stored checksums are rotated and shifted by this
UNCOMPRESSED, SNAPPY = 0, 1  # LevelDB's block types

# TensorFlow types.proto, DataType: only the types in the checkpoints of networks.
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}


class CheckpointError(ValueError):
    """The checkpoint does not follow its format, or its bytes do not match their checksums."""


def _crc_table() -> list[int]:
    table: list[int] = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (CRC32C_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return table


_CRC_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of ``data``, at about 8 MB/s in plain Python."""
    table = _CRC_TABLE
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """The checksum in the form that LevelDB and TensorFlow store."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + CRC_MASK_DELTA) & 0xFFFFFFFF


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The value of the base-128 integer at ``at``, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def snappy_decompress(data: bytes) -> bytes:
    """Decompress Snappy's raw (unframed) format."""
    expected, at = read_varint(data, 0)
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        if tag & 3 == 0:
            length = (tag >> 2) + 1
            if length > 60:
                extra = length - 60
                length = int.from_bytes(data[at : at + extra], "little") + 1
                at += extra
            out += data[at : at + length]
            at += length
            continue
        if tag & 3 == 1:
            length = ((tag >> 2) & 7) + 4
            offset = (tag >> 5) << 8 | data[at]
            at += 1
        else:
            length = (tag >> 2) + 1
            offset_bytes = 2 if tag & 3 == 2 else 4
            offset = int.from_bytes(data[at : at + offset_bytes], "little")
            at += offset_bytes
        if not 0 < offset <= len(out):
            raise CheckpointError(
                f"snappy: a copy reaches {offset} bytes back, but only {len(out)} are written"
            )
        for _ in range(length):  # byte by byte: a copy may overlap its own output
            out.append(out[-offset])
    if len(out) != expected:
        raise CheckpointError(f"snappy: expected {expected} bytes, found {len(out)}")
    return bytes(out)


def _protobuf_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field; fixed-width values and messages are bytes."""
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = read_varint(message, at)
            yield number, value
            continue
        if wire_type == 2:
            size, at = read_varint(message, at)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise CheckpointError(f"protobuf: unknown wire type {wire_type}")
        yield number, message[at : at + size]
        at += size


def _block(table: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the table block at ``handle`` (offset and size)."""
    offset, at = read_varint(handle, 0)
    size, _ = read_varint(handle, at)
    body, trailer = table[offset : offset + size], table[offset + size : offset + size + 5]
    if masked_crc32c(body + trailer[:1]) != struct.unpack("<I", trailer[1:])[0]:
        raise CheckpointError(f"index: the block at byte {offset} does not match its checksum")
    if trailer[0] == SNAPPY:
        body = snappy_decompress(body)
    elif trailer[0] != UNCOMPRESSED:
        raise CheckpointError(f"index: unknown block type {trailer[0]}")

    restarts = struct.unpack("<I", body[-4:])[0]
    end = len(body) - 4 * (restarts + 1)
    at, key = 0, b""
    while at < end:
        # A key is stored without the prefix that it shares with the previous key.
        shared, at = read_varint(body, at)
        unshared, at = read_varint(body, at)
        value_size, at = read_varint(body, at)
        key = key[:shared] + body[at : at + unshared]
        at += unshared
        yield key, body[at : at + value_size]
        at += value_size


@dataclass(frozen=True, slots=True)
class Variable:
    """The position of one variable in the data file (BundleEntryProto)."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    offset: int
    size: int
    crc: int


def _variable(name: str, entry: bytes) -> Variable:
    numbers = {1: 0, 3: 0, 4: 0, 5: 0}  # dtype, shard, offset, size: protobuf omits zeros
    shape: list[int] = []
    crc = 0
    for number, value in _protobuf_fields(entry):
        if number == 2 and isinstance(value, bytes):
            dims = [dim for field, dim in _protobuf_fields(value) if field == 2 and isinstance(dim, bytes)]
            sizes = [dict(_protobuf_fields(dim)).get(1, 0) for dim in dims]
            shape = [size for size in sizes if isinstance(size, int)]
        elif number == 6 and isinstance(value, bytes):
            crc = struct.unpack("<I", value)[0]
        elif number in numbers and isinstance(value, int):
            numbers[number] = value
    if numbers[3] != 0:
        raise CheckpointError(
            f"{name}: is in data file {numbers[3]}; only checkpoints with one data file are supported"
        )
    return Variable(name, numbers[1], tuple(shape), numbers[4], numbers[5], crc)


class Checkpoint:
    """The variables of one checkpoint, by name. Each is read and verified on access."""

    def __init__(self, index: bytes, data: bytes) -> None:
        footer = index[-FOOTER_BYTES:]
        if len(footer) < FOOTER_BYTES or struct.unpack("<Q", footer[-8:])[0] != TABLE_MAGIC:
            raise CheckpointError("index: not a LevelDB table")
        at = 0
        for _ in range(2):  # skip the handle of the metaindex, which is empty in TensorFlow's files
            _, at = read_varint(footer, at)
        self._data = data
        self._variables = {
            key.decode(): _variable(key.decode(), entry)
            for _, handle in _block(index, footer[at:])
            for key, entry in _block(index, handle)
            if key  # the header has the empty key
        }

    def names(self) -> list[str]:
        """The variables' names, in the order of the index."""
        return list(self._variables)

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        """The variable ``name``. Raises CheckpointError if its bytes do not match their checksum."""
        variable = self._variables[name]
        raw = self._data[variable.offset : variable.offset + variable.size]
        if masked_crc32c(raw) != variable.crc:
            raise CheckpointError(f"{name}: does not match its checksum")
        return np.frombuffer(raw, np.dtype(DTYPES[variable.dtype])).reshape(variable.shape)
