"""Camera relocalization by Neural Reprojection Error, for ROS 2."""

__version__ = "0.1.0"
