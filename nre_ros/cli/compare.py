"""``nre_ros compare``: NRE beside other estimators, on the same map and queries."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tqdm import tqdm

from nre_ros.cli.figures import write_json
from nre_ros.cli.localizing import add_localizing_arguments, localizer_config
from nre_ros.cli.recording_options import add_every_argument, every_of, recording_of
from nre_ros.config import LocalizerConfig
from nre_ros.errors import ConfigError
from nre_ros.recordings import Recording, open_recording

if TYPE_CHECKING:
    from nre_ros.evaluation.comparison import Row
    from nre_ros.evaluation.estimators import Equipment
    from nre_ros.evaluation.questions import Question
    from nre_ros.evaluation.sweeps import Condition
    from nre_ros.features import FeatureNetwork
    from nre_ros.mapping import Map

SWEPT = ("nre", "re", "poselib_fine", "sift", "sift_enhanced")
"""What is compared when --sweep, and not --estimators, is given."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "compare",
        help="NRE beside other estimators, on the same map and queries",
        description="Every pose counts as an answer here, however unsure: no estimator may decline.",
    )
    add_localizing_arguments(parser)
    add_every_argument(parser)
    parser.add_argument(
        "--estimators",
        action="append",
        default=[],
        metavar="NAME,...",
        help="nre, msac, msac_coarse, re, fpr; poselib, usac_default, usac_fast, usac_accurate and usac_magsac, each "
        "with _coarse or _fine; align and pixloc, each with _keyframe or _coarse; sift, sift_enhanced (default: all "
        "that run here)",
    )
    parser.add_argument("--degrade", action="append", default=[], metavar="NAME[:STRENGTH]", help="as in evaluate")
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="NAME:STRENGTH,...",
        help="a table of recall against strength, as dark:0.5,0.2 or keyframes:2,4 (every 2nd, every 4th in the map)",
    )
    parser.add_argument("--map-recording", metavar="RECORDING", help="that the map was made of (default: RECORDING)")
    parser.add_argument("--pixloc-weights", metavar="FILE", help="checkpoint of PixLoc's network")
    parser.add_argument("--json", metavar="FILE", help="write all figures and poses")


def run(args: argparse.Namespace) -> int:
    """Raises NreError; returns 0 when there are figures."""
    from nre_ros.evaluation.comparison import best_settings, compare
    from nre_ros.evaluation.estimators import estimators
    from nre_ros.evaluation.sweeps import conditions, thinned
    from nre_ros.features import configured_network
    from nre_ros.mapping import load_map

    cases = conditions(args.degrade, args.sweep)
    names = _names(args)
    config = localizer_config(args)
    recording = recording_of(args)
    recording.require_poses()
    network = configured_network(config)
    whole = load_map(args.map, network)
    equipment = _equipment(args, names, whole, network)
    tables: dict[str, dict[str, Row]] = {}
    settings: dict[str, float] = {}  # those of the first condition stay: nobody sets them anew when it gets dark
    for case in cases:
        map_ = thinned(whole, case.every)
        if case.every > 1:
            equipment = _for_map(args, names, map_, network, equipment)
        asked = _Asked(args, recording, config, map_, network, case)
        chosen = estimators(names, asked.localizer, config.nre, equipment)
        settings = settings or best_settings(asked, asked.total, chosen, whole.median_depth)
        tables[case.name] = compare(asked, chosen, settings, whole.median_depth)
        if args.json:  # after every condition: a sweep takes long, and may be interrupted
            write_json(args.json, _figures(tables, whole))
    for problem in recording.problems:
        print(problem, file=sys.stderr)
    for name, rows in tables.items():
        if not args.sweep or name == cases[0].name:
            print(_table(rows, name, whole))
    if args.sweep:
        print("\n" + _sweep_table(tables, whole))
    return 0


class _Asked:
    """The same questions every time it is called; a localizer is made once."""

    def __init__(
        self,
        args: argparse.Namespace,
        recording: Recording,
        config: LocalizerConfig,
        map_: Map,
        network: FeatureNetwork,
        case: Condition,
    ) -> None:
        from nre_ros.localization import Localizer

        self.total = every_of(args, recording)[1]
        self._args, self._recording, self._config, self._case = args, recording, config, case
        self.localizer = Localizer(map_, network, config)

    def __call__(self) -> Iterator[Question]:
        from nre_ros.evaluation.degradations import degrade
        from nre_ros.evaluation.questions import ask

        frames, _ = every_of(self._args, self._recording)
        shown = tqdm(frames, desc=self._case.name, total=self.total, disable=None)
        return ask(self.localizer, (degrade(frame, self._case.chain) for frame in shown), self._config)


