"""``nre_ros localize``: poses of the images of a recording in a map."""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from nre_ros.cli.figures import write_json
from nre_ros.cli.localizing import add_localizing_arguments, localizer_of
from nre_ros.cli.recording_options import recording_of
from nre_ros.errors import RecordingError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("localize", help="poses of the images of a recording in a map")
    add_localizing_arguments(parser)
    parser.add_argument("--json", metavar="FILE", help="write status, reason, score and pose of every image")
    parser.add_argument(
        "--submission",
        metavar="FILE",
        help="write 'name qw qx qy qz tx ty tz' of camera_from_map for each pose found, as visuallocalization.net asks",
    )


def run(args: argparse.Namespace) -> int:
    """Prints one TUM line (map_from_cam, status, score) an image. Raises NreError; 1 when no image was accepted."""
    from nre_ros.evaluation import localize_frames
    from nre_ros.evaluation.metrics import pose_line

    recording = recording_of(args)
    localizer = localizer_of(args)
    answers, lines, accepted = [], [], 0
    for _, found, answer in localize_frames(localizer, tqdm(recording.frames(args.split), unit="image", disable=None)):
        answers.append(answer)
        lines.append(pose_line(answer))
        accepted += found.accepted
        print(lines[-1], flush=True)
    for problem in recording.problems:
        print(problem, file=sys.stderr)
    if not lines:
        raise RecordingError(f"{recording.name} has no image to localize; check the recording and --split")
    if args.json:
        write_json(args.json, {"images": len(lines), "accepted": accepted, "poses": lines})
    if args.submission:
        from nre_ros.evaluation.trajectories import write_submission

        write_submission(args.submission, answers)
    print(f"{accepted} of {len(lines)} images accepted", file=sys.stderr)
    return 0 if accepted else 1
