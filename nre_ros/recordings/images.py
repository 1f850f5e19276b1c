"""From the bytes of sensor_msgs/Image to arrays and back, without cv_bridge (which NumPy 2 breaks).

Works on numbers and buffers alone, so that messages of rclpy and of rosbags serve alike.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from nre_ros.errors import RecordingError

MAX_PIXELS = 2**27
"""Larger images are taken for damaged headers: 134 megapixels."""

_PACKED: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "8uc3": (3, cv2.COLOR_BGR2RGB),  # unnamed channels are in OpenCV's order: image_view shows them so
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "8uc4": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8uc1": (1, cv2.COLOR_GRAY2RGB),
    # OpenCV names a mosaic by the second row's second and third pixel, ROS by the first row's first two.
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGB2RGB),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
}
"""Encodings of whole bytes per pixel: bytes per pixel, OpenCV's conversion to RGB."""

_SIXTEEN_BIT = {
    "mono16": "mono8",
    "16uc1": "mono8",
    "bayer_rggb16": "bayer_rggb8",
    "bayer_bggr16": "bayer_bggr8",
    "bayer_gbrg16": "bayer_gbrg8",
    "bayer_grbg16": "bayer_grbg8",
}
"""Encodings of one 16-bit number per pixel, and what their high bytes are."""

_TWO_PLANES = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}

ENCODINGS = (*_PACKED, *_SIXTEEN_BIT, *_TWO_PLANES)
"""What :func:`decode_image` reads, in lower case."""


def decode_image(encoding: str, height: int, width: int, step: int, is_bigendian: int, data: Any) -> np.ndarray:
    """The fields of a sensor_msgs/Image as uint8 RGB (H, W, 3).

    ``data`` is any buffer of bytes (bytes, array.array, ndarray). rgb8 comes back as a read-only view of it, everything
    else as a new array. 16-bit intensities (mono16, 16UC1, Bayer) keep their high byte. NV12 and NV21 count ``height``
    and ``step`` of the brightness plane; the half as high colour plane follows it with the same step.

    Raises RecordingError for unknown encodings and for sizes that are impossible or disagree with ``data``.
    """
    name = encoding.lower()
    if name in _TWO_PLANES:
        _check_even(encoding, width=width, height=height)
        rows = _rows(encoding, height, width, step, data, bytes_per_pixel=1, row_count=height * 3 // 2)
        return cv2.cvtColor(rows, _TWO_PLANES[name])
    if name in _SIXTEEN_BIT:
        rows = _rows(encoding, height, width, step, data, bytes_per_pixel=2)
        high_byte = rows.reshape(height, width, 2)[..., 0 if is_bigendian else 1]
        return _to_rgb(np.ascontiguousarray(high_byte), _PACKED[_SIXTEEN_BIT[name]][1])
    if name in _PACKED:
        channels, conversion = _PACKED[name]
        if channels == 2:
            _check_even(encoding, width=width)
        rows = _rows(encoding, height, width, step, data, bytes_per_pixel=channels)
        return _to_rgb(rows.reshape(height, width, channels) if channels > 1 else rows, conversion)
    raise RecordingError(f"image encoding {encoding!r} is unknown, expected one of {', '.join(ENCODINGS)}")


def decode_depth(encoding: str, height: int, width: int, step: int, is_bigendian: int, data: Any) -> np.ndarray:
    """A depth image (16UC1 in millimetres, 32FC1 in metres) as float32 metres (H, W), NaN where unknown.

    Zero, negative and infinite depths are unknown. Raises RecordingError as :func:`decode_image` does.
    """
    number = {"16UC1": "u2", "32FC1": "f4"}.get(encoding)
    if number is None:
        raise RecordingError(f"depth encoding {encoding!r} is unknown, expected 16UC1 (mm) or 32FC1 (m)")
    dtype = np.dtype(number).newbyteorder(">" if is_bigendian else "<")
    rows = _rows(encoding, height, width, step, data, bytes_per_pixel=dtype.itemsize)
    depth = np.ascontiguousarray(rows).view(dtype).astype(np.float32)
    return _unknown_as_nan(depth / np.float32(1000) if encoding == "16UC1" else depth)


def depth_from_counts(counts: np.ndarray, counts_per_metre: float) -> np.ndarray:
    """Integer depths (H, W) as float32 metres, NaN where zero."""
    return _unknown_as_nan((counts / counts_per_metre).astype(np.float32))


def encode_depth(encoding: str, depth_m: np.ndarray) -> np.ndarray:
    """Metres (H, W) as the bytes of a little-endian depth image, uint8 (H * W * 2 or 4).

    16UC1 rounds to millimetres; what is unknown or beyond 65.535 m becomes 0. 32FC1 keeps every bit.
    """
    if encoding == "32FC1":
        return np.ascontiguousarray(depth_m, "<f4").view(np.uint8).reshape(-1)
    if encoding != "16UC1":
        raise RecordingError(f"depth encoding {encoding!r} is unknown, expected 16UC1 (mm) or 32FC1 (m)")
    millimetres = np.rint(depth_m.astype(np.float64) * 1000)
    known = (millimetres > 0) & (millimetres <= 65535)  # false for NaN
    return np.where(known, millimetres, 0).astype("<u2").view(np.uint8).reshape(-1)


def check_layout(
    encoding: str,
    height: int,
    width: int,
    step: int,
    byte_count: int,
    *,
    row_bytes: int | None = None,
    row_count: int | None = None,
) -> None:
    """Raises RecordingError for sizes that are impossible or disagree with the number of bytes.

    A row takes at least ``row_bytes`` (a byte a pixel if not given); there are ``row_count`` of them (``height``).
    """
    row_bytes = width if row_bytes is None else row_bytes
    row_count = height if row_count is None else row_count
    size = f"{encoding} image of {width}x{height}"
    if width <= 0 or height <= 0:
        raise RecordingError(f"{size} has no pixels; the message is damaged or its driver failed")
    if width * height > MAX_PIXELS:
        raise RecordingError(f"{size} exceeds {MAX_PIXELS} pixels; the message is damaged")
    if step < row_bytes:
        raise RecordingError(f"{size} has step {step}, expected at least {row_bytes} bytes a row")
    if byte_count < step * row_count:
        raise RecordingError(
            f"{size} holds {byte_count} bytes, expected {step * row_count} ({row_count} rows of {step}): the message "
            "is cut off"
        )


def _rows(
    encoding: str, height: int, width: int, step: int, data: Any, *, bytes_per_pixel: int, row_count: int | None = None
) -> np.ndarray:
    """The image's bytes as a view (rows, width * bytes_per_pixel) that leaves the padding of each row out."""
    count = height if row_count is None else row_count
    row_bytes = width * bytes_per_pixel
    flat = np.frombuffer(data, np.uint8)
    check_layout(encoding, height, width, step, len(flat), row_bytes=row_bytes, row_count=count)
    return flat[: step * count].reshape(count, step)[:, :row_bytes]


def _check_even(encoding: str, **sides: int) -> None:
    for side, length in sides.items():
        if length % 2:
            raise RecordingError(
                f"{encoding} image has {side} {length}, expected an even one: neighbouring pixels share their colour"
            )


def _to_rgb(pixels: np.ndarray, conversion: int | None) -> np.ndarray:
    return pixels if conversion is None else cv2.cvtColor(pixels, conversion)


def _unknown_as_nan(depth_m: np.ndarray) -> np.ndarray:
    depth_m[~(np.isfinite(depth_m) & (depth_m > 0))] = np.nan
    return depth_m
