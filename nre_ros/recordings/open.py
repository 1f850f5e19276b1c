"""Recognise what kind of recording a path holds."""

from __future__ import annotations

from pathlib import Path

from nre_ros.errors import RecordingError
from nre_ros.recordings.frame import Recording

KINDS = (
    "a rosbag2 (metadata.yaml, .mcap or .db3), a TUM RGB-D folder (rgb.txt), a COLMAP model (sparse/ and images/), "
    "a nerfstudio folder (transforms.json), a 7-Scenes folder (seq-01/frame-000000.color.png), a EuRoC folder "
    "(mav0/cam0/data.csv), a Cambridge Landmarks folder (dataset_train.txt) or a list of images with their cameras "
    "(name MODEL width height numbers)"
)


def open_recording(path: str | Path, **bag_options: str) -> Recording:
    """Open a recording by its contents; raises RecordingError naming what was found.

    Where a folder holds several kinds, the first of this order is taken: bag, TUM RGB-D, COLMAP, transforms.json,
    7-Scenes, EuRoC, Cambridge Landmarks, list of images. ``bag_options`` (topic and frame names) go to
    :class:`nre_ros.recordings.bag.BagRecording` and are refused for other kinds.
    """
    folder = Path(path)
    if not folder.exists():
        raise RecordingError(f"recording {folder} does not exist; check the path")
    if is_bag(folder):
        from nre_ros.recordings.bag import BagRecording

        return BagRecording(folder, **bag_options)
    recording = _open_folder(folder)
    given = [name for name, value in bag_options.items() if value]
    if given:
        raise RecordingError(f"{folder} is no rosbag2; {', '.join(given)} can be chosen for bags alone")
    return recording


def is_bag(path: Path) -> bool:
    """A rosbag2 folder, closed or not, or one of its files."""
    holds = (path / "metadata.yaml").exists() or any(path.glob("*.mcap")) or any(path.glob("*.db3"))
    return holds or path.suffix in {".mcap", ".db3"}


def _open_folder(folder: Path) -> Recording:
    if (folder / "rgb.txt").exists():
        from nre_ros.recordings.tum import TumRecording

        return TumRecording(folder)
    from nre_ros.recordings.cambridge import is_cambridge, open_cambridge
    from nre_ros.recordings.colmap import model_folder, open_colmap
    from nre_ros.recordings.euroc import euroc_folder, open_euroc
    from nre_ros.recordings.query_list import is_query_list, open_query_list
    from nre_ros.recordings.seven_scenes import is_seven_scenes, open_seven_scenes
    from nre_ros.recordings.transforms import FILE_NAME, open_transforms

    if model_folder(folder) is not None:
        return open_colmap(folder)
    if (folder / FILE_NAME).exists() or folder.suffix == ".json":
        return open_transforms(folder)
    if is_seven_scenes(folder):
        return open_seven_scenes(folder)
    if euroc_folder(folder) is not None:
        return open_euroc(folder)
    if is_cambridge(folder):
        return open_cambridge(folder)
    if is_query_list(folder):
        return open_query_list(folder)
    held = sorted(p.name for p in folder.iterdir())[:5] if folder.is_dir() else ["a single file"]
    raise RecordingError(
        f"{folder} is no recording: expected {KINDS}, found {', '.join(held) if held else 'an empty folder'}"
    )
