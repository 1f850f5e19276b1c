"""Recognise what kind of recording a path holds."""

from __future__ import annotations

from pathlib import Path

from nre_ros.errors import RecordingError
from nre_ros.recordings.frame import Recording


def open_recording(path: str | Path, **bag_options: str) -> Recording:
    """Open a recording folder by its contents; raises RecordingError naming what was found.

    ``bag_options`` (topic and frame names) go to :class:`nre_ros.recordings.bag.BagRecording` and are refused
    for other kinds.
    """
    folder = Path(path)
    if not folder.exists():
        raise RecordingError(f"recording {folder} does not exist; check the path")
    is_bag = (folder / "metadata.yaml").exists() or any(folder.glob("*.mcap")) or any(folder.glob("*.db3"))
    if is_bag or folder.suffix in {".mcap", ".db3"}:
        from nre_ros.recordings.bag import BagRecording

        return BagRecording(folder, **bag_options)
    if (folder / "rgb.txt").exists():
        from nre_ros.recordings.tum import TumRecording

        given = [name for name, value in bag_options.items() if value]
        if given:
            raise RecordingError(f"{folder} is a TUM RGB-D folder; {', '.join(given)} can be chosen for bags alone")
        return TumRecording(folder)
    held = sorted(p.name for p in folder.iterdir())[:5] if folder.is_dir() else ["a single file"]
    raise RecordingError(
        f"{folder} is no recording: expected a rosbag2 folder (metadata.yaml) or a TUM RGB-D folder (rgb.txt), "
        f"found {', '.join(held) if held else 'an empty folder'}"
    )
