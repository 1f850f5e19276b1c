"""``nre_ros calibrate``: from photos, recordings and their maps to how much support a pose needs to be believed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from nre_ros.cli.localizing import localizer_config
from nre_ros.cli.network_options import add_network_arguments
from nre_ros.config import LocalizerConfig
from nre_ros.errors import MapError
from nre_ros.geometry import Camera, pose_error
from nre_ros.recordings import Frame, open_recording

if TYPE_CHECKING:
    from nre_ros.features import FeatureNetwork
    from nre_ros.localization import Localization, Localizer

THINNED = (1, 2, 3, 5)
"""Each map serves with every so many of its keyframes alone, too."""
RATES = (0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
RIGHT_DEG, RIGHT_SHARE = 5.0, 0.05
"""A pose within this angle and this share of the map's median depth is right."""
FOCAL = 0.9
"""Focal length taken for photos, share of their longer side."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "calibrate",
        help="how much support a pose needs to be believed, from images of other places",
        description="Asks every photo, and every image of the recordings that is no keyframe, of a map of another "
        "place, the latter of their own map too, and writes what accept.calibration reads.",
    )
    parser.add_argument(
        "--place",
        nargs=2,
        action="append",
        required=True,
        metavar=("RECORDING", "MAP"),
        help="posed images and a map of some of them (build-map --every 2); several times, no place twice",
    )
    parser.add_argument("--photos", nargs="+", default=[], metavar="FOLDER", help="photos of yet other places")
    parser.add_argument("--most", type=int, default=1500, metavar="N", help="photos asked about (default: %(default)s)")
    parser.add_argument(
        "--degrade", nargs="+", default=[], metavar="CHAIN", help="as in evaluate; each image draws one chain, or none"
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.json", help="the calibration")
    add_network_arguments(parser)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of nre_ros config dump"
    )


def run(args: argparse.Namespace) -> int:
    """Prints what rates come to; raises NreError, for too few images of other places among them."""
    import numpy as np

    from nre_ros.evaluation.acceptance_fit import fit_tail
    from nre_ros.evaluation.degradations import degrade, parse_degradations
    from nre_ros.features import configured_network
    from nre_ros.localization.calibration import write_calibration

    config = localizer_config(args)
    network = configured_network(config)
    maps = [_localizers(path, network, config) for _, path in args.place]
    chains = [(), *(parse_degradations([text]) for text in args.degrade)]
    rng = np.random.default_rng(0)
    elsewhere: list[float] = []
    right: list[float] = []
    wrong: list[float] = []
    for place, frame in _images(args, maps, rng):
        frame = degrade(frame, chains[rng.integers(len(chains))])
        view = maps[0][0].see(frame.image_rgb, frame.camera)
        if place is not None:
            localizer = _one_of(maps[place], rng)
            found = localizer.search(view)
            (right if _is_right(found, frame, localizer) else wrong).append(found.support)
        others = [localizer for i, some in enumerate(maps) if i != place for localizer in some]
        if others:
            elsewhere.append(_one_of(others, rng).search(view).support)
    fitted = fit_tail(elsewhere, network.weights_hash)
    write_calibration(fitted, args.output)
    print("rate      least support    other places          right poses           wrong poses   (by support alone)")
    for rate in RATES:
        least = fitted.least_support(rate)
        counts = (f"{sum(s >= least for s in some)} of {len(some)}" for some in (elsewhere, right, wrong))
        print(f"{rate:<9g} {least:<16.3f} " + "".join(f"{text:<22}" for text in counts).rstrip())
    print(f"name {args.output} by the parameter accept.calibration")
    return 0


def _localizers(path: str, network: FeatureNetwork, config: LocalizerConfig) -> list[Localizer]:
    """For the map, and for the sparser ones that can be made of it."""
    from nre_ros.evaluation.sweeps import thinned
    from nre_ros.localization import Localizer
    from nre_ros.mapping import load_map

    whole, found = load_map(path, network), []
    for every in THINNED:
        try:
            found.append(Localizer(thinned(whole, every), network, config))
        except MapError:
            break  # too little is left
    return found


def _images(
    args: argparse.Namespace, maps: Sequence[Sequence[Localizer]], rng: Any
) -> Iterator[tuple[int | None, Frame]]:
    """The index of the place, None for photos, and the image."""
    from nre_ros.training.photos import find_photos, read_photo

    for place, (path, _) in enumerate(args.place):
        recording = open_recording(path)
        keyframes = {int(stamp) for stamp in maps[place][0].map.keyframe_stamps_ns}
        for frame in tqdm(recording.frames(), recording.name, total=recording.count(), disable=None):
            if frame.stamp_ns not in keyframes and frame.map_from_cam is not None:
                yield place, frame
    files = find_photos(args.photos)
    chosen = rng.permutation(len(files))[: args.most]
    for i in tqdm(chosen, "photos", disable=None):
        photo = read_photo(files[i], set())
        if photo is not None:
            height, width = photo.shape[:2]
            focal_px = FOCAL * max(height, width)
            camera = Camera(width, height, focal_px, focal_px, (width - 1) / 2, (height - 1) / 2)
            yield None, Frame(0, photo, camera, name=str(files[i]))


def _one_of(localizers: Sequence[Localizer], rng: Any) -> Localizer:
    return localizers[rng.integers(len(localizers))]


def _is_right(found: Localization, frame: Frame, localizer: Localizer) -> bool:
    if found.map_from_cam is None or frame.map_from_cam is None:
        return False
    degrees, distance = pose_error(found.map_from_cam, frame.map_from_cam)
    return float(degrees) <= RIGHT_DEG and float(distance) <= RIGHT_SHARE * localizer.map.median_depth