def _names(args: argparse.Namespace) -> tuple[str, ...]:
    """Estimators asked for, or all that can run here. Raises ConfigError for those that cannot."""
    from nre_ros.evaluation.estimators import NAMES, missing, names_of

    have = {"poselib": importlib.util.find_spec("poselib") is not None, "pixloc": bool(args.pixloc_weights)}
    if not args.estimators:
        default = SWEPT if args.sweep else NAMES
        lacking = missing(default, have)
        if not have["poselib"]:
            print("PoseLib is not installed and left out; install it by `pip install poselib`", file=sys.stderr)
        return tuple(name for name in default if name not in lacking)
    names = names_of(args.estimators)
    lacking = missing(names, have)
    if lacking:
        how = "pip install poselib" if lacking[0].startswith("poselib") else "give --pixloc-weights FILE"
        raise ConfigError(f"estimator {lacking[0]!r} cannot run here; {how}, or leave it out")
    return names


def _equipment(args: argparse.Namespace, names: Sequence[str], map_: Map, network: FeatureNetwork) -> Equipment:
    from nre_ros.evaluation.estimators import SIFT, Equipment
    from nre_ros.evaluation.keyframe_images import keyframe_frames
    from nre_ros.evaluation.rivals import RIVALS
    from nre_ros.evaluation.sift import SiftMap

    equipment = Equipment(sift_rival=RIVALS["poselib" if importlib.util.find_spec("poselib") else "usac_accurate"])
    if any(name in SIFT for name in names):
        frames = keyframe_frames(map_, open_recording(args.map_recording) if args.map_recording else recording_of(args))
        equipment = replace(equipment, sift=SiftMap(frames))
    return _for_map(args, names, map_, network, equipment)


def _for_map(
    args: argparse.Namespace, names: Sequence[str], map_: Map, network: FeatureNetwork, equipment: Equipment
) -> Equipment:
    """What depends on the numbers of the map's landmarks made for this one; SIFT's goes by keyframes' stamps."""
    from nre_ros.evaluation.estimators import FEATURE_METRIC, PIXLOC
    from nre_ros.evaluation.feature_metric import fitted_metric, pixloc_metric
    from nre_ros.evaluation.keyframe_images import keyframe_frames
    from nre_ros.features.pixloc import load_pixloc

    if not any(name in (*FEATURE_METRIC, *PIXLOC) for name in names):
        return equipment
    frames = keyframe_frames(map_, open_recording(args.map_recording) if args.map_recording else recording_of(args))
    if any(name in FEATURE_METRIC for name in names):
        equipment = replace(equipment, aligned=fitted_metric(map_, frames, network))
    if any(name in PIXLOC for name in names):
        pixloc = load_pixloc(args.pixloc_weights, network.device)
        equipment = replace(equipment, pixloc=pixloc_metric(map_, frames, pixloc))
    return equipment


def _figures(tables: Mapping[str, Mapping[str, Row]], map_: Map) -> dict[str, object]:
    found = {name: {key: row.as_dict() for key, row in rows.items()} for name, rows in tables.items()}
    return {"map_depth": map_.median_depth, "unit": map_.unit, "conditions": found}


def _table(rows: Mapping[str, Row], condition: str, map_: Map) -> str:
    """One line an estimator, as Markdown."""
    first = next(iter(rows.values()))
    unit = "m" if map_.unit == "metre" else "units"
    limits = [(name, "recall_of_depth") for name in first.recall_of_depth]
    limits += [(name, "recall") for name in first.recall]
    heads = [*(_limit(name, kind) for name, kind in limits), "median deg", f"median {unit}", "ms", "threshold"]
    lines = [
        f"{first.queries} queries, {condition}; median depth of the map {map_.median_depth:.3g} {unit}",
        "",
        "| | " + " | ".join(heads) + " |",
        "|---" * (len(heads) + 1) + "|",
    ]
    for row in rows.values():
        cells = [f"{100 * getattr(row, kind)[name]:.0f}" for name, kind in limits]
        cells += [_number(row.median_rotation_deg, 3), _number(row.median_translation, 4)]
        cells += [f"{row.median_ms:.0f}", row.setting or ""]
        lines.append(f"| {row.label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _sweep_table(tables: Mapping[str, Mapping[str, Row]], map_: Map) -> str:
    """One line a condition, one column an estimator."""
    names = list(next(iter(tables.values())))
    tight, loose = next(iter(next(iter(tables.values())).values())).recall_of_depth
    lines = [
        f"recall in % within {_limit(tight, 'recall_of_depth')} / {_limit(loose, 'recall_of_depth')}",
        "",
        "| | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for condition, rows in tables.items():
        of = [row.recall_of_depth for row in rows.values()]
        cells = [f"{100 * recall[tight]:.0f} / {100 * recall[loose]:.0f}" for recall in of]
        lines.append(f"| {condition} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _limit(name: str, kind: str) -> str:
    distance, degrees = name.split("_")
    return f"{distance}{' depth' if kind == 'recall_of_depth' else ''}, {degrees.removesuffix('deg')} deg"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
