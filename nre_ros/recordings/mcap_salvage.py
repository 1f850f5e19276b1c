"""The messages of an mcap file that was cut off: read from its start, without the index at its end."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from rosbags.rosbag2.storage_mcap import decompress

MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F

Salvaged = tuple[str, str, int, bytes]
"""Topic, type, time of logging in ns, serialized message."""


def salvage_mcap(file: Path) -> Iterator[Salvaged]:
    """Every whole message, in the order in which they were written, up to where the file ends or is damaged."""
    with file.open("rb") as stream:
        if stream.read(len(MAGIC)) == MAGIC:
            yield from _McapReader().messages(stream, file.stat().st_size)


class _McapReader:
    def __init__(self) -> None:
        self._kinds: dict[int, str] = {}
        self._channels: dict[int, tuple[str, str]] = {}

    def messages(self, stream: BinaryIO, size: int) -> Iterator[Salvaged]:
        """From a stream of records of so many bytes: the file, or what a chunk holds."""
        while len(head := stream.read(9)) == 9:
            opcode, length = struct.unpack("<BQ", head)
            whole = length <= size - stream.tell()
            if opcode == _DATA_END or not (whole or opcode == _CHUNK):
                return
            body = stream.read(min(length, size - stream.tell()))
            try:
                yield from self._messages_of(opcode, body)
            except (struct.error, UnicodeDecodeError):
                return

    def _messages_of(self, opcode: int, body: bytes) -> Iterator[Salvaged]:
        if opcode == _SCHEMA:
            (number,) = struct.unpack_from("<H", body)
            self._kinds[number] = _string(body, 2)
        elif opcode == _CHANNEL:
            number, schema = struct.unpack_from("<HH", body)
            self._channels[number] = (_string(body, 4), self._kinds.get(schema, ""))
        elif opcode == _MESSAGE:
            number, _, log_ns, _ = struct.unpack_from("<HIQQ", body)
            if number in self._channels:
                yield *self._channels[number], log_ns, body[22:]
        elif opcode == _CHUNK:
            records = _records_of_chunk(body)
            yield from self.messages(BytesIO(records), len(records))


def _records_of_chunk(body: bytes) -> bytes:
    """Of a chunk that is whole, or the beginning of one that is not and was not compressed; else nothing."""
    uncompressed, crc = struct.unpack_from("<QI", body, 16)
    compression = _string(body, 28)
    at = 32 + len(compression)
    (length,) = struct.unpack_from("<Q", body, at)
    records = body[at + 8 : at + 8 + length]
    if len(records) < length:
        return b"" if compression else records
    try:
        return decompress(records, compression, uncompressed, crc)
    except Exception:  # damaged bytes make zstd and lz4 fail in many ways
        return b""


def _string(body: bytes, at: int) -> str:
    (length,) = struct.unpack_from("<I", body, at)
    return body[at + 4 : at + 4 + length].decode()
