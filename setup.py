import re
from glob import glob
from pathlib import Path

from setuptools import Distribution, find_packages, setup

VERSION = re.search(r'__version__ = "(.+)"', Path("nre_ros/__init__.py").read_text()).group(1)


class WithDataFiles(Distribution):
    """An editable wheel takes data_files along if ``has_data`` says so, which setuptools forgot to define."""

    has_data = Distribution.has_data_files


setup(
    distclass=WithDataFiles,
    name="nre_ros",
    version=VERSION,
    description="Camera relocalization by Neural Reprojection Error, for ROS 2",
    license="Apache-2.0",
    maintainer="nre_ros developers",
    maintainer_email="nre_ros@users.noreply.github.com",
    python_requires=">=3.10",
    packages=find_packages(include=["nre_ros", "nre_ros.*"]),
    package_data={"nre_ros": ["py.typed"], "nre_ros.features": ["weights/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/nre_ros"]),
        ("share/nre_ros", ["package.xml"]),
        ("share/nre_ros/config", glob("config/*.yaml") + glob("config/*.xml") + glob("config/*.rviz")),
        ("share/nre_ros/launch", glob("launch/*.launch.py")),
        ("share/nre_ros/maps/house", ["maps/house/map.safetensors"]),
        # pip puts console scripts into bin/ alone, where `ros2 run` and launch do not look.
        ("lib/nre_ros", ["scripts/nre_localizer", "scripts/nre_map_builder", "scripts/nre_ros"]),
    ],
    entry_points={"console_scripts": ["nre_ros = nre_ros.cli.main:main"]},
    # rclpy, the messages and tf2 come from the ROS 2 distribution, or from requirements/ros.txt.
    install_requires=[
        "matplotlib",
        "numpy",
        "opencv-python-headless",
        "pyyaml",
        "rosbags",
        "safetensors",
        "scipy",
        "torch>=2.2",
        "tqdm",
    ],
    extras_require={
        "bench": ["poselib"],
        "eval": ["evo; python_version >= '3.11'"],
        "sfm": ["pycolmap>=4"],
        "test": ["hypothesis", "pycolmap>=4", "pytest", "pytest-timeout"],
        "lint": ["mypy", "ruff", "types-PyYAML"],
    },
    zip_safe=False,
)
