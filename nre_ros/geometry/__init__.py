"""Poses and cameras: pure tensors, no files, no ROS."""

from nre_ros.geometry.camera import Camera, DistortionModel
from nre_ros.geometry.cells import CellGrid
from nre_ros.geometry.pose import Pose, pose_error

__all__ = ["Camera", "CellGrid", "DistortionModel", "Pose", "pose_error"]
