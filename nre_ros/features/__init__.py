"""Dense descriptors: networks, their weights and their maps."""

from nre_ros.features.maps import DenseFeatures, FeatureMap
from nre_ros.features.network import FeatureNetwork, limit_size
from nre_ros.features.weights import configured_network, load_network, resolve_device

__all__ = [
    "DenseFeatures",
    "FeatureMap",
    "FeatureNetwork",
    "configured_network",
    "limit_size",
    "load_network",
    "resolve_device",
]
