"""JPEG and PNG: decoded only when they are whole.

OpenCV fills what a cut-off file lacks with grey and says nothing, and allocates whatever size a damaged header names.
So the structure of the file is walked first.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Any

import cv2
import numpy as np

from nre_ros.errors import RecordingError
from nre_ros.recordings.images import MAX_PIXELS

_PNG_START = b"\x89PNG\r\n\x1a\n"
_DEPTH_HEADER = 12
"""Bytes that compressedDepth puts before its PNG."""
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A marker inside entropy-coded data that is neither a stuffed 0xff nor a restart."""


def decode_compressed(format: str, data: Any) -> np.ndarray:
    """A JPEG or PNG file (any buffer of bytes) as uint8 RGB (H, W, 3); grey becomes RGB, 16 bits keep the high byte.

    The file's own signature decides; ``format``, as in sensor_msgs/CompressedImage, serves the error. A rotation in
    EXIF is ignored: the calibration is that of the stored pixels. Raises RecordingError for other formats, damaged and
    cut-off files.
    """
    raw = _whole_file(format, data)
    bgr = _decoded(raw, format, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def decode_counts(data: Any) -> np.ndarray:
    """A 16-bit grey PNG, as depth images are stored, as uint16 (H, W); RecordingError for anything else."""
    counts = _decoded(_whole_file("png", data), "png", cv2.IMREAD_UNCHANGED)
    if counts.ndim != 2 or counts.dtype != np.uint16:
        raise RecordingError(f"depth image is {counts.dtype} of shape {counts.shape}, expected a 16-bit grey PNG")
    return counts


def encode_png(image_rgb: np.ndarray) -> bytes:
    """Lossless, from uint8 RGB (H, W, 3)."""
    return cv2.imencode(".png", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def _whole_file(format: str, data: Any) -> bytes:
    raw = data if isinstance(data, bytes) else bytes(memoryview(data))
    if "compressedDepth" in format or raw[_DEPTH_HEADER : _DEPTH_HEADER + len(_PNG_START)] == _PNG_START:
        raise RecordingError("compressedDepth images are not read; record the raw depth topic instead")
    if raw.startswith(_PNG_START):
        width, height = _walk_png(raw)
    elif raw.startswith(b"\xff\xd8"):
        width, height = _walk_jpeg(raw)
    else:
        raise RecordingError(
            f"image of format {format!r} starts with {raw[:4].hex() or 'nothing'}, expected JPEG or PNG"
        )
    if width <= 0 or height <= 0 or width * height > MAX_PIXELS:
        raise RecordingError(f"{format} image claims {width}x{height} pixels; the file is damaged")
    return raw


def _decoded(raw: bytes, format: str, flags: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), flags)
    except cv2.error as error:
        raise RecordingError(f"{format} image cannot be decoded: {error.err or error}") from None
    if image is None:
        raise RecordingError(f"{format} image cannot be decoded; the file is damaged")
    return image


def _walk_jpeg(raw: bytes) -> tuple[int, int]:
    """Width and height; raises RecordingError when the file ends before its end marker."""
    size, at = (0, 0), 2
    while at + 4 <= len(raw):
        if raw[at] != 0xFF:
            raise RecordingError(f"JPEG image is damaged: expected a marker at byte {at} of {len(raw)}")
        marker = raw[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xD9:
            return size
        at += 2
        length = struct.unpack_from(">H", raw, at)[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 7 <= len(raw):
            height, width = struct.unpack_from(">HH", raw, at + 3)
            size = (width, height)
        at += length
        if marker == 0xDA:
            end = _END_OF_SCAN.search(raw, at)
            at = end.start() if end else len(raw)
            if raw[at : at + 2] == b"\xff\xd9":
                return size
    raise RecordingError(f"JPEG image is cut off: its {len(raw)} bytes lack the end marker")


def _walk_png(raw: bytes) -> tuple[int, int]:
    """Width and height; raises RecordingError when the file ends early or a chunk's checksum is wrong."""
    at = len(_PNG_START)
    size = struct.unpack_from(">II", raw, 16) if len(raw) >= 24 else (0, 0)
    while at + 12 <= len(raw):
        (length,) = struct.unpack_from(">I", raw, at)
        end = at + 12 + length
        if end > len(raw):
            break
        if zlib.crc32(raw[at + 4 : end - 4]) != struct.unpack_from(">I", raw, end - 4)[0]:
            raise RecordingError(f"PNG image is damaged: wrong checksum in the chunk at byte {at} of {len(raw)}")
        if raw[at + 4 : at + 8] == b"IEND":
            return size[0], size[1]
        at = end
    raise RecordingError(f"PNG image is cut off: its {len(raw)} bytes lack the end chunk")
