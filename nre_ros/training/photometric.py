"""What light, lens, sensor and file format do to an image. Nothing here moves a point.

Strengths are drawn for each image; they surround what robots meet rather than copy one camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from nre_ros.simulation.noise import fractal
from nre_ros.training.config import PairConfig
from nre_ros.training.pairs import Pair


@dataclass(frozen=True)
class Strength:
    """Probabilities, and ranges that are drawn from evenly, most of them on a logarithmic scale.

    ``exposure`` and ``gamma`` are factors and exponents, ``blur_px`` the length of motion blur, ``photons`` those of
    one grey level, ``read_noise`` grey levels.
    """

    light: float
    grey: float
    exposure: tuple[float, float]
    gamma: tuple[float, float]
    blur: float
    blur_px: tuple[float, float]
    noise: float
    photons: tuple[float, float]
    read_noise: tuple[float, float]
    jpeg: float


MILD = Strength(0.3, 0.05, (0.75, 1.25), (0.8, 1.25), 0.2, (2, 5), 0.3, (2, 20), (0.3, 1.5), 0.3)
STRONG = Strength(0.6, 0.2, (0.3, 1.6), (0.6, 1.9), 0.6, (3, 11), 0.7, (0.5, 6), (0.5, 2.5), 0.5)
EXTREME = Strength(0.6, 0.35, (0.12, 0.5), (0.8, 1.9), 0.8, (5, 17), 1.0, (0.35, 2), (1, 3), 0.4)


def degrade_pair(pair: Pair, rng: np.random.Generator, config: PairConfig) -> Pair:
    """Both images mildly, or one of them as a robot in trouble sees it; sometimes with things in front."""
    if rng.random() < config.occluder_share:
        pair = occlude(pair, rng)
    drawn = rng.random()
    worse = EXTREME if drawn < config.extreme_share else STRONG
    if drawn >= config.extreme_share + config.strong_share:
        worse = MILD
    levels = [MILD, worse] if rng.random() < 0.5 else [worse, MILD]
    image_a, image_b = degrade(pair.image_a, rng, levels[0]), degrade(pair.image_b, rng, levels[1])
    return Pair(image_a, image_b, pair.uv_a_px, pair.uv_b_px)


def degrade(image: np.ndarray, rng: np.random.Generator, strength: Strength) -> np.ndarray:
    """uint8 (H, W, 3) to the same, through light, colour, exposure, lens, sensor and JPEG in this order."""
    values: np.ndarray = image.astype(np.float32)
    if rng.random() < strength.light:
        values *= _lighting(rng, *image.shape[:2])[..., None]
    values = _colour(values, rng, rng.random() < strength.grey)
    if rng.random() < strength.blur:
        values = _motion_blur(values, rng, _log_uniform(rng, *strength.blur_px))
    elif rng.random() < 0.5:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.3, 0.3 + 0.1 * strength.blur_px[1]))
    gamma, exposure = _log_uniform(rng, *strength.gamma), _log_uniform(rng, *strength.exposure)
    values = exposure * 255 * (np.clip(values, 0, 255) / 255) ** gamma
    if rng.random() < strength.noise:
        variance = values / _log_uniform(rng, *strength.photons) + _log_uniform(rng, *strength.read_noise) ** 2
        values += np.sqrt(variance) * _grain(rng, values.shape)
    result = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return _jpeg(result, int(rng.integers(25, 95))) if rng.random() < strength.jpeg else result


def occlude(pair: Pair, rng: np.random.Generator) -> Pair:
    """Paste one to three things over one image; points behind them are dropped."""
    in_a = rng.random() < 0.5
    image, uv = (pair.image_a, pair.uv_a_px) if in_a else (pair.image_b, pair.uv_b_px)
    mask = _blobs(rng, *image.shape[:2])
    pasted = np.where(mask[..., None], _foreground(image, rng), image)
    free = ~mask[tuple(np.rint(uv).astype(int).T[::-1])]
    left = (
        Pair(pasted, pair.image_b, pair.uv_a_px, pair.uv_b_px)
        if in_a
        else Pair(pair.image_a, pasted, pair.uv_a_px, pair.uv_b_px)
    )
    return left.keep(free)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _lighting(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Factors (H, W) of smooth shading and, half of the time, a shadow with a hard edge."""
    field: np.ndarray = np.exp(
        rng.uniform(0.1, 0.45) * fractal(rng, height, width, max(height, width) * rng.uniform(0.3, 1), 2)
    )
    if rng.random() < 0.5:
        shadow: np.ndarray = _blobs(rng, height, width).astype(np.float32)
        softness = rng.uniform(0, 3)
        if softness > 0.3:
            shadow = cv2.GaussianBlur(shadow, (0, 0), softness)
        field = field * (1 - rng.uniform(0.3, 0.75) * shadow)
    return field.astype(np.float32)


