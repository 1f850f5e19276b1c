"""Queries made worse on purpose: what a dim, moving, noisy robot camera does to an image whose true pose is known.

Every kind acts on grey levels 0 to 255 as they are stored, in float, without rounding in between; ``exposure`` alone
goes through linear light (sRGB). All kinds of a chain act in the order in which they are given.

``hard`` and ``extreme`` are chains of a fixed strength: a grey camera (its channels share one noise), motion blur of
9 or 15 px, gamma 1.8 times gain 0.35 or 0.15, then shot noise of 0.6 photons a grey level and read noise. Photons are
counted last, on the dim image: ``Poisson(0.6 * level) / 0.6``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from nre_ros.errors import ConfigError
from nre_ros.geometry import Camera, Pose
from nre_ros.recordings import Frame
from nre_ros.simulation.noise import fractal

READ_NOISE = 2.0
"""Standard deviation of what reading the sensor adds, grey levels; part of the kind ``noise``."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

Values = np.ndarray
"""Grey levels float32 (H, W, 3)."""


@dataclass(frozen=True)
class Kind:
    """One way to make an image worse. ``strength`` says what the number means; None: it takes none.

    ``apply`` gets grey levels, the strength and the image's own random generator; ``move`` a frame whose camera or
    pose it changes, with its image where that must follow. A kind has one of the two.
    """

    strength: str | None
    low: float = 0.0
    high: float = 0.0
    apply: Callable[[Values, float, np.random.Generator], Values] | None = None
    move: Callable[[Frame, float], Frame] | None = None


@dataclass(frozen=True)
class Degradation:
    """A kind of :data:`KINDS` with its strength (0 where it takes none)."""

    name: str
    strength: float = 0.0

    def __str__(self) -> str:
        return self.name if KINDS[self.name].strength is None else f"{self.name}:{self.strength:g}"


def parse_degradations(texts: Sequence[str]) -> tuple[Degradation, ...]:
    """``["blur:9,dark:0.35", "grey"]`` to a chain. Raises ConfigError for unknown names and bad strengths."""
    words = [word.strip() for text in texts for word in text.split(",")]
    return tuple(step for word in words for step in CHAINS.get(word) or [_parsed(word)])


def degrade(frame: Frame, chain: Sequence[Degradation]) -> Frame:
    """The frame as the chain leaves it; its camera and true pose follow where a kind changes them.

    Random draws are seeded by the frame's name (its stamp, where it has none): the same image comes out the same,
    alone or among others. Depth is dropped when the image turns.
    """
    name = frame.name or str(frame.stamp_ns)
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    frame = replace(frame, image_rgb=frame.image_rgb.astype(np.float32))  # rounded once, at the end
    for step in chain:
        kind = KINDS[step.name]
        if kind.apply is not None:
            frame = replace(frame, image_rgb=kind.apply(frame.image_rgb, step.strength, rng))
        elif kind.move is not None:
            frame = kind.move(frame, step.strength)
    return replace(frame, image_rgb=_levels(frame.image_rgb))


def _parsed(word: str) -> Degradation:
    name, colon, text = word.partition(":")
    kind = KINDS.get(name)
    if kind is None:
        if name in CHAINS:
            raise ConfigError(f"degradation {word!r} has a strength, but {name} is a fixed chain; write {name} alone")
        raise ConfigError(f"degradation {word!r} is unknown; known ones: {_known()}")
    if kind.strength is None:
        if colon:
            raise ConfigError(f"degradation {word!r} has a strength, but {name} takes none; known ones: {_known()}")
        return Degradation(name)
    try:
        strength = float(text)
    except ValueError:
        strength = np.nan
    if not kind.low <= strength <= kind.high:
        raise ConfigError(
            f"degradation {word!r} needs a strength of {kind.low:g} to {kind.high:g} ({kind.strength}), such as "
            f"{name}:{kind.high:g}; known ones: {_known()}"
        )
    return Degradation(name, strength)


def _known() -> str:
    return ", ".join([*CHAINS, *(name if kind.strength is None else f"{name}:N" for name, kind in KINDS.items())])


def _levels(values: Values) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _blur(values: Values, length_px: float, rng: np.random.Generator) -> Values:
    """Steady motion in a direction of its own for each image; the true pose is that of the middle of the exposure."""
    angle = rng.uniform(0, np.pi)
    half = int(np.ceil(length_px / 2)) + 1
    along = (np.arange(64 * half) + 0.5) / (64 * half) - 0.5
    x, y = (half + along * length_px * axis for axis in (np.cos(angle), np.sin(angle)))
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    for column, row in ((0, 0), (1, 0), (0, 1), (1, 1)):
        left, top = np.floor(x).astype(int) + column, np.floor(y).astype(int) + row
        np.add.at(kernel, (top, left), (1 - np.abs(x - left)) * (1 - np.abs(y - top)))
    return cv2.filter2D(values, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)


def _dark(values: Values, gain: float, _: np.random.Generator) -> Values:
    return values * np.float32(gain)


def _gamma(values: Values, exponent: float, _: np.random.Generator) -> Values:
    return 255 * (np.clip(values, 0, 255) / 255) ** np.float32(exponent)


