"""Maps: building, storing, searching."""

from nre_ros.mapping.builder import MapBuilder
from nre_ros.mapping.map import Map
from nre_ros.mapping.map_file import check_network, load_map, save_map

__all__ = ["Map", "MapBuilder", "check_network", "load_map", "save_map"]
