"""Trajectories as files that other tools read, and their errors by the library evo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from nre_ros.errors import NreError
from nre_ros.evaluation.metrics import Answer
from nre_ros.geometry import Pose
from nre_ros.geometry.pose_track import seconds

EVO_HINT = "ATE and RPE need evo: pip install 'nre_ros[eval]' (Python 3.11 or newer)"


def write_trajectories(folder: str | Path, answers: Sequence[Answer]) -> list[Path]:
    """``estimated.tum`` (every pose found, believed or not), ``accepted.tum`` and ``truth.tum``: map_from_cam of the
    optical frame, "timestamp tx ty tz qx qy qz qw". Raises NreError when they cannot be written."""
    poses = {
        "estimated": [(a.stamp_ns, a.map_from_cam) for a in answers],
        "accepted": [(a.stamp_ns, a.map_from_cam if a.accepted else None) for a in answers],
        "truth": [(a.stamp_ns, a.truth) for a in answers],
    }
    files = []
    for name, rows in poses.items():
        files.append(Path(folder) / f"{name}.tum")
        lines = [_tum_line(stamp_ns, pose) for stamp_ns, pose in rows if pose is not None]
        _write(files[-1], ["# timestamp tx ty tz qx qy qz qw", *lines])
    return files


def write_submission(path: str | Path, answers: Sequence[Answer]) -> int:
    """A file as visuallocalization.net takes it (Aachen v1.1 and others): "name qw qx qy qz tx ty tz" of cam_from_map.

    Every pose found is given: images left out count as failures there, whatever the pose. Names are without their
    folders, as the site asks. Returns the number of lines; raises NreError when two images share a name, or the file
    cannot be written.
    """
    lines: dict[str, str] = {}
    for answer in answers:
        if answer.map_from_cam is None:
            continue
        name, cam_from_map = Path(answer.name).name, answer.map_from_cam.inverse()
        if name in lines:
            raise NreError(f"two images are called {name}, so {path} cannot tell them apart; ask about one folder only")
        x, y, z, w = cam_from_map.quat_xyzw().tolist()
        lines[name] = " ".join([name, *(f"{v:.9f}" for v in (w, x, y, z, *cam_from_map.translation.tolist()))])
    _write(Path(path), list(lines.values()))
    return len(lines)


def evo_figures(answers: Sequence[Answer]) -> dict[str, dict[str, float]] | None:
    """ATE and RPE of the accepted answers, as evo computes them: rmse, mean, median and max by name.

    Nothing is aligned here. RPE is from one accepted answer to the next, however far apart these are. None without evo,
    or with fewer than two such answers.
    """
    given = [a for a in answers if a.accepted and a.map_from_cam is not None and a.truth is not None]
    evo = _evo_metrics()
    if evo is None or len(given) < 2:
        return None
    from evo.core.trajectory import PosePath3D

    pair = tuple(
        PosePath3D(poses_se3=[pose.matrix().numpy() for pose in poses])
        for poses in ([a.truth for a in given if a.truth], [a.map_from_cam for a in given if a.map_from_cam])
    )
    relation = evo.PoseRelation
    metrics = {
        "ate_translation": evo.APE(relation.translation_part),
        "ate_rotation_deg": evo.APE(relation.rotation_angle_deg),
        "rpe_translation": evo.RPE(relation.translation_part, delta=1, delta_unit=evo.Unit.frames),
        "rpe_rotation_deg": evo.RPE(relation.rotation_angle_deg, delta=1, delta_unit=evo.Unit.frames),
    }
    figures = {}
    for name, metric in metrics.items():
        metric.process_data(pair)
        found = metric.get_all_statistics()
        figures[name] = {key: float(found[key]) for key in ("rmse", "mean", "median", "max")}
    return figures


def has_evo() -> bool:
    return _evo_metrics() is not None


def _evo_metrics() -> ModuleType | None:
    try:
        from evo.core import metrics
    except ImportError:
        return None
    return metrics


def _tum_line(stamp_ns: int, pose: Pose) -> str:
    numbers = np.array([*pose.translation.tolist(), *pose.quat_xyzw().tolist()])
    return " ".join([seconds(stamp_ns), *(f"{v:.9f}" for v in numbers)])


def _write(path: Path, lines: list[str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise NreError(f"{path} cannot be written ({error.strerror}); choose another place") from None
