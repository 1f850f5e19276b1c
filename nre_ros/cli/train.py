"""``nre_ros train``: train the descriptor network, or adapt it to one place."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from nre_ros.config import parse_assignments, with_values
from nre_ros.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from nre_ros.training import Processes, Score, Trainer, TrainingConfig, TrainingData, Verdict


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "train",
        help="train the descriptor network, or adapt it to one place",
        epilog="several processes: torchrun --nproc-per-node N -m nre_ros.cli.main train ...",
    )
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="checkpoints, weights and curves")
    data = parser.add_argument_group("data")
    data.add_argument("--images", nargs="+", default=[], metavar="FOLDER", help="photos, seen under homographies")
    data.add_argument("--colmap", nargs="+", default=[], metavar="FOLDER", help="folders with images/ and a model")
    data.add_argument("--held-out", nargs="+", default=[], metavar="FOLDER", help="as --colmap, for validation alone")
    data.add_argument("--rendered", action="store_true", help="rooms of the simulator, with exact depth")
    site = parser.add_argument_group("one place", "its last frames judge whether the new weights are kept")
    site.add_argument("--from-map", metavar="MAP", help="map whose landmarks make the pairs")
    site.add_argument("--recording", metavar="RECORDING", help="recording that the map was made of")
    how = parser.add_argument_group("run")
    how.add_argument(
        "--start-from", default="default", metavar="WEIGHTS", help="a file, default or scratch (default: %(default)s)"
    )
    how.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    how.add_argument("--steps", type=int, metavar="N", help="length of the whole schedule")
    how.add_argument("--config", metavar="YAML", help="parameters, as in config/training.yaml")
    how.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="one of these parameters")
    how.add_argument("--threads", type=int, metavar="N", help="processor threads (default: as torch chooses)")


def run(args: argparse.Namespace) -> int:
    """Raises NreError; returns 0. Ctrl-C saves, says how to go on and raises KeyboardInterrupt."""
    _check(args)
    import cv2
    import torch

    from nre_ros.training import join_processes

    config = _config(args)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    with join_processes(config.device) as processes:
        _train(args, config, processes)
    return 0


def _check(args: argparse.Namespace) -> None:
    if (args.from_map is None) != (args.recording is None):
        raise ConfigError("--from-map and --recording belong together: a map, and the recording it was made of")
    if args.from_map is not None and args.start_from == "scratch":
        raise ConfigError("--from-map adapts weights that exist; leave --start-from out or name a file")
    if args.from_map is not None and (args.images or args.colmap or args.held_out or args.rendered):
        raise ConfigError("--from-map trains on its place alone; leave --images, --colmap, --held-out, --rendered out")
    if args.threads is not None and args.threads < 1:
        raise ConfigError(f"--threads is {args.threads}, expected at least 1")


def _config(args: argparse.Namespace) -> TrainingConfig:
    from nre_ros.training import TrainingConfig, read_config
    from nre_ros.training.checkpoint import resumed_config

    config = read_config(args.config) if args.config else TrainingConfig()
    if args.resume and not args.config:
        config = resumed_config(Path(args.output))
    values = parse_assignments(config, args.set)
    config = with_values(config, values)
    if args.steps is not None:
        return with_values(config, {"steps": args.steps})
    if args.from_map is not None and not args.resume and "steps" not in values:
        return with_values(config, {"steps": config.site_steps})
    return config


def _train(args: argparse.Namespace, config: TrainingConfig, processes: Processes) -> None:
    from nre_ros.training import Mixture, Trainer, judge, start_network, validate, validate_poses
    from nre_ros.training.checkpoint import CHECKPOINT

    folder = Path(args.output)
    if not args.resume and (folder / CHECKPOINT).exists():
        raise ModelError(f"{folder} already holds a training; go on with --resume, or choose another folder")
    net, rate_factor = start_network(args.start_from, config)
    data = _data(args, config)
    before = validate(net, data.validation, config) if args.from_map else {}
    poses_before = validate_poses(net, data.poses) if args.from_map else {}
    mixture = Mixture(data.sources, config, processes.rank)
    trainer = Trainer(net, mixture, data.validation, data.poses, folder, processes, rate_factor)
    if args.resume:
        trainer.resume()
    after = _with_bar(trainer, processes)
    if not processes.leads:
        return
    if args.from_map:
        for name, found in trainer.pose_scores.items():
            print(f"{name}, before: {poses_before[name]}\n{name}, after: {found}")
        _keep_the_better(args, judge(before, after, poses_before, trainer.pose_scores))
    else:
        print(f"weights of step {trainer.step} in {folder}")
        for name, score in after.items():
            print(f"{name}: {score}")
        for name, found in trainer.pose_scores.items():
            print(f"{name}: {found}")
    if trainer.corrupt:
        print(f"{len(trainer.corrupt)} unreadable images skipped, such as {min(trainer.corrupt)}", file=sys.stderr)


def _data(args: argparse.Namespace, config: TrainingConfig) -> TrainingData:
    from nre_ros.training import gather, gather_site

    if args.from_map is None:
        return gather(config, args.images, args.colmap, args.held_out, args.rendered)
    from nre_ros.mapping import load_map
    from nre_ros.recordings import open_recording

    return gather_site(load_map(args.from_map), open_recording(args.recording), config)


def _with_bar(trainer: Trainer, processes: Processes) -> dict[str, Score]:
    pairs = trainer.config.batch * processes.count
    total, done = trainer.config.steps * pairs, trainer.step * pairs
    with tqdm(total=total, initial=done, unit="pair", disable=None if processes.leads else True) as bar:

        def progress(step: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.2f}", refresh=False)
            bar.update(step * pairs - bar.n)

        try:
            return trainer.run(progress)
        except KeyboardInterrupt:
            if processes.leads:
                bar.write(f"stopped at step {trainer.step}, saved; go on with --resume", file=sys.stderr)
            raise


def _keep_the_better(args: argparse.Namespace, verdict: Verdict) -> None:
    """The adapted weights stay in the output folder only if they are better at this place."""
    from nre_ros.training.checkpoint import WEIGHTS

    weights = Path(args.output) / WEIGHTS
    print(verdict)
    if verdict.improved:
        print(f"kept the adapted weights; build the map anew with --weights {weights}")
        return
    weights.unlink(missing_ok=True)
    print(f"no improvement: keep the weights it started from ({args.start_from}); the adapted ones are not written")
