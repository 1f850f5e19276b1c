"""One interface for all descriptor networks: image in, feature maps out."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from nre_ros.features.compact import STRIDES, CompactNet, normalize_image
from nre_ros.features.maps import DenseFeatures, FeatureMap, crop_to_image
from nre_ros.geometry import Camera, CellGrid


class FeatureNetwork(Protocol):
    """What the map builder and the localizer ask of a network. ``name`` and ``weights_hash`` go into the map."""

    name: str
    weights_hash: str
    device: torch.device

    def extract(self, image_rgb: np.ndarray) -> DenseFeatures:
        """Features of one image, uint8 (H, W, 3), on the network's device; pixels as in the given image."""
        ...


class CompactFeatures:
    """:class:`CompactNet` ready for inference."""

    def __init__(self, net: CompactNet, weights_hash: str, device: torch.device | str = "cpu"):
        self.name = "compact"
        self.weights_hash = weights_hash
        self.device = torch.device(device)
        self._inverse_temperature = {s: float(net.log_inverse_temperature[str(s)].detach().exp()) for s in STRIDES}
        self._net = net.eval().fold_batch_norms().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def extract(self, image_rgb: np.ndarray) -> DenseFeatures:
        height, width = image_rgb.shape[:2]
        # rows of pixels seen as channels last: what the convolutions want, without a copy
        image = torch.tensor(image_rgb, device=self.device).to(torch.float32).permute(2, 0, 1)[None] / 255
        padded = normalize_image(image)
        if height % 32 or width % 32:
            padded = F.pad(padded, (0, -width % 32, 0, -height % 32), mode="replicate")
        outputs = self._net(padded.contiguous(memory_format=torch.channels_last))
        maps = {s: self._feature_map(s, values[0], height, width) for s, values in outputs.items()}
        return DenseFeatures(coarse=maps[8], fine=maps[2], context=maps[16])

    def _feature_map(self, stride: int, values: torch.Tensor, height: int, width: int) -> FeatureMap:
        grid = CellGrid(stride, (stride - 1) / 2)
        return FeatureMap(crop_to_image(values, grid, height, width), grid, self._inverse_temperature[stride])


def limit_size(image_rgb: np.ndarray, camera: Camera, max_side: int) -> tuple[np.ndarray, Camera]:
    """The image and its camera, reduced (area-averaged) so that the long side is at most ``max_side`` pixels."""
    scale = max_side / max(camera.width, camera.height)
    if scale >= 1:
        return image_rgb, camera
    width, height = max(1, round(camera.width * scale)), max(1, round(camera.height * scale))
    resized = cv2.resize(image_rgb, (width, height), interpolation=cv2.INTER_AREA)
    return resized, camera.resized(width, height)
