"""From one image and a map to a pose, or an honest "I don't know"."""

from nre_ros.localization.localizer import Localizer
from nre_ros.localization.result import Localization, PointReport, Search, Status

__all__ = ["Localization", "Localizer", "PointReport", "Search", "Status"]
