"""What hangs on walls and lies on tables: posters, paintings, books, screens, papers. All are uint8 RGB images."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from nre_ros.simulation.noise import Colour, blend, fractal, paint, vary, vivid

Picture = Callable[[np.random.Generator, int, int], np.ndarray]
"""Draws an image of a height and width in texels."""

_SYLLABLES = ("ka", "lo", "mi", "ter", "an", "vo", "sol", "ri", "pen", "dra", "eu", "nox", "tal", "be", "qui", "zor")
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX)


def word(rng: np.random.Generator) -> str:
    """An invented word of two to four syllables."""
    return "".join(rng.choice(_SYLLABLES, int(rng.integers(2, 5)))).capitalize()


def write(
    image: np.ndarray, rng: np.random.Generator, text: str, x: int, y: int, height_px: float, colour: Colour
) -> None:
    """Print a line of text with its baseline's left end at (x, y), in place."""
    font = int(rng.choice(_FONTS))
    thickness = max(1, round(height_px / 12))
    cv2.putText(image, text, (x, y), font, height_px / 22, colour, thickness, cv2.LINE_AA)


def paragraph(image: np.ndarray, rng: np.random.Generator, left: int, top: int, right: int, line_px: float) -> None:
    """Lines of small print from ``top`` to the lower edge, in place."""
    y = float(top)
    while y < image.shape[0] - line_px:
        text = " ".join(word(rng) for _ in range(12))[: max(int((right - left) / (line_px * 0.55)), 2)]
        if rng.random() < 0.85:
            write(image, rng, text, left, int(y), line_px * 0.7, (50, 50, 55))
        y += line_px * 1.35


