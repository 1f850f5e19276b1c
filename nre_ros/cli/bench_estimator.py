"""``nre_ros bench-estimator``: the NRE estimator beside others on the same synthetic loss maps."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from nre_ros.cli.figures import write_json
from nre_ros.config import NreConfig, parse_assignments, with_values

if TYPE_CHECKING:
    from nre_ros.evaluation.estimator_bench import CaseFigures, Figures, Nees

SEEDS, NEES_SEEDS, QUICK_SEEDS, QUICK_NEES_SEEDS = 20, 1000, 3, 20
QUICK_CASES = ("n200_s16_w50", "n200_s8_repeated")
BIAS_POINTS = 3000
DESCRIPTION = """\
Draws landmarks, poses and loss maps from seeds, and asks the NRE estimator, its special case RE (Eq. 11), PoseLib's
LO-RANSAC and OpenCV's USAC for the pose: from the coarse maps, and from fine windows around our coarse pose. The rivals
get the maps' argmaxes, each at the best of five thresholds; OpenCV's poses are refined on their inliers by its
Levenberg-Marquardt. Positions are in map units; the landmarks are 4 to 12 away. Ours is timed with all it does, the
rivals without finding the argmaxes. The fine maps are read whole (fine_nats=0, unless --set says otherwise): synthetic
bumps are what they say.
"""
EPILOG = """\
--json: "torch_threads", "cores", "config"; "cases", a list with "case", "points", "seeds", "windows_ms",
"worse_rotation", "worse_position", and for "coarse" and "fine" by method ("nre", "re", rivals): "rotation_deg",
"position", "success", "ms", "forward", "forward_error", "threshold" (cells), "nees"; "extra_megabytes" by stride.
With --nees: "nees", a list with "case", "seeds", and for "coarse" and "fine": "mean", "low", "high", "count", "lost".
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "bench-estimator",
        help="the pose estimator beside others on synthetic loss maps",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        metavar="NAME",
        help="of cases or groups (wrong, size, stride8, few, modes, camera; default: all)",
    )
    parser.add_argument(
        "--rivals",
        nargs="*",
        metavar="NAME",
        help="poselib, usac_default, usac_fast, usac_accurate, usac_magsac (default: all)",
    )
    parser.add_argument(
        "--seeds", type=int, metavar="N", help=f"draws of each case (default: {SEEDS}; with --nees {NEES_SEEDS})"
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of torch and OpenCV (default: their own)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter, such as seed=3")
    parser.add_argument("--nees", action="store_true", help="only whether our covariance is honest; takes long")
    parser.add_argument("--quick", action="store_true", help="few cases and seeds: shows that it runs, no more")
    parser.add_argument("--json", metavar="FILE", help="write the figures; the keys are listed below")


def run(args: argparse.Namespace) -> int:
    """Raises NreError; returns 0."""
    import cv2
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    config = with_values(NreConfig(fine_nats=0.0), parse_assignments(NreConfig(), args.set))
    figures: dict[str, object] = {
        "torch_threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "config": vars(config),
    }
    figures |= _check_covariance(args, config) if args.nees else _compare(args, config)
    if args.json:
        write_json(args.json, figures)
    return 0


def _compare(args: argparse.Namespace, config: NreConfig) -> dict[str, object]:
    import torch

    from nre_ros.evaluation.estimator_bench import compare
    from nre_ros.evaluation.estimator_cases import GROUPS, specs_named
    from nre_ros.evaluation.estimator_figures import as_json
    from nre_ros.evaluation.estimator_memory import extra_megabytes
    from nre_ros.evaluation.rivals import RIVALS, rivals_named

    specs = specs_named(args.cases or (QUICK_CASES if args.quick else list(GROUPS)))
    rivals = rivals_named(list(RIVALS) if args.rivals is None else args.rivals)
    seeds = args.seeds or (QUICK_SEEDS if args.quick else SEEDS)
    compare(specs_named(QUICK_CASES)[0], 1, config, rivals)  # whatever is slow the first time
    with tqdm(total=len(specs) * seeds, disable=None, unit="draw") as bar:
        cases = []
        for spec in specs:
            bar.set_description(spec.name)
            cases.append(compare(spec, seeds, config, rivals, lambda: bar.update(1)))
    extra = {
        str(stride): extra_megabytes(stride, torch.get_num_threads()) for stride in ((16,) if args.quick else (16, 8))
    }
    print(_tables(cases, extra))
    return {"cases": as_json(cases), "extra_megabytes": extra}


def _check_covariance(args: argparse.Namespace, config: NreConfig) -> dict[str, object]:
    from nre_ros.evaluation.estimator_bench import check_covariance, nees_specs
    from nre_ros.evaluation.estimator_cases import specs_named
    from nre_ros.evaluation.estimator_figures import as_json

    specs = specs_named(args.cases) if args.cases else nees_specs((100,) if args.quick else (100, 300, 1000, 3000))
    seeds = args.seeds or (QUICK_NEES_SEEDS if args.quick else NEES_SEEDS)
    rows, found = [], []
    with tqdm(total=len(specs) * seeds, disable=None, unit="draw") as bar:
        for spec in specs:
            bar.set_description(spec.name)
            by_stage = check_covariance(spec, seeds, config, lambda: bar.update(1))
            rows.append([spec.name, *(_nees(value) for value in by_stage.values())])
            found.append(as_json({"case": spec.name, "seeds": seeds} | by_stage))
    print(_grid(f"NEES over {seeds} seeds, 95 % interval (expected 6)", ["case", "coarse", "coarse and fine"], rows))
    return {"nees": found}


def _tables(cases: Sequence[CaseFigures], extra: Mapping[str, float | None]) -> str:
    """All tables, a row for each case and stage."""
    rows = [(case, stage, getattr(case, stage)) for case in cases for stage in ("coarse", "fine")]
    methods = list(cases[0].coarse)

    def table(title: str, show: Callable[[Figures], str]) -> str:
        body = [[case.case, stage, *(show(by_method[method]) for method in methods)] for case, stage, by_method in rows]
        return _grid(title, ["case", "stage", *methods], body)

    def ratio(by_method: Mapping[str, Figures], other: str) -> str:
        return f"{by_method['nre'].ms / by_method[other].ms:.2f}" if other in by_method else "-"

    ours = [
        [
            case.case,
            stage,
            ratio(by_method, "poselib"),
            ratio(by_method, "usac_default"),
            f"{case.windows_ms:.1f}" if stage == "fine" else "-",
            f"{100 * case.worse_rotation:.0f} / {100 * case.worse_position:.0f}" if stage == "fine" else "-",
            _nees(by_method["nre"].nees),
        ]
        for case, stage, by_method in rows
    ]
    head = ["case", "stage", "time/poselib", "time/usac_default", "making maps, ms", "fine worse rot/pos, %", "NEES"]
    parts = [
        table(f"median rotation error, deg ({cases[0].seeds} seeds)", lambda figures: f"{figures.rotation_deg:.4f}"),
        table("median position error, map units", lambda figures: f"{figures.position:.4f}"),
        table("within 1 deg and 0.1 units, %", lambda figures: f"{100 * figures.success:.0f}"),
        table("median time, ms; fine with its coarse stage", lambda figures: f"{figures.ms:.1f}"),
        table("best threshold, cells", lambda figures: "-" if figures.threshold is None else f"{figures.threshold}"),
        _grid("ours", head, ours),
    ]
    large = [row for row in rows if row[0].points == BIAS_POINTS]
    if large:
        body = [
            [case.case, stage, *(f"{1e3 * f.forward:+.2f} ± {1e3 * f.forward_error:.2f}" for f in by_method.values())]
            for case, stage, by_method in large
        ]
        parts.append(_grid("mean move ahead along the camera's axis, thousandths", ["case", "stage", *methods], body))
    sizes = ", ".join(
        f"stride {stride}: " + ("not measurable here" if value is None else f"{value:.0f} MB")
        for stride, value in extra.items()
    )
    return "\n\n".join([*parts, f"memory beyond the inputs, 3000 points, coarse and fine: {sizes}"])


def _nees(value: Nees | None) -> str:
    if value is None:
        return "-"
    lost = f", {value.lost} lost" if value.lost else ""
    return f"{value.mean:.2f} [{value.low:.2f}, {value.high:.2f}]{lost}"


def _grid(title: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *body]]
    return "\n".join([title, *(line.rstrip() for line in lines)])
