"""The messages of a sqlite3 bag that was cut off, read page by page.

SQLite itself refuses a file whose tree of pages is not whole. A bag is only ever appended to, so its rows stand in the
leaf pages in the order in which they were recorded, and those before the cut are as they were. Format of the file:
https://www.sqlite.org/fileformat.html
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nre_ros.recordings.mcap_salvage import Salvaged

MAGIC = b"SQLite format 3\0"
_HEADER = 100
_LEAF_OF_TABLE = 0x0D

Row = list[int | bytes | None]


def is_short(file: Path) -> bool:
    """Whether the file is shorter than its header says."""
    with file.open("rb") as stream:
        head = stream.read(_HEADER)
    announced = int.from_bytes(head[28:32], "big") * _page_size(head) if head[:16] == MAGIC else 0
    return file.stat().st_size < announced


def salvage_sqlite(file: Path) -> Iterator[Salvaged]:
    """Every whole message in the order of the pages, which is that of recording."""
    if file.stat().st_size < _HEADER:
        return
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:16] != MAGIC:
            return
        pages = _Pages(data, _page_size(data[:_HEADER]), data[20])
        topics = dict(_topics(pages))
        for row in pages.rows(4):
            topic, log_ns, raw = row[1:]
            if isinstance(raw, bytes) and isinstance(log_ns, int) and isinstance(topic, int) and topic in topics:
                yield *topics[topic], log_ns, raw


def _topics(pages: _Pages) -> Iterator[tuple[int, tuple[str, str]]]:
    """Id, name and type. The table has 4 to 6 columns, by the age of the bag, the first of which stands for the id."""
    for columns in (4, 5, 6):
        for row in pages.rows(columns):
            number, name, kind = row[0], row[1], row[2]
            if isinstance(number, int) and isinstance(name, bytes) and isinstance(kind, bytes) and name[:1] == b"/":
                yield number, (name.decode(errors="replace"), kind.decode(errors="replace"))


@dataclass(frozen=True)
class _Pages:
    data: mmap.mmap
    size: int
    reserved: int
    """Bytes at the end of each page that are not used."""

    def rows(self, columns: int) -> Iterator[Row]:
        """Rows of that many columns of any table; text comes as bytes, a first column of NULL as the row's id."""
        for page in range(len(self.data) // self.size):
            start = page * self.size
            head = start + (_HEADER if page == 0 else 0)
            if self.data[head] != _LEAF_OF_TABLE:
                continue
            for i in range(self._uint(head + 3, 2)):
                try:
                    row = self._row(start + self._uint(head + 8 + 2 * i, 2), columns)
                except IndexError:
                    continue
                if row is not None:
                    yield row

    def _row(self, at: int, columns: int) -> Row | None:
        """None for a row of another shape; raises IndexError where its bytes are not all there."""
        length, at = self._varint(at)
        if length > len(self.data):
            return None
        rowid, at = self._varint(at)
        header_length, first = self._varint(at)
        kinds, place = [], first
        while place < at + header_length:
            kind, place = self._varint(place)
            kinds.append(kind)
            if len(kinds) > columns:
                return None
        if len(kinds) != columns:
            return None
        payload = self._payload(at, length)
        row, place = Row(), header_length
        for kind in kinds:
            size = _SIZES[kind] if kind < len(_SIZES) else (kind - 12) // 2
            row.append(_value(kind, payload[place : place + size]))
            place += size
        if row[0] is None:
            row[0] = rowid
        return row if place == length else None

    def _payload(self, at: int, length: int) -> bytes:
        """The bytes of a cell, with those that overflowed to other pages."""
        usable = self.size - self.reserved
        if length <= usable - 35:
            return self._bytes(at, length)
        least = (usable - 12) * 32 // 255 - 23
        local = least + (length - least) % (usable - 4)
        local = local if local <= usable - 35 else least
        parts, missing = [self._bytes(at, local)], length - local
        page = self._uint(at + local, 4)
        while missing > 0:
            if page == 0:
                raise IndexError
            start = (page - 1) * self.size
            taken = min(missing, usable - 4)
            parts.append(self._bytes(start + 4, taken))
            missing -= taken
            page = self._uint(start, 4)
        return b"".join(parts)

    def _bytes(self, at: int, length: int) -> bytes:
        if at + length > len(self.data):
            raise IndexError
        return self.data[at : at + length]

    def _uint(self, at: int, length: int) -> int:
        return int.from_bytes(self._bytes(at, length), "big")

    def _varint(self, at: int) -> tuple[int, int]:
        """The number at a place, and the place after it."""
        value = 0
        for i in range(9):
            byte = self.data[at + i]
            if i == 8:
                return value << 8 | byte, at + 9
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value, at + i + 1
        raise AssertionError("a varint has at most nine bytes")


_SIZES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)
"""Bytes of the values of each serial type below 12."""


def _value(kind: int, data: bytes) -> int | bytes | None:
    if kind in (0, 7, 10, 11):  # NULL; floats and reserved types do not occur in bags
        return None
    if kind < 12:
        return kind - 8 if kind in (8, 9) else int.from_bytes(data, "big", signed=True)
    return data


def _page_size(head: bytes) -> int:
    size = int.from_bytes(head[16:18], "big")
    return 65536 if size == 1 else max(size, 512)
