"""``nre_ros features``: pictures of what the network makes of one image, or of two beside each other."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nre_ros.cli.network_options import add_network_arguments, network_values
from nre_ros.config import LocalizerConfig, parse_assignments, with_values
from nre_ros.errors import ConfigError, RecordingError

if TYPE_CHECKING:
    import numpy as np

    from nre_ros.evaluation.loss_pictures import AskedPoint
    from nre_ros.geometry import Camera

MAX_SIDE = 640


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "features",
        help="pictures of the descriptors of one or two images, and of loss maps between them",
        description="features.png shows the maps of all strides in colours that both images share; with two images, "
        "loss_maps.png shows where points of the first may be in the second (bright), the likeliest place (red) and "
        "the true one (green).",
    )
    parser.add_argument("image", metavar="IMAGE", help="JPEG or PNG file")
    parser.add_argument("other", nargs="?", metavar="IMAGE2", help="another view of the same place")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where the pictures go")
    parser.add_argument(
        "--point",
        action="append",
        default=[],
        metavar="U,V[,U2,V2]",
        help="a pixel of IMAGE, and where it truly is in IMAGE2; again for more (default: five corners)",
    )
    parser.add_argument(
        "--degrade", action="append", default=[], metavar="NAME[:STRENGTH]", help="make IMAGE2 worse, as for evaluate"
    )
    add_network_arguments(parser)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter, such as max_image_side=1280"
    )


def run(args: argparse.Namespace) -> int:
    """Raises NreError; returns 0."""
    if args.other is None and (args.point or args.degrade):
        raise ConfigError("--point and --degrade belong to two images; name IMAGE2, another view of the same place")
    from nre_ros.evaluation.feature_pictures import feature_sheet
    from nre_ros.evaluation.loss_pictures import loss_sheet, spread_corners
    from nre_ros.evaluation.pictures import write_image
    from nre_ros.features import configured_network

    usual = with_values(LocalizerConfig(), {"max_image_side": MAX_SIDE})
    config = with_values(usual, parse_assignments(usual, args.set) | network_values(args))
    whole = [_read(path) for path in (args.image, args.other) if path is not None]
    images = [_reduced(image, config.max_image_side) for image in whole]
    points = [_point(text, whole, images) for text in args.point]
    if args.degrade:
        images[1] = _degraded(images[1], args.degrade, args.other)
    network = configured_network(config)
    features = [network.extract(image) for image in images]
    folder = _folder(args.output)
    write_image(folder / "features.png", feature_sheet(images, features))
    print(f"features.png in {folder}")
    if args.other is None:
        return 0
    points = points or spread_corners(images[0])
    if not points:
        raise RecordingError(f"{args.image} has no corner to ask about; name points by --point")
    shown = loss_sheet(images, features, points)
    write_image(folder / "loss_maps.png", shown.picture)
    print("\n".join(shown.lines))
    print(f"loss_maps.png in {folder}")
    return 0


def _read(path: str) -> np.ndarray:
    from nre_ros.recordings.compressed import decode_compressed

    try:
        return decode_compressed("file", Path(path).read_bytes())
    except OSError as error:
        raise RecordingError(f"image {path} cannot be read: {error.strerror}") from None
    except RecordingError as error:
        raise RecordingError(f"image {path}: {error}") from None


def _reduced(image: np.ndarray, max_side: int) -> np.ndarray:
    from nre_ros.features import limit_size

    return limit_size(image, _any_camera(image), max_side)[0]


def _degraded(image: np.ndarray, texts: list[str], name: str) -> np.ndarray:
    from nre_ros.evaluation.degradations import KINDS, degrade, parse_degradations
    from nre_ros.recordings import Frame

    chain = parse_degradations(texts)
    moving = next((step.name for step in chain if KINDS[step.name].move is not None), None)
    if moving is not None:
        raise ConfigError(f"degradation {moving} needs a calibration; here only those of the image itself are known")
    return degrade(Frame(0, image, _any_camera(image), name=Path(name).name), chain).image_rgb


def _any_camera(image: np.ndarray) -> Camera:
    """What is asked of it is its size alone."""
    from nre_ros.geometry import Camera

    height, width = image.shape[:2]
    return Camera(width, height, width, width, (width - 1) / 2, (height - 1) / 2)


def _point(text: str, whole: list[np.ndarray], used: list[np.ndarray]) -> AskedPoint:
    """Pixels of the images as they were given become those of the images as ``used``, perhaps reduced."""
    import numpy as np

    from nre_ros.evaluation.loss_pictures import AskedPoint

    try:
        numbers = np.array([float(word) for word in text.split(",")])
    except ValueError:
        numbers = np.zeros(0)
    if len(numbers) not in (2, 4) or not np.isfinite(numbers).all():
        raise ConfigError(f"--point is {text!r}, expected U,V or U,V,U2,V2, such as 120,88")
    places = []
    for pixel, before, after in zip(numbers.reshape(-1, 2), whole, used, strict=False):
        size = np.array(before.shape[1::-1])
        if ((pixel < -0.5) | (pixel > size - 0.5)).any():
            raise ConfigError(f"--point {text} lies outside its image of {size[0]}x{size[1]} pixels")
        places.append((pixel + 0.5) * after.shape[1::-1] / size - 0.5)
    return AskedPoint(*places)


def _folder(path: str) -> Path:
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordingError(f"{folder} cannot hold pictures: {error.strerror}") from None
    return folder
