"""Posed camera recordings. Every source yields the same :class:`Frame` stream."""

from nre_ros.recordings.frame import Frame, Recording
from nre_ros.recordings.open import open_recording

__all__ = ["Frame", "Recording", "open_recording"]