def _colour(values: np.ndarray, rng: np.random.Generator, grey: bool) -> np.ndarray:
    mean = values @ np.array([0.299, 0.587, 0.114], np.float32)
    saturation = 0.0 if grey else rng.uniform(0.5, 1.3)
    balance = np.ones(3) if grey else np.exp(rng.normal(0, 0.08, 3))
    mixed: np.ndarray = (mean[..., None] + np.float32(saturation) * (values - mean[..., None])) * balance.astype(
        np.float32
    )
    return mixed


def _motion_blur(values: np.ndarray, rng: np.random.Generator, length_px: float) -> np.ndarray:
    """Along a slightly bent line whose middle is the true place."""
    side = int(np.ceil(length_px)) // 2 * 2 + 3
    along = np.linspace(-0.5, 0.5, 8 * side) * length_px
    bend = rng.normal(0, 0.12) * length_px * ((2 * along / length_px) ** 2 - 1 / 3)
    angle = rng.uniform(0, np.pi)
    x, y = np.cos(angle) * along - np.sin(angle) * bend, np.sin(angle) * along + np.cos(angle) * bend
    place = np.stack([x, y], -1).clip(-(side // 2) + 0.01, side // 2 - 0.01) + side // 2
    low = np.floor(place).astype(int)
    share = place - low
    kernel: np.ndarray = np.zeros((side, side), np.float32)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        weight = np.abs(1 - dx - share[:, 0]) * np.abs(1 - dy - share[:, 1])
        np.add.at(kernel, (low[:, 1] + dy, low[:, 0] + dx), weight)
    return cv2.filter2D(values, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)


def _grain(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal noise (H, W, 3), now and then the same in all channels, as of a grey camera."""
    if rng.random() < 0.3:
        return np.repeat(rng.standard_normal((*shape[:2], 1), np.float32), 3, axis=2)
    return rng.standard_normal(shape, np.float32)


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    # OpenCV takes the channels for blue, green, red; as both ways agree on it, colours come back as they were
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert decoded is not None, "what was just written is whole"
    return decoded


def _blobs(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Mask (H, W) of one to three polygons, together well under half the image."""
    mask: np.ndarray = np.zeros((height, width), np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        corners = int(rng.integers(3, 9))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radius = min(height, width) * rng.uniform(0.08, 0.3) * rng.uniform(0.6, 1.3, corners)
        centre = rng.uniform(0, 1, 2) * [width, height]
        outline = centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], -1)
        cv2.fillPoly(mask, [np.rint(outline).astype(np.int32)], 1)
    return mask.astype(bool)


def _foreground(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Something that is not at this place: the image mirrored with its colours swapped, or a cloudy colour."""
    if rng.random() < 0.5:
        return np.ascontiguousarray(image[::-1, ::-1][..., rng.permutation(3)])
    height, width = image.shape[:2]
    cloud = fractal(rng, height, width, rng.uniform(4, 60), 3)[..., None]
    return np.clip(rng.uniform(20, 230, 3) + cloud * rng.uniform(5, 50), 0, 255).astype(np.uint8)