def _noise(values: Values, photons: float, rng: np.random.Generator) -> Values:
    """Shot and read noise; each channel its own, but one for all three where the image is grey."""
    one = values[..., :1] if np.array_equal(values, values[..., [1, 2, 0]]) else values
    counted = rng.poisson(photons * np.clip(one, 0, None)) / photons
    noisy = (counted + rng.normal(0, READ_NOISE, one.shape)).astype(np.float32)
    return np.repeat(noisy, values.shape[2] // one.shape[2], axis=2)


def _grey(values: Values, _: float, __: np.random.Generator) -> Values:
    return np.repeat((values @ LUMA)[..., None], 3, axis=2)


def _exposure(values: Values, stops: float, _: np.random.Generator) -> Values:
    """In linear light, so that what is too bright saturates."""
    stored = np.clip(values, 0, 255) / 255
    linear = np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)
    light = np.minimum(linear * 2.0**stops, 1)
    return (255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)).astype(np.float32)


def _occlusion(values: Values, share: float, rng: np.random.Generator) -> Values:
    """Opaque things with round outlines and a pattern of their own over this share of the image."""
    height, width = values.shape[:2]
    outline = fractal(rng, height, width, min(height, width) / 2, octaves=2)
    pattern = rng.uniform(40, 215, 3) + 40 * fractal(rng, height, width, min(height, width) / 8, octaves=4)[..., None]
    hidden = outline > np.quantile(outline, 1 - share)
    return np.where(hidden[..., None], np.clip(pattern, 0, 255), values).astype(np.float32)


def _jpeg(values: Values, quality: float, _: np.random.Generator) -> Values:
    coded = cv2.imencode(".jpg", _levels(values)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, round(quality)])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert decoded is not None, "what was just written is whole"
    return decoded[..., ::-1].astype(np.float32)


def _shear(values: Values, lag_px: float, _: np.random.Generator) -> Values:
    """As a rolling shutter draws a scene that moves to the right; the true pose is that of the middle row."""
    height, width = values.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    source = columns - np.float32(lag_px) * ((rows + 0.5) / height - 0.5)
    return cv2.remap(values, source, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _rotation(frame: Frame, degrees: float) -> Frame:
    """The camera turned clockwise about its optical axis, lens and all; black where it would see what nobody saw."""
    angle = np.radians(degrees)
    twist = torch.tensor([0, 0, angle, 0, 0, 0], dtype=torch.float64)
    cam_from_turned = Pose.exp(twist)
    columns, rows = _sources(frame.camera, cam_from_turned)
    image = cv2.remap(frame.image_rgb, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    pose = None if frame.map_from_cam is None else frame.map_from_cam @ cam_from_turned
    return replace(frame, image_rgb=image, map_from_cam=pose, depth_m=None)


def _sources(camera: Camera, cam_from_turned: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows float32 (H, W) where each pixel of the turned camera lies in the unturned image."""
    rows, columns = np.mgrid[: camera.height, : camera.width].astype(np.float64)
    bearing = camera.unproject(torch.from_numpy(np.stack([columns, rows], -1).reshape(-1, 2)))
    uv_px, visible = camera.project(cam_from_turned.transform(bearing))
    found = torch.where(visible[:, None], uv_px, -1e4).float()  # far outside: black
    column, row = found.reshape(camera.height, camera.width, 2).unbind(-1)
    return column.numpy(), row.numpy()


def _wrong_centre(frame: Frame, percent: float) -> Frame:
    """The same image under a calibration whose principal point is this share of the image's size too far right and
    down. A rotation belongs before it."""
    camera, share = frame.camera, percent / 100
    moved = replace(camera, cx=camera.cx + share * camera.width, cy=camera.cy + share * camera.height)
    return replace(frame, camera=moved)


def _wrong_focal(frame: Frame, percent: float) -> Frame:
    """The same image under a calibration whose focal lengths are this much too long. A rotation belongs before it."""
    factor = 1 + percent / 100
    return replace(frame, camera=replace(frame.camera, fx=frame.camera.fx * factor, fy=frame.camera.fy * factor))


KINDS = {
    "blur": Kind("length of motion, px", 0, 200, _blur),
    "dark": Kind("gain", 0, 1, _dark),
    "gamma": Kind("exponent", 0.1, 10, _gamma),
    "noise": Kind("photons of a grey level", 0.01, 1000, _noise),
    "grey": Kind(None, apply=_grey),
    "exposure": Kind("stops, in linear light", -8, 8, _exposure),
    "occlusion": Kind("share of the image", 0, 1, _occlusion),
    "shear": Kind("px that the last row lags behind the first", -200, 200, _shear),
    "jpeg": Kind("quality", 1, 100, _jpeg),
    "rotation": Kind("degrees in the image plane", -180, 180, move=_rotation),
    "wrong_focal": Kind("percent too long", -90, 900, move=_wrong_focal),
    "wrong_centre": Kind("percent of the image too far right and down", -50, 50, move=_wrong_centre),
}


def _dim_robot(blur_px: float, gain: float) -> tuple[Degradation, ...]:
    steps = {"grey": 0.0, "blur": blur_px, "gamma": 1.8, "dark": gain, "noise": 0.6}
    return tuple(Degradation(name, strength) for name, strength in steps.items())


CHAINS = {"hard": _dim_robot(9, 0.35), "extreme": _dim_robot(15, 0.15)}
