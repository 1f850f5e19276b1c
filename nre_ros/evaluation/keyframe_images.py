"""The images that a map was made of, for estimators that look at them again."""

from __future__ import annotations

from nre_ros.errors import RecordingError
from nre_ros.features import limit_size
from nre_ros.mapping import Map
from nre_ros.recordings import Frame, Recording


def keyframe_frames(map_: Map, recording: Recording) -> list[Frame]:
    """A frame for every keyframe, in the map's order, of the size and with the pose that the map has; all in memory.

    Raises RecordingError when the recording lacks one.
    """
    wanted = {int(stamp): k for k, stamp in enumerate(map_.keyframe_stamps_ns)}
    found: dict[int, Frame] = {}
    for frame in recording.frames(None):
        k = wanted.get(frame.stamp_ns)
        if k is not None:
            found[k] = _as_mapped(map_, k, frame)
    if len(found) < map_.keyframe_count:
        raise RecordingError(
            f"{recording.name} has the images of {len(found)} of the map's {map_.keyframe_count} keyframes; SIFT and "
            "alignment need all: name the recording that the map was made of by --map-recording, or leave them out "
            "by --estimators"
        )
    return [found[k] for k in range(map_.keyframe_count)]


def _as_mapped(map_: Map, keyframe: int, frame: Frame) -> Frame:
    camera = map_.cameras[int(map_.arrays.keyframe_camera[keyframe])]
    image, _ = limit_size(frame.image_rgb, frame.camera, max(camera.width, camera.height))
    return Frame(frame.stamp_ns, image, camera, map_.map_from_keyframe[keyframe], name=frame.name)
