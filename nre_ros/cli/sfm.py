"""``build-map --sfm``: the poses of a recording that has none, from its images."""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from nre_ros.cli.recording_options import every_of
from nre_ros.config import BuilderConfig
from nre_ros.errors import ConfigError, RecordingError
from nre_ros.geometry import Pose
from nre_ros.geometry.pose_track import seconds
from nre_ros.recordings import Recording
from nre_ros.recordings.frame import Frame

if TYPE_CHECKING:
    from nre_ros.geometry.alignment import Similarity
    from nre_ros.mapping.sfm import SfmPoses
    from nre_ros.mapping.sfm_views import SfmView

STAMP_TOLERANCE_NS = 1_000_000
"""A frame may be named by its stamp in decimal seconds, as exactly as this."""

MOST_PARTS = 10
"""That odometry joins, the largest first."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PlacedFrames:
    """``map_from_cam`` by the place of the frame in the recording's stream, and the unit of these poses."""

    map_from_cam: dict[int, Pose]
    unit: str

    def posed(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Those of the stream that were placed. Depth, in metres, goes with poses in metres only."""
        for index, frame in enumerate(frames):
            if index in self.map_from_cam:
                depth_m = frame.depth_m if self.unit == "metre" else None
                yield replace(frame, map_from_cam=self.map_from_cam[index], depth_m=depth_m)

    def digest(self) -> str:
        """Names the poses: keyframes of other ones must not be mixed with these."""
        content = hashlib.sha256()
        for index, pose in sorted(self.map_from_cam.items()):
            content.update(f"{index} {pose.matrix().tolist()}".encode())
        return content.hexdigest()[:16]


def add_sfm_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("poses from the images alone", "structure from motion; pip install pycolmap")
    group.add_argument("--sfm", action="store_true", help="place the frames by their images, whatever poses there are")
    scale = group.add_mutually_exclusive_group()
    scale.add_argument(
        "--sfm-scale",
        choices=("odometry", "depth"),
        default="",
        help="metres from the recording's own poses, whose frame the map gets, or from its depth images; else the map "
        "has no unit",
    )
    scale.add_argument(
        "--sfm-distance",
        nargs=3,
        default=[],
        metavar=("FRAME", "FRAME", "METRES"),
        help="metres between the camera's centres in two frames, by name or by stamp in seconds",
    )


def check_sfm_arguments(args: argparse.Namespace) -> None:
    """Raises ConfigError for a scale without --sfm, or a distance that is none."""
    if not args.sfm and (args.sfm_scale or args.sfm_distance):
        raise ConfigError("--sfm-scale and --sfm-distance say what unit --sfm has; give --sfm too")
    if args.sfm and args.unit:
        raise ConfigError("--unit is of poses that are given; that of --sfm comes of --sfm-scale or --sfm-distance")
    if args.sfm_distance:
        _metres(args.sfm_distance[2])


def place_frames(args: argparse.Namespace, recording: Recording, config: BuilderConfig, tell: Progress) -> PlacedFrames:
    """Poses of the frames that the arguments choose; prints what became of them. Raises NreError."""
    from nre_ros.mapping.sfm import reconstruct
    from nre_ros.mapping.sfm_scale import moved_by
    from nre_ros.mapping.sfm_views import choose_views

    frames, total = every_of(args, recording)
    named = args.sfm_distance[:2]
    views = choose_views(_counted(frames, total, tell), config, lambda frame: _is_any(named, frame))
    _check_named(named, views, recording.name)
    parts = reconstruct(views, tell, MOST_PARTS if args.sfm_scale == "odometry" else 1)
    solved = parts[0]
    print(
        f"structure from motion placed {len(solved.world_from_cam)} of the {len(views)} frames that show something new "
        f"({total} in all); mean reprojection error {solved.error_px:.2f} px"
    )
    if args.sfm_scale == "odometry":
        placed, unit = _placed_by_odometry(parts, views), "metre"
    else:
        map_from_world, unit = _scaled(args, solved, views)
        placed = moved_by(map_from_world, solved.world_from_cam)
    if len(placed) < len(views):
        print(f"left out: {len(views) - len(placed)} frames that do not hang together with these or contradict them")
    return PlacedFrames({views[k].index: placed[k] for k in sorted(placed)}, unit)


def _placed_by_odometry(parts: list[SfmPoses], views: list[SfmView]) -> dict[int, Pose]:
    """``map_from_cam`` by position, of all parts that agree with odometry; prints how well they do."""
    from nre_ros.mapping.sfm_scale import agreeing_with_given, aligned_to_given, further_by_given

    found = aligned_to_given(parts[0], views)
    print(
        f"scale from odometry, good to {found.scale_deviation:.2%}: {int(found.inlier.sum())} of "
        f"{len(found.inlier)} poses agree, off by {float(found.distance.median()):.3g} m and "
        f"{float(found.angle_deg.median()):.2g} deg (median)"
    )
    further = [placed for part in parts[1:] if (placed := further_by_given(part, views))]
    if further:
        sizes = ", ".join(str(len(placed)) for placed in further)
        print(f"further parts, of {sizes} frames, agree with odometry and lie where it says")
    return {k: pose for placed in [agreeing_with_given(parts[0], views, found), *further] for k, pose in placed.items()}


def _scaled(args: argparse.Namespace, solved: SfmPoses, views: list[SfmView]) -> tuple[Similarity, str]:
    """``map_from_world`` by depth or a distance and the map's unit; prints how well the scale is known."""
    from nre_ros.geometry.alignment import Similarity
    from nre_ros.mapping import sfm_scale

    if args.sfm_scale == "depth":
        metric, count, spread = sfm_scale.scaled_to_depth(solved)
        print(f"scale from {count} points with measured depth, whose ratios differ by {spread:.1%}")
        return metric, "metre"
    if args.sfm_distance:
        first, second = (_position(name, views) for name in args.sfm_distance[:2])
        return sfm_scale.scaled_to_distance(solved, views, first, second, _metres(args.sfm_distance[2])), "metre"
    return Similarity.identity(), "arbitrary"


def _counted(frames: Iterator[Frame], total: int, tell: Progress) -> Iterator[Frame]:
    tell("keypoints", 0, total)
    for done, frame in enumerate(frames):
        yield frame
        tell("keypoints", done + 1, total)


def _is(text: str, name: str, stamp_ns: int) -> bool:
    """Whether what the user typed names this frame."""
    if text == name:
        return True
    try:
        return abs(round(Decimal(text) * 10**9) - stamp_ns) <= STAMP_TOLERANCE_NS
    except (ArithmeticError, ValueError):
        return False


def _is_any(named: list[str], frame: Frame) -> bool:
    return any(_is(text, frame.name, frame.stamp_ns) for text in named)


def _position(text: str, views: list[SfmView]) -> int:
    """Of the view that the user named."""
    return next(k for k, view in enumerate(views) if _is(text, view.name, view.stamp_ns))


def _check_named(named: list[str], views: list[SfmView], recording: str) -> None:
    for text in named:
        if views and not any(_is(text, view.name, view.stamp_ns) for view in views):
            raise RecordingError(
                f"--sfm-distance names {text}, which is no frame of {recording}; expected a name such as "
                f"{views[0].name!r} or a stamp such as {seconds(views[0].stamp_ns)}"
            )


def _metres(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f"--sfm-distance ends with {text!r}, expected the metres between the two frames, such as 2.5")
    return value
