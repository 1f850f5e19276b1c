"""Messages as broken drivers, bad networks and careless people send them; number ``i`` of a seed is always the same."""

from __future__ import annotations

import array
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from nre_ros.recordings.camera_info import info_fields
from nre_ros.recordings.frame import Frame

TOPICS = {
    "image": Image,
    "image/compressed": CompressedImage,
    "camera_info": CameraInfo,
    "/tf": TFMessage,
    "/tf_static": TFMessage,
    "initialpose": PoseWithCovarianceStamped,
}
INTEGERS = (0, 1, 2, 3, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
NUMBERS = (0.0, -0.0, 1e-300, 1e300, -1e30, math.nan, math.inf, -math.inf)
ENCODINGS = (
    "",
    "hsv8",
    "rgb9",
    "32FC1",
    "64FC4",
    "mono16",
    "bayer_rggb8",
    "nv12",
    "yuv422",
    "RGB8",
    "x" * 5000,
    "\u00e9",
)
LARGEST = (4000, 3000)
"""Width and height of no larger image."""
FRAMES = ("", "/", "no_such_frame", "map", "base_link", "x" * 5000, "cam\n", "//cam")


@dataclass(frozen=True)
class BadMessage:
    """``content`` is a message, or bytes to be sent as they are. ``shows`` says whether it still is a picture of the
    scene: a right pose may come of it then, and a wrong one never."""

    number: int
    what: str
    topic: str
    content: Any
    shows: bool = False


def bad_message(seed: int, number: int, good: Frame, now_ns: int) -> BadMessage:
    """``good`` is what the camera sees, ``now_ns`` the time; what is done to it depends on seed and number alone."""
    rng = np.random.default_rng([seed, number])
    maker = _MAKERS[int(rng.integers(len(_MAKERS)))]
    what, topic, content, shows = maker(rng, good, now_ns)
    return BadMessage(number, what, topic, content, shows)


Made = tuple[str, str, Any, bool]


def pick(rng: np.random.Generator, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


def bad_stamp(rng: np.random.Generator, now_ns: int) -> Time:
    """Zero, negative, long ago, in the future, or a nanosecond that is none."""
    now_s = now_ns // 10**9
    seconds = pick(rng, (0, -1, -(2**31), 2**31 - 1, now_s - 3600, now_s - 3, now_s + 3, now_s + 3600))
    return Time(sec=int(seconds), nanosec=int(pick(rng, (0, 999_999_999, 2**32 - 1))))


def good_image(frame: Frame, stamp: Time) -> Image:
    height, width = frame.image_rgb.shape[:2]
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.header.stamp, message.header.frame_id = stamp, "cam"
    message.data = array.array("B", frame.image_rgb.tobytes())
    return message


def stamp_of(now_ns: int) -> Time:
    return Time(sec=now_ns // 10**9, nanosec=now_ns % 10**9)


def image_with_lies(rng: np.random.Generator, good: Frame, now_ns: int) -> Made:
    """One to three fields of the layout are wrong."""
    message = good_image(good, stamp_of(now_ns))
    names = rng.choice(["width", "height", "step"], size=int(rng.integers(1, 4)), replace=False)
    for name in names:
        setattr(message, str(name), int(pick(rng, INTEGERS)))
    return f"image with false {', '.join(sorted(names))}", "image", message, True


def image_cut(rng: np.random.Generator, good: Frame, now_ns: int) -> Made:
    message = good_image(good, stamp_of(now_ns))
    message.data = message.data[: int(rng.integers(0, len(message.data)))]
    return "image with too little data", "image", message, True


def image_of_odd_encoding(rng: np.random.Generator, good: Frame, now_ns: int) -> Made:
    message = good_image(good, stamp_of(now_ns))
    message.encoding, message.is_bigendian = pick(rng, ENCODINGS), int(rng.integers(256))
    return "image of another encoding", "image", message, True


def image_of_odd_time_or_frame(rng: np.random.Generator, good: Frame, now_ns: int) -> Made:
    message = good_image(good, bad_stamp(rng, now_ns))
    if rng.random() < 0.5:
        # of the robot's frames, those that a camera may have are believed: no node can tell
        message.header.frame_id = pick(rng, [name for name in FRAMES if name != "base_link"])
    return "image of an odd time or frame", "image", message, True


def image_of_nothing(rng: np.random.Generator, good: Frame, now_ns: int) -> Made:
    message = good_image(good, stamp_of(now_ns))
    size = len(message.data)
    kind = int(rng.integers(4))
    noise = rng.integers(0, 256, size if kind == 0 else 3, dtype=np.uint8)
    message.data = array.array("B", noise.tobytes() if kind == 0 else (noise.tobytes() * (size // 3 + 1))[:size])
    return "image of noise or one colour", "image", message, False


def image_too_large(rng: np.random.Generator, good: Frame, now_ns: int) -> Made:
    width, height = (int(rng.integers(1500, largest)) for largest in LARGEST)
    return "image of another size", "image", black_image(width, height, now_ns), False


def black_image(width: int, height: int, now_ns: int) -> Image:
    message = Image(height=height, width=width, encoding="mono8", step=width)
    message.header.stamp, message.header.frame_id = stamp_of(now_ns), "cam"
    message.data = array.array("B", bytes(width * height))
    return message


def compressed_damaged(rng: np.random.Generator, good: Frame, now_ns: int) -> Made:
    """Cut off, bits flipped, nothing, noise, or a header that claims 65535 x 65535."""
    extension = pick(rng, (".jpg", ".png"))
    data = bytearray(cv2.imencode(extension, good.image_rgb[..., ::-1])[1].tobytes())
    kind = int(rng.integers(5))
    if kind == 0:
        data = data[: int(rng.integers(0, len(data)))]
    elif kind == 1:
        for at in rng.integers(0, len(data), 20):
            data[int(at)] ^= int(rng.integers(1, 256))
    elif kind == 2:
        data = bytearray()
    elif kind == 3:
        data = bytearray(rng.integers(0, 256, 3000, dtype=np.uint8).tobytes())
    else:
        at = data.find(b"\xff\xc0") + 5 if extension == ".jpg" else 16
        data[at : at + 4] = b"\xff\xff\xff\xff"
    message = CompressedImage(format=pick(rng, ("jpeg", "png", "", "16UC1; compressedDepth", "x" * 3000)))
    message.header.stamp, message.header.frame_id = stamp_of(now_ns), "cam"
    message.data = array.array("B", bytes(data))
    return f"damaged {extension[1:]}", "image/compressed", message, True


def info_damaged(rng: np.random.Generator, good: Frame, now_ns: int) -> Made:
    """A calibration that no camera has; one that is merely false cannot be told from a true one."""
    message = CameraInfo(**info_fields(good.camera))
    message.header.frame_id = "cam"
    kind = int(rng.integers(7))
    if kind == 0:
        message.k = [float(pick(rng, NUMBERS))] * 9
    elif kind == 1:
        k = list(message.k)
        k[int(pick(rng, (0, 4)))] = float(pick(rng, (0.0, -200.0, math.nan, math.inf)))
        message.k = k
    elif kind == 2:
        message.width, message.height = int(pick(rng, INTEGERS)), int(pick(rng, INTEGERS))
    elif kind == 3:
        message.d = [float(pick(rng, (math.nan, math.inf, 1e300, -1e30)))] * int(rng.integers(1, 40))
    elif kind == 4:
        message.distortion_model, message.d = pick(rng, ("", "what", "x" * 5000)), [0.1] * int(rng.integers(1, 9))
    elif kind == 5:
        message.roi.x_offset, message.roi.width = int(pick(rng, INTEGERS[3:])), int(pick(rng, INTEGERS))
    else:
        message.binning_x = message.binning_y = int(pick(rng, INTEGERS[3:]))
    return "damaged camera_info", "camera_info", message, False


def transforms_damaged(rng: np.random.Generator, good: Frame, now_ns: int) -> Made:
    """NaN, no quaternion, frames that hang on themselves, loops, odd stamps; on both topics."""
    names = ("odom", "base_link", "cam", "map", *FRAMES)
    message = TFMessage()
    for _ in range(int(pick(rng, (1, 1, 3, 200)))):
        transform = TransformStamped(child_frame_id=pick(rng, names))
        transform.header.frame_id = pick(rng, names)
        if (transform.header.frame_id, transform.child_frame_id) == (
            "map",
            "odom",
        ):  # is the node's to send, and judged
            transform.header.frame_id = "odom"
        transform.header.stamp = bad_stamp(rng, now_ns) if rng.random() < 0.5 else stamp_of(now_ns)
        rotation, translation = transform.transform.rotation, transform.transform.translation
        rotation.x, rotation.y, rotation.z, rotation.w = (float(pick(rng, NUMBERS)) for _ in range(4))
        translation.x, translation.y, translation.z = (float(pick(rng, (*NUMBERS, 1.0))) for _ in range(3))
        message.transforms.append(transform)
    return "damaged transforms", pick(rng, ("/tf", "/tf", "/tf_static")), message, False


def transforms_astray(rng: np.random.Generator, good: Frame, now_ns: int) -> Made:
    """Sound in themselves, but they tear the robot's tree apart or tell a jump of the odometry."""
    transform = TransformStamped(child_frame_id=pick(rng, ("base_link", "odom")))
    transform.header.frame_id = pick(rng, ("odom", "elsewhere", "cam", "base_link"))
    transform.header.stamp = bad_stamp(rng, now_ns) if rng.random() < 0.5 else stamp_of(now_ns)
    transform.transform.rotation.w = 1.0
    transform.transform.translation.x = float(rng.uniform(-1000, 1000))
    return "transforms astray", "/tf", TFMessage(transforms=[transform]), False


def initial_pose_wrong(rng: np.random.Generator, good: Frame, now_ns: int) -> Made:
    message = PoseWithCovarianceStamped()
    message.header.frame_id = pick(rng, ("map", "map", "odom", *FRAMES))
    message.header.stamp = bad_stamp(rng, now_ns)
    pose = message.pose.pose
    pose.orientation.w = float(pick(rng, (1.0, 1.0, *NUMBERS)))
    pose.position.x, pose.position.y = (float(pick(rng, (10.0, *NUMBERS))) for _ in range(2))
    covariance = np.full(36, float(pick(rng, (0.25, 0.25, -1.0, *NUMBERS))))
    message.pose.covariance = covariance.tolist()
    return "wrong initialpose", "initialpose", message, False


def bytes_cut(rng: np.random.Generator, good: Frame, now_ns: int) -> Made:
    """A serialized message that ends early: what reaches the node after a fault below it."""
    _, topic, message, _ = pick(rng, _MESSAGES)(rng, good, now_ns)
    raw = bytes(serialize_message(message))
    return "cut bytes", topic, raw[: int(rng.integers(4, max(5, min(len(raw), 400))))], False


_MESSAGES: tuple[Callable[..., Made], ...] = (
    image_with_lies,
    image_cut,
    image_of_odd_encoding,
    image_of_odd_time_or_frame,
    image_of_nothing,
    image_too_large,
    compressed_damaged,
    info_damaged,
    transforms_damaged,
    transforms_astray,
    initial_pose_wrong,
)
_MAKERS = (*_MESSAGES, bytes_cut)