def poster(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A printed sheet: a gradient, random shapes and some lines of text."""
    slope = np.linspace(0, 1, height, dtype=np.float32)[:, None] * np.ones((1, width), np.float32)
    image = blend(vivid(rng, 240), vivid(rng, 240), slope).astype(np.uint8)
    for _ in range(int(rng.integers(8, 16))):
        _shape(image, rng, vivid(rng, 255))
    dark = bool(image.mean() > 110)
    ink: Colour = (20, 20, 30) if dark else (240, 240, 230)
    write(image, rng, word(rng), width // 12, height // 6, height * 0.09, ink)
    for line in range(int(rng.integers(2, 6))):
        text = f"{word(rng)} {word(rng)} {rng.integers(1900, 2030)}"
        write(image, rng, text, width // 12, int(height * (0.68 + 0.055 * line)), height * 0.032, ink)
    return _aged(rng, image)


def _shape(image: np.ndarray, rng: np.random.Generator, colour: Colour) -> None:
    height, width = image.shape[:2]
    centre = rng.uniform((0, 0), (width, height))
    size = rng.uniform(0.05, 0.3) * min(height, width)
    kind = rng.integers(4)
    if kind == 0:
        cv2.circle(image, tuple(int(v) for v in centre), int(size), colour, -1, cv2.LINE_AA)
    elif kind == 1:
        cv2.circle(image, tuple(int(v) for v in centre), int(size), colour, max(int(size / 5), 1), cv2.LINE_AA)
    else:
        corners = int(rng.integers(3, 7))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        points = centre + size * rng.uniform(0.6, 1.3, (corners, 1)) * np.stack([np.cos(angles), np.sin(angles)], -1)
        cv2.fillPoly(image, [points.round().astype(np.int32)], colour, cv2.LINE_AA)


def _aged(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    shade = 1 + 0.03 * fractal(rng, image.shape[0], image.shape[1], 120, 4)
    return np.clip(image * shade[..., None], 0, 255).astype(np.uint8)


def abstract_painting(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Swirls of smooth colour under visible brush strokes."""
    drift = np.stack([fractal(rng, height, width, width / 3, 3) for _ in range(2)])
    y, x = np.mgrid[:height, :width].astype(np.float32)
    base = np.stack([fractal(rng, height, width, width / 2.5, 4) for _ in range(3)], -1)
    swirled = cv2.remap(base, x + 30 * drift[0], y + 30 * drift[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    colour = np.asarray(vivid(rng, 210)) * 0.6 + 50 + 30 * swirled + 14 * drift[0][..., None]
    strokes = 1 + 0.09 * fractal(rng, height, width, 5, 2, stretch=8)
    return np.clip(colour * strokes[..., None], 0, 255).astype(np.uint8)


def landscape(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A photo-like view: sky with clouds, ranges of hills that grow darker, trees in front."""
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None] * np.ones((1, width), np.float32)
    image = blend(vary(rng, (90, 140, 205), 0.15), vary(rng, (235, 215, 190), 0.08), y * 1.8)
    clouds = np.clip(fractal(rng, height, width, height / 3, 5, stretch=2), 0, 1.5) / 1.5 * np.clip(1 - 1.6 * y, 0, 1)
    image += (np.array([250, 248, 245], np.float32) - image) * clouds[..., None]
    hue = vary(rng, (70, 105, 60), 0.2)
    for layer in range(5):
        line = 0.42 + 0.12 * layer + 0.08 * fractal(rng, 1, width, width / 3, 5)[0] / (1 + 0.3 * layer)
        haze = 0.75 - 0.18 * layer
        tone = blend(hue, (170, 185, 205), np.full((height, width), haze, np.float32))
        tone *= (1 + 0.14 * fractal(rng, height, width, 26 + 6 * layer, 4))[..., None]
        image = np.where((y > line)[..., None], tone, image)
    for _ in range(int(rng.integers(5, 14))):
        x, foot, tall = int(rng.integers(width)), int(height * rng.uniform(0.75, 1.0)), height * rng.uniform(0.1, 0.4)
        cv2.line(image, (x, foot), (x, int(foot - tall * 0.5)), (60, 45, 35), max(int(tall / 20), 1), cv2.LINE_AA)
        for _ in range(25):
            dx, dy = rng.normal(0, tall * 0.16), rng.normal(0, tall * 0.16)
            leaf = vary(rng, (55, 85, 40), 0.3)
            cv2.circle(image, (int(x + dx), int(foot - tall * 0.65 + dy)), int(tall * 0.07) + 1, leaf, -1, cv2.LINE_AA)
    return np.clip(image, 0, 255).astype(np.uint8)


def books(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A row of book spines, some shorter than others, some leaning, with titles along them."""
    image = paint((38, 30, 26), 1 + 0.2 * fractal(rng, height, width, 20, 2))
    x = 0
    while x < width - 4:
        thick, tall = int(rng.integers(8, 24)), int(height * rng.uniform(0.68, 0.98))
        colour = vivid(rng, 190) if rng.random() < 0.7 else vary(rng, (190, 180, 160), 0.15)
        spine = paint(colour, 1 + 0.06 * fractal(rng, thick, tall, 20, 3))
        across = np.sin(np.linspace(0.25, np.pi - 0.25, thick)) ** 0.6  # rounded backs are darker at their edges
        spine = (spine * across[:, None, None]).astype(np.uint8)
        ink: Colour = (235, 220, 150) if np.mean(colour) < 120 else (25, 25, 30)
        for position in rng.uniform(0.05, 0.95, int(rng.integers(1, 4))):
            column = int(position * tall)
            spine[:, column : column + 3] = ink
        if thick > 11:
            write(spine, rng, f"{word(rng)} {word(rng)}", int(tall * 0.12), int(thick * 0.72), thick * 0.62, ink)
        upright = np.ascontiguousarray(np.rot90(spine, -1))[:, : width - x]
        image[height - tall :, x : x + upright.shape[1]] = upright
        x += thick + (int(rng.integers(4, 30)) if rng.random() < 0.06 else 0)
    return image


def screen(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A monitor that shows windows of text, code or a plot."""
    image = landscape(rng, height, width)
    for _ in range(int(rng.integers(2, 4))):
        x, y = int(rng.uniform(0, 0.5) * width), int(rng.uniform(0, 0.5) * height)
        w, h = int(rng.uniform(0.35, 0.6) * width), int(rng.uniform(0.4, 0.7) * height)
        window = image[y : y + h, x : x + w]
        window[:] = (248, 248, 246) if rng.random() < 0.6 else (36, 40, 48)
        window[:12] = vivid(rng, 220)
        page = np.ascontiguousarray(window)
        for row in range(24, page.shape[0] - 4, 11):
            start = 8 + 10 * int(rng.integers(4))
            cv2.line(page, (start, row), (int(rng.integers(start, page.shape[1])), row), vivid(rng, 200), 3)
        window[:] = page
    return image


def paper(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A printed page with a headline, text and perhaps a figure."""
    image = np.full((height, width, 3), (244, 243, 238), np.uint8)
    write(image, rng, f"{word(rng)} {word(rng)}", width // 12, height // 9, height * 0.05, (25, 25, 30))
    top = height // 6
    if rng.random() < 0.6:
        inner = image[top : top + height // 3, width // 12 : width - width // 12]
        inner[:] = landscape(rng, *inner.shape[:2]) if rng.random() < 0.5 else abstract_painting(rng, *inner.shape[:2])
        top += height // 3 + height // 20
    paragraph(image, rng, width // 12, top + height // 30, width - width // 12, max(height / 34, 6))
    return image


def whiteboard(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Hand-drawn boxes, arrows, curves and words on white, with wiped traces."""
    image = paint((238, 240, 240), 1 + 0.015 * fractal(rng, height, width, 120, 4))
    inks: list[Colour] = [(30, 50, 160), (180, 30, 40), (20, 110, 50), (30, 30, 35)]
    for _ in range(11):
        ink = inks[int(rng.integers(len(inks)))]
        x, y = int(rng.uniform(0.03, 0.85) * width), int(rng.uniform(0.1, 0.9) * height)
        kind = rng.integers(3)
        if kind == 0:
            far = (x + int(rng.integers(50, 140)), y + int(rng.integers(30, 70)))
            cv2.rectangle(image, (x, y), far, ink, 2, cv2.LINE_AA)
            write(image, rng, word(rng)[:6], x + 8, y + 26, 13, ink)
        elif kind == 1:
            t = np.linspace(0, 1, 40)
            curve = y - 30 * fractal(rng, 1, 40, 14, 2)[0]
            points = np.stack([x + 150 * t, curve], -1).round().astype(np.int32)
            cv2.polylines(image, [points], False, ink, 2, cv2.LINE_AA)
        else:
            tip = (x + int(rng.integers(-90, 90)), y + int(rng.integers(-60, 60)))
            cv2.arrowedLine(image, (x, y), tip, ink, 2, cv2.LINE_AA, tipLength=0.15)
            write(image, rng, f"{word(rng)} {rng.integers(99)}", x, y, 15, ink)
    return image


def label(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """A copy of a material with printed marks and a sticker, such as cardboard boxes bear."""
    out = np.ascontiguousarray(image)
    height, width = out.shape[:2]
    if min(height, width) < 40:
        return out
    write(out, rng, word(rng).upper(), width // 10, int(height * 0.35), height * 0.16, (50, 40, 35))
    x, y = int(width * rng.uniform(0.1, 0.5)), int(height * rng.uniform(0.5, 0.65))
    sticker = out[y : y + height // 4, x : x + width // 3]
    sticker[:] = (240, 238, 230)
    page = np.ascontiguousarray(sticker)
    paragraph(page, rng, 2, 8, page.shape[1], 7)
    sticker[:] = page
    cv2.rectangle(out, (0, 0), (width - 1, height - 1), (70, 55, 40), 2)
    return out


def calendar(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A picture above a month's grid of numbers."""
    image = np.full((height, width, 3), (246, 246, 242), np.uint8)
    split = height // 2
    image[:split] = landscape(rng, split, width)
    for day in range(31):
        x, y = int((day % 7 + 0.3) * width / 7), int(split + (day // 7 + 0.8) * (height - split) / 5.3)
        ink: Colour = (190, 40, 40) if day % 7 > 4 else (40, 40, 45)
        write(image, rng, str(day + 1), x, y, height * 0.035, ink)
    return image


def clock(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A wall clock on a white square."""
    side = min(height, width)
    image = np.full((side, side, 3), (228, 226, 220), np.uint8)
    middle = side // 2
    cv2.circle(image, (middle, middle), int(side * 0.47), (40, 40, 45), max(side // 30, 1), cv2.LINE_AA)
    for hour in range(12):
        angle = hour * np.pi / 6
        spot = (
            int(middle + side * 0.38 * np.sin(angle)) - side // 22,
            int(middle - side * 0.38 * np.cos(angle)) + side // 30,
        )
        cv2.putText(image, str(hour or 12), spot, _FONTS[1], side / 420, (30, 30, 35), 1, cv2.LINE_AA)
    for length, angle in ((0.2, rng.uniform(0, 6.28)), (0.3, rng.uniform(0, 6.28))):
        tip = (int(middle + side * length * np.sin(angle)), int(middle - side * length * np.cos(angle)))
        cv2.line(image, (middle, middle), tip, (150, 30, 30), max(side // 40, 1), cv2.LINE_AA)
    return image
