"""Where the package's launch, config and other shared files lie."""

from __future__ import annotations

from pathlib import Path

from nre_ros.errors import ConfigError


def share_folder() -> Path:
    """The folder with ``config/`` and ``launch/``: the source tree's, or ``share/nre_ros`` where installed.

    The same as ament's get_package_share_directory, without asking for a sourced environment. Raises ConfigError.
    """
    for folder in Path(__file__).resolve().parents:
        for candidate in (folder, folder / "share" / "nre_ros"):
            if (candidate / "package.xml").exists():
                return candidate
    raise ConfigError(f"no share/nre_ros above {__file__}: the package is not installed; run make setup, pip or colcon")
