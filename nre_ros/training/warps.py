"""Views of a flat picture: homographies, smooth waves on top, and resampling without aliasing."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

BORDER = cv2.BORDER_REPLICATE


@dataclass(frozen=True)
class Waves:
    """A smooth displacement of pixels, a sum of plane waves: each row (kx, ky, phase, dx, dy), rad/px and px."""

    rows: np.ndarray

    def shift(self, uv_px: np.ndarray) -> np.ndarray:
        """Displacements (..., 2) at pixels (..., 2)."""
        kx, ky, phase, dx, dy = self.rows.T
        swing = np.sin(uv_px[..., :1] * kx + uv_px[..., 1:] * ky + phase)
        return np.stack([swing @ dx, swing @ dy], -1)

    @staticmethod
    def draw(rng: np.random.Generator, side_px: float) -> Waves:
        """Three waves, from half to twice ``side_px`` long; locally they stretch by up to a third."""
        count = 3
        length = side_px * np.exp(rng.uniform(np.log(0.5), np.log(2.0), count))
        heading, way = rng.uniform(0, 2 * np.pi, (2, count))
        k = 2 * np.pi / length
        size = rng.uniform(0.03, 0.11, count) / k
        columns = k * np.cos(heading), k * np.sin(heading), rng.uniform(0, 2 * np.pi, count)
        return Waves(np.stack([*columns, size * np.cos(way), size * np.sin(way)], -1))


@dataclass(frozen=True)
class View:
    """A crop of ``width`` x ``height`` pixels: ``photo_from_crop`` (3, 3) tells where in a photo each pixel comes from.

    With ``waves``, pixels are displaced by them first.
    """

    photo_from_crop: np.ndarray
    width: int
    height: int
    waves: Waves | None = None

    def to_photo(self, uv_px: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) of the crop as pixels of the photo."""
        moved = uv_px if self.waves is None else uv_px + self.waves.shift(uv_px)
        return transform(self.photo_from_crop, moved)

    def from_photo(self, uv_px: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`to_photo`, for views without waves."""
        assert self.waves is None, "waves have no inverse in closed form"
        return transform(np.linalg.inv(self.photo_from_crop), uv_px)

    def render(self, photo: np.ndarray) -> np.ndarray:
        """The crop, uint8 (height, width, 3); beyond the photo its rim goes on."""
        smooth = _without_aliases(photo, self._shrinking())
        u, v = np.meshgrid(np.arange(self.width, dtype=np.float64), np.arange(self.height, dtype=np.float64))
        where = self.to_photo(np.stack([u, v], -1).reshape(-1, 2)).reshape(self.height, self.width, 2)
        where = where.astype(np.float32)
        return cv2.remap(smooth, where[..., 0], where[..., 1], cv2.INTER_LINEAR, borderMode=BORDER)

    def _shrinking(self) -> float:
        """Pixels of the photo to one of the crop, at the crop's centre."""
        centre = np.array([[self.width / 2, self.height / 2]])
        around = transform(self.photo_from_crop, centre + np.array([[0, 0], [1, 0], [0, 1]]))
        (a, b), (c, d) = around[1:] - around[0]
        return float(np.sqrt(abs(a * d - b * c)))


def transform(matrix: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Points (N, 2) through a homography (3, 3)."""
    moved = uv @ matrix[:, :2].T + matrix[:, 2]
    return moved[:, :2] / moved[:, 2:]


def similarity(photo_centre: np.ndarray, scale: float, angle_rad: float, width: int, height: int) -> np.ndarray:
    """photo_from_crop (3, 3) that puts the crop's centre on ``photo_centre``; ``scale`` photo pixels a pixel."""
    c, s = scale * np.cos(angle_rad), scale * np.sin(angle_rad)
    turn = np.array([[c, -s], [s, c]])
    shift = photo_centre - turn @ np.array([(width - 1) / 2, (height - 1) / 2])
    return np.array([[*turn[0], shift[0]], [*turn[1], shift[1]], [0, 0, 1]])


def tilt(rng: np.random.Generator, share: float, width: int, height: int) -> np.ndarray:
    """A homography (3, 3) of the crop that moves each corner by at most ``share`` of the sides."""
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float32)
    moved = corners + rng.uniform(-share, share, (4, 2)).astype(np.float32) * np.array([width, height], np.float32)
    matrix: np.ndarray = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    return matrix


def _without_aliases(photo: np.ndarray, shrinking: float) -> np.ndarray:
    if shrinking <= 1.25:
        return photo
    return cv2.GaussianBlur(photo, (0, 0), 0.45 * np.sqrt(shrinking**2 - 1), borderType=BORDER)
