"""The vision encoder of our own tiny vision-language model: a backbone of the family ``rali:`` as a timm model.

Importing this module registers it with timm, which is where transformers' ``timm_wrapper`` looks for it.
"""

from __future__ import annotations

import torch
from timm.models import register_model
from torch import Tensor, nn
from torch.nn import functional as F

from rali_zoo.backbones import create_backbone
from rali_zoo.backbones.base import Backbone
from rali_zoo.backbones.efficientnet_lite import NAMES as PRETRAINED
from rali_zoo.backbones.tiny import ConvNet

ARCHITECTURE = "rali_vlm_vision"
# As in the pooling of the backbones: the gradient of a square root at 0 is infinite.
_LEAST_VARIANCE = 1e-10


def tower(backbone: str, pretrained: bool = False) -> Backbone:
    """The backbone behind a vision encoder.

    Args:
        backbone: ``tiny`` or ``small``, which are trained here, or one of :data:`PRETRAINED`, which knows ImageNet
            and stays as it is.
        pretrained: whether the weights of the latter are read from their package.
    """
    if backbone not in PRETRAINED:
        return create_backbone(f"rali:{backbone}", pretrained=False)
    # four depths, from fine textures to objects
    return create_backbone(
        f"rali:{backbone}?weights=package&pool=avg_std&stages=1,2,4,5", pretrained=pretrained
    )


class VisionEncoder(nn.Module):
    """A convolutional net of the family ``rali:``, pooled over the whole image and over a grid.

    Every token is the mean and the standard deviation of the maps at several depths, standardised. The first one is
    over the whole image, and so is exactly what a regression on that backbone reads; the others are the cells
    of the grid, row by row. All normalisation uses stored statistics in training too: with those of the batch
    a reinforced policy would not be the one that was sampled from.

    Args:
        backbone: ``tiny``, ``small``, or a pretrained one, which is never trained further: what it makes of an image
            (:meth:`pool`) can be kept, and :meth:`forward_features` takes that in place of the image.
        grid: cells along each side.
    """

    def __init__(self, backbone: str, grid: int) -> None:
        super().__init__()
        made = tower(backbone)
        self.net, self.grid = made.net, grid
        self.is_fixed = not isinstance(self.net, ConvNet)
        self.num_features = made.dim if self.is_fixed else 2 * sum(self.net.widths)
        self.shift = made.preprocess.mean[0] if self.is_fixed else 0.0
        self.scale = made.preprocess.std[0] if self.is_fixed else 1.0
        self.standardise = nn.BatchNorm1d(self.num_features, affine=False)
        if isinstance(self.net, ConvNet):
            # transformers leaves in memory whatever the file does not hold, so the filters must be in there
            for name, filters in list(self.net.front.named_buffers()):
                self.net.front.register_buffer(name, filters, persistent=True)
        self.train(False)

    @property
    def count(self) -> int:
        """Tokens an image."""
        return 1 + self.grid**2

    def train(self, mode: bool = True) -> VisionEncoder:
        """Training mode for all but the normalisations."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def pool(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to tokens (B, 1 + grid², D) before they are standardised."""
        if self.is_fixed and image.device.type == "cpu":  # convolutions are faster so
            image = image.contiguous(memory_format=torch.channels_last)
        levels = [level.float() for level in self.net((image - self.shift) / self.scale)]
        return torch.cat([self._cells(level) for level in levels], dim=2).to(image.dtype)

    def _cells(self, level: Tensor) -> Tensor:
        parts = []
        for side in (1, self.grid):
            mean = F.adaptive_avg_pool2d(level, side)
            variance = F.adaptive_avg_pool2d(level.square(), side) - mean.square()
            deviation = variance.clamp_min(_LEAST_VARIANCE).sqrt()
            parts.append(torch.cat([mean, deviation], dim=1).flatten(2).transpose(1, 2))
        return torch.cat(parts, dim=1)

    def forward_features(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1], or tokens of :meth:`pool`, to (B, D, 1, 1 + grid²): a position a token."""
        tokens = image if image.ndim == 3 else self.pool(image)
        return self.standardise(tokens.flatten(0, 1)).view_as(tokens).transpose(1, 2).unsqueeze(2)

    def forward_head(self, features: Tensor) -> Tensor:
        """The token of the whole image, (B, D), from :meth:`forward_features`."""
        return features[:, :, 0, 0]

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to (B, D)."""
        return self.forward_head(self.forward_features(image))

    @torch.no_grad()
    def calibrate(self, image: Tensor, net: bool) -> None:
        """Set the statistics of the standardisation, and with ``net`` those inside the net, from images.

        Args:
            image: (B, 3, H, W) in [0, 1].
            net: whether the net is new and has no statistics of its own.
        """
        layers = [m for m in self.net.modules() if isinstance(m, nn.BatchNorm2d)] if net else []
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = 1.0
            layer.train()
        if layers:
            self.net(image)
        for layer in layers:
            layer.momentum = 0.1
            layer.eval()
        values = self.pool(image).flatten(0, 1)
        self.standardise.running_mean = values.mean(dim=0)
        self.standardise.running_var = values.var(dim=0)


@register_model
def rali_vlm_vision(
    pretrained: bool = False, backbone: str = "tiny", grid: int = 3, **of_timm: object
) -> VisionEncoder:
    """A new :class:`VisionEncoder`; ``of_timm`` is what timm hands to every model and has no use here."""
    return VisionEncoder(backbone, grid)
