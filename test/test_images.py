"""Image bytes become the right colours: every encoding, padded rows, both byte orders; what is damaged is refused."""

import array
import struct
import sys
import types

import cv2
import numpy as np
import pytest

from nre_ros.errors import RecordingError
from nre_ros.recordings.compressed import decode_compressed, decode_counts, encode_png
from nre_ros.recordings.images import ENCODINGS, decode_depth, decode_image, encode_depth

HEIGHT, WIDTH = 24, 32


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _smooth_image() -> np.ndarray:
    """RGB that varies slowly and differs strongly between its channels, so that a mixed-up mosaic shows."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([40 + 3 * u, 200 - 3 * v, 60 + 2 * u + 2 * v], -1).astype(np.uint8)


def _image_rows(encoding: str, is_bigendian: int) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of an image by rows, and the RGB that OpenCV or plain indexing says they mean."""
    if encoding in ("nv12", "nv21"):
        rows = _noise(HEIGHT * 3 // 2, WIDTH)
        return rows, cv2.cvtColor(rows, cv2.COLOR_YUV2RGB_NV12 if encoding == "nv12" else cv2.COLOR_YUV2RGB_NV21)
    if encoding in ("mono16", "16uc1"):
        values = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH))
        rows = values.astype(">u2" if is_bigendian else "<u2").view(np.uint8)
        return rows, np.repeat((values // 256).astype(np.uint8)[..., None], 3, -1)
    if encoding.startswith("bayer"):
        pattern = encoding.removeprefix("bayer_")[:4]
        mosaic = _mosaic(_smooth_image(), pattern)
        if encoding.endswith("16"):
            wide = mosaic.astype(np.uint16) * 256 + 77
            return wide.astype(">u2" if is_bigendian else "<u2").view(np.uint8), decode_mosaic(mosaic, pattern)
        return mosaic, decode_mosaic(mosaic, pattern)
    channels = {"mono8": 1, "8uc1": 1, "rgba8": 4, "bgra8": 4, "8uc4": 4}.get(encoding, 3)
    if "yu" in encoding or encoding == "uyvy":
        rows = _noise(HEIGHT, WIDTH, 2)
        code = cv2.COLOR_YUV2RGB_YUY2 if encoding in ("yuv422_yuy2", "yuyv") else cv2.COLOR_YUV2RGB_UYVY
        return rows.reshape(HEIGHT, -1), cv2.cvtColor(rows, code)
    pixels = _noise(HEIGHT, WIDTH, channels)
    if channels == 1:
        return pixels[..., 0], np.repeat(pixels, 3, -1)
    rgb = pixels[..., :3] if encoding.startswith("rgb") else pixels[..., 2::-1]
    return pixels.reshape(HEIGHT, -1), rgb


def _mosaic(image_rgb: np.ndarray, pattern: str) -> np.ndarray:
    """What a sensor with this colour filter sees; the pattern reads the first two pixels of the first two rows."""
    mosaic = np.empty(image_rgb.shape[:2], np.uint8)
    for i, colour in enumerate(pattern):
        mosaic[i // 2 :: 2, i % 2 :: 2] = image_rgb[i // 2 :: 2, i % 2 :: 2, "rgb".index(colour)]
    return mosaic


def decode_mosaic(mosaic: np.ndarray, pattern: str) -> np.ndarray:
    """By OpenCV's newer names, which agree with those of ROS."""
    return cv2.cvtColor(mosaic, getattr(cv2, f"COLOR_Bayer{pattern.upper()}2RGB"))


@pytest.mark.parametrize("is_bigendian", [0, 1])
@pytest.mark.parametrize("padding", [0, 1, 7])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_matches_its_definition(encoding, padding, is_bigendian):
    rows, expected = _image_rows(encoding, is_bigendian)
    padded = np.concatenate([rows, np.full((len(rows), padding), 0xAB, np.uint8)], 1)
    image = decode_image(encoding, HEIGHT, WIDTH, padded.shape[1], is_bigendian, padded.tobytes())
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_names_the_first_row_first(pattern, bits):
    """Demosaicing a mosaic of a known image gives that image back; by another pattern it does not."""
    truth = _smooth_image()
    mosaic = _mosaic(truth, pattern)
    data = mosaic if bits == 8 else (mosaic.astype("<u2") << 8).view(np.uint8)
    inside = np.s_[2:-2, 2:-2]
    for asked in ("rggb", "bggr", "gbrg", "grbg"):
        image = decode_image(f"bayer_{asked}{bits}", HEIGHT, WIDTH, WIDTH * bits // 8, 0, data.tobytes())
        error = np.abs(image[inside].astype(int) - truth[inside]).max()
        assert (error <= 3) == (asked == pattern)


@pytest.mark.parametrize(("encoding", "order"), [("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv")])
def test_packed_yuv_follows_bt601(encoding, order):
    """Colours on a grey axis and three strong ones, coded by the standard's own formula."""
    colours = np.array([[16, 16, 16], [128, 128, 128], [200, 60, 40], [30, 180, 90], [20, 70, 220]], np.float64)
    r, g, b = colours.T
    y = 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255
    u = 128 + (-37.797 * r - 74.203 * g + 112.0 * b) / 255
    v = 128 + (112.0 * r - 93.786 * g - 18.214 * b) / 255
    data = np.rint(np.stack([{"y": y, "u": u, "v": v}[c] for c in order], -1)).astype(np.uint8)
    image = decode_image(encoding, 5, 2, 4, 0, data.tobytes())
    assert np.abs(image - colours[:, None]).max() <= 3


def test_tight_rgb8_is_a_view():
    pixels = _noise(HEIGHT, WIDTH, 3)
    assert np.shares_memory(decode_image("rgb8", HEIGHT, WIDTH, 3 * WIDTH, 0, pixels.reshape(-1)), pixels)


def test_buffers_of_rclpy_and_rosbags_serve():
    pixels = _noise(HEIGHT, WIDTH, 3)
    for data in (pixels.tobytes(), array.array("B", pixels.tobytes()), pixels.reshape(-1), bytearray(pixels)):
        np.testing.assert_array_equal(decode_image("rgb8", HEIGHT, WIDTH, 3 * WIDTH, 0, data), pixels)


@pytest.mark.parametrize(
    ("encoding", "height", "width", "step", "size", "said"),
    [
        ("cmyk", 4, 4, 16, 64, "'cmyk' is unknown"),
        ("rgb8", 4, 4, 12, 47, "holds 47 bytes, expected 48"),
        ("rgb8", 4, 4, 11, 48, "step 11, expected at least 12"),
        ("mono16", 4, 4, 4, 64, "step 4, expected at least 8"),
        ("rgb8", 0, 4, 12, 48, "no pixels"),
        ("rgb8", 4, 0, 0, 48, "no pixels"),
        ("mono8", 2**31, 2**31, 2**31, 64, "exceeds"),
        ("nv12", 4, 4, 4, 23, "holds 23 bytes, expected 24"),
        ("nv21", 3, 4, 4, 64, "height 3, expected an even"),
        ("yuyv", 4, 3, 8, 64, "width 3, expected an even"),
    ],
)
def test_sizes_that_lie_are_refused(encoding, height, width, step, size, said):
    with pytest.raises(RecordingError, match=said):
        decode_image(encoding, height, width, step, 0, bytes(size))


@pytest.mark.parametrize("is_bigendian", [0, 1])
@pytest.mark.parametrize("padding", [0, 3])
def test_depth_in_both_encodings(padding, is_bigendian):
    order = ">" if is_bigendian else "<"
    millimetres = np.array([[0, 1, 1500], [65535, 256, 2]])
    metres = np.array([[np.nan, 1.25, np.inf], [-1, 0, 80]], np.float32)
    for encoding, values, expected in (
        ("16UC1", millimetres.astype(f"{order}u2"), np.where(millimetres > 0, millimetres / 1000, np.nan)),
        ("32FC1", metres.astype(f"{order}f4"), [[np.nan, 1.25, np.nan], [np.nan, np.nan, 80]]),
    ):
        rows = np.pad(values.view(np.uint8), ((0, 0), (0, padding)), constant_values=0xAB)
        depth = decode_depth(encoding, 2, 3, rows.shape[1], is_bigendian, rows.tobytes())
        assert depth.dtype == np.float32
        np.testing.assert_array_equal(depth, np.array(expected, np.float32))
    with pytest.raises(RecordingError, match="depth encoding 'mono8' is unknown"):
        decode_depth("mono8", 2, 3, 3, 0, bytes(6))


def test_encoded_depth_reads_back():
    depth = np.random.default_rng(1).uniform(0.1, 60, (5, 7)).astype(np.float32)
    depth[0, 0], depth[1, 1] = np.nan, 70
    exact = decode_depth("32FC1", 5, 7, 28, 0, encode_depth("32FC1", depth))
    np.testing.assert_array_equal(exact, depth)
    rounded = decode_depth("16UC1", 5, 7, 14, 0, encode_depth("16UC1", depth))
    assert np.isnan(rounded[0, 0]) and np.isnan(rounded[1, 1])
    assert np.nanmax(np.abs(rounded - depth)) <= 0.00051


def _jpeg(image: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(".jpg", image, list(options))[1].tobytes()


def test_png_is_lossless_and_grey_becomes_rgb():
    colour = _noise(HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(decode_compressed("png", encode_png(colour)), colour)
    for grey in (colour[..., 0], colour[..., 0].astype(np.uint16) * 256 + 9):
        image = decode_compressed("png", cv2.imencode(".png", grey)[1].tobytes())
        np.testing.assert_array_equal(image, np.repeat(colour[..., :1], 3, -1))


def test_png_of_any_depth_and_channels_becomes_rgb():
    """Sixteen bits keep the high byte, transparency is dropped, and colours stay where they are."""
    wide = np.random.default_rng(2).integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
    image = decode_compressed("rgb16; png compressed bgr16", cv2.imencode(".png", wide[..., ::-1])[1].tobytes())
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, (wide // 256).astype(np.uint8))
    rgba = _noise(HEIGHT, WIDTH, 4)
    data = cv2.imencode(".png", cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))[1].tobytes()
    np.testing.assert_array_equal(decode_compressed("png", data), rgba[..., :3])


def test_compressed_depth_is_known_by_its_header_too():
    depth = cv2.imencode(".png", np.full((4, 4), 1500, np.uint16))[1].tobytes()
    for name in ("16UC1; compressedDepth png", "16UC1; png", "png"):
        with pytest.raises(RecordingError, match="compressedDepth"):
            decode_compressed(name, struct.pack("<iff", 0, 0.0, 0.0) + depth)


def test_jpeg_matches_opencv():
    bgr = _smooth_image()[..., ::-1].copy()
    data = _jpeg(bgr)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(decode_compressed("rgb8; jpeg compressed bgr8", array.array("B", data)), expected)
    assert decode_compressed("jpeg", _jpeg(bgr[..., 0].copy())).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)])
def test_cut_off_jpeg_is_refused_wherever_it_ends(options):
    data = _jpeg(_noise(HEIGHT, WIDTH, 3), *options)
    decode_compressed("jpeg", data)
    decode_compressed("jpeg", data + bytes(10))  # some cameras pad
    for length in range(0, len(data), 7):
        with pytest.raises(RecordingError):
            decode_compressed("jpeg", data[:length])
    with pytest.raises(RecordingError, match="lack the end marker"):
        decode_compressed("jpeg", data[: len(data) // 2])


def test_thumbnail_does_not_hide_that_a_jpeg_is_cut_off():
    data = _jpeg(_noise(HEIGHT, WIDTH, 3))
    thumbnail = _jpeg(_noise(8, 8, 3))
    exif = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = data[:2] + exif + data[2:]
    np.testing.assert_array_equal(decode_compressed("jpeg", whole), decode_compressed("jpeg", data))
    with pytest.raises(RecordingError, match="lack the end marker"):
        decode_compressed("jpeg", whole[: len(exif) + 300])


def test_exif_rotation_is_ignored():
    """A camera's calibration belongs to the pixels as they are stored."""
    tiff = b"II*\x00\x08\x00\x00\x00\x01\x00" + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + bytes(4)
    exif = b"Exif\x00\x00" + tiff
    data = _jpeg(_noise(HEIGHT, WIDTH, 3))
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (WIDTH, HEIGHT, 3)
    np.testing.assert_array_equal(decode_compressed("jpeg", turned), decode_compressed("jpeg", data))


def test_damaged_png_is_refused_wherever_the_damage_is():
    data = encode_png(_noise(HEIGHT, WIDTH, 3))
    for at in range(0, len(data), 11):
        with pytest.raises(RecordingError):
            decode_compressed("png", data[:at])
        damaged = bytearray(data)
        damaged[at] ^= 0xFF
        with pytest.raises(RecordingError):
            decode_compressed("png", bytes(damaged))


def test_size_in_a_damaged_header_allocates_nothing():
    data = bytearray(_jpeg(_noise(HEIGHT, WIDTH, 3)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(RecordingError, match="claims 65535x65535"):
        decode_compressed("jpeg", bytes(data))


@pytest.mark.parametrize("data", [b"", b"GIF89a", bytes(100)])
def test_other_formats_are_refused(data):
    with pytest.raises(RecordingError, match="expected JPEG or PNG"):
        decode_compressed("jpeg", data)
    with pytest.raises(RecordingError, match="compressedDepth"):
        decode_compressed("16UC1; compressedDepth", data)


def test_depth_png_must_hold_sixteen_bits():
    counts = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    np.testing.assert_array_equal(decode_counts(cv2.imencode(".png", counts)[1].tobytes()), counts)
    with pytest.raises(RecordingError, match="expected a 16-bit grey PNG"):
        decode_counts(encode_png(_noise(3, 4, 3)))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_cv_bridge_agrees_where_it_imports(encoding):
    """On rows without padding in the machine's byte order: it shifts others, or fails (see ros/other_encodings.py)."""
    bridge = pytest.importorskip("cv_bridge", reason="cv_bridge is not installed", exc_type=ImportError)
    from sensor_msgs.msg import Image

    rows, expected = _image_rows(encoding, is_bigendian=0)
    message = Image(height=HEIGHT, width=WIDTH, step=rows.shape[1], encoding=encoding, data=rows.tobytes())
    try:
        image = bridge.CvBridge().imgmsg_to_cv2(message, "rgb8")
    except Exception as error:
        pytest.skip(f"cv_bridge does not read {encoding}: {error}")
    assert np.abs(np.asarray(image).astype(int) - expected).max() <= (1 if "16" in encoding else 0)


def test_unknown_encodings_are_left_to_cv_bridge(tmp_path, monkeypatch):
    """Or refused with both names of what is missing; and cv_bridge may not make anything but an RGB image of it."""
    pytest.importorskip("sensor_msgs", reason="ROS 2 is not installed")
    from sensor_msgs.msg import Image

    from nre_ros.ros.conversions import image_rgb_from_message

    message = Image(height=2, width=2, step=12, encoding="rgb16", data=bytes(24))
    (tmp_path / "cv_bridge.py").write_text("raise ImportError('numpy.core.multiarray failed to import')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv_bridge", raising=False)
    with pytest.raises(RecordingError, match=r"'rgb16' is unknown, expected one of rgb8.*multiarray failed"):
        image_rgb_from_message(message)
    for result, said in (("numpy.zeros((2, 2, 3), numpy.uint8)", ""), ("numpy.zeros((2, 2))", "float64")):
        source = f"import numpy\nclass CvBridge:\n    def imgmsg_to_cv2(self, *_): return {result}"
        bridge = types.ModuleType("cv_bridge")
        exec(source, bridge.__dict__)
        monkeypatch.setitem(sys.modules, "cv_bridge", bridge)
        if said:
            with pytest.raises(RecordingError, match=said):
                image_rgb_from_message(message)
        else:
            assert image_rgb_from_message(message).shape == (2, 2, 3)
    message.data = bytes(10)
    with pytest.raises(RecordingError, match="cut off"):
        image_rgb_from_message(message)
