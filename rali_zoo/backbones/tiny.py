"""Our own small family, for CPUs and from scratch: ``rali:tiny``, ``rali:small``, ``rali:tiny-vit``.

A fixed front end turns the image into log-energies of 8x8 cosine patterns at two scales, which is where
blur, noise and block edges are plain to see; a small trainable network reads them. A network on bare pixels
must first learn such band-pass filters, which takes it longer than a CPU has. The patterns are laid every 4
pixels, so that a crop may lie anywhere on JPEG's own 8x8 grid. Any input size from 32 pixels up.

Related: block-DCT statistics for no-reference quality, Saad, Bovik and Charrier, "Blind image quality
assessment: a natural scene statistics approach in the DCT domain", TIP 2012.

``weights=shipped`` takes the weights that a scorer of this package learned on synthetic distortions
(``rali:small``: ``regression-tiny-synthetic``; ``rali:tiny``: ``rali-tiny-synthetic``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rali_zoo.backbones import efficientnet_lite
from rali_zoo.backbones.base import Backbone, Features, finish, map_tokens, pool_tokens
from rali_zoo.backbones.options import Options, choice
from rali_zoo.backbones.weights import load_strict, read_state
from rali_zoo.errors import ConfigError, UnknownNameError, UriError
from rali_zoo.paths import SHIPPED
from rali_zoo.types import Preprocess
from rali_zoo.uri import Uri

_BLOCK = 8
_STRIDE = 4
_CHROMA = 16
_SMALLEST = 32
# Noise floor of the energies: the square of half a grey level in 255, far below what can be seen.
_FLOOR = (0.5 / 255) ** 2
_NAMES = ("small", "tiny", "tiny-vit")
#: net to the scorer of this package that has its trained weights
_SHIPPED = {"small": "regression-tiny-synthetic", "tiny": "rali-tiny-synthetic"}


def dct_filters() -> Tensor:
    """The 64 orthonormal 8x8 DCT-II patterns, (64, 1, 8, 8), by rising frequency (zigzag-like)."""
    n = torch.arange(_BLOCK, dtype=torch.float64)
    basis = torch.cos(math.pi * (n[None] + 0.5) * n[:, None] / _BLOCK) * math.sqrt(2 / _BLOCK)
    basis[0] /= math.sqrt(2)
    patterns = torch.einsum("ui,vj->uvij", basis, basis).reshape(64, 1, _BLOCK, _BLOCK)
    order = sorted(range(64), key=lambda k: (k // 8 + k % 8, k))
    return patterns[order].float()


class LogEnergy(nn.Module):
    """The fixed front end: (B, 3, H, W) in [0, 1] to log-energies at two scales.

    Returns (B, 64, h, w) of luma at full scale, with h about H/4, and (B, 96, h', w') of luma and chroma at
    half scale, with h' about H/8. Each entry is about in [-1, 1]; the constant pattern stays linear.
    """

    dct: Tensor
    colour: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("dct", dct_filters(), persistent=False)
        ycc = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]  # JFIF
        self.register_buffer("colour", torch.tensor(ycc), persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) images in [0, 1] to log-energies at full and at half scale, both (B, C, h, w)."""
        # faint high frequencies drown in the rounding of half precision
        with torch.autocast(image.device.type, enabled=False):
            fine, coarse = self._scales(image.float())
        return fine.to(image.dtype), coarse.to(image.dtype)

    def _scales(self, image: Tensor) -> tuple[Tensor, Tensor]:
        dct = self.dct.float()
        ycc = (self.colour.float() @ image.flatten(2)).view_as(
            image
        )  # much faster on a CPU than a 1x1 convolution
        luma = ycc[:, :1] - 0.5
        half = F.avg_pool2d(ycc, 2)
        chroma = half[:, 1:].flatten(0, 1).unsqueeze(1)
        colours = F.conv2d(chroma, dct[:_CHROMA], stride=_STRIDE)
        colours = colours.unflatten(0, (image.shape[0], 2))
        coarse = [self._energy(F.conv2d(half[:, :1] - 0.5, dct, stride=_STRIDE))]
        coarse += [self._energy(colours[:, i]) for i in (0, 1)]
        return self._energy(F.conv2d(luma, dct, stride=_STRIDE)), torch.cat(coarse, dim=1)

    @staticmethod
    def _energy(coefficients: Tensor) -> Tensor:
        constant = coefficients[:, :1] / (_BLOCK / 2)
        energy = torch.log(coefficients[:, 1:].square() + _FLOOR)
        # log-energies run from log(_FLOOR) to about 0
        return torch.cat([constant, 1 - energy * (2 / math.log(_FLOOR))], dim=1)


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(inputs, outputs, 3, stride), nn.ReLU(), *_conv(outputs, outputs, 3, 1)
        )
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else nn.Sequential(*_conv(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h/stride, w/stride)."""
        return F.relu(self.body(x) + self.skip(x))


class Stem(nn.Module):
    """Mixes the two scales of the front end into one map of half scale."""

    def __init__(self, fine: int, width: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(*_conv(64, fine, 1, 1), nn.ReLU())
        self.down = nn.Sequential(*_conv(fine, width, 3, 2))
        self.coarse = nn.Sequential(*_conv(64 + 2 * _CHROMA, width, 1, 1))

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """The mixed map (B, width, h/2, w/2), and the fine one (B, fine, h, w) from before the reduction."""
        fine = self.fine(fine)
        down = self.down(fine)
        if down.shape[-2:] != coarse.shape[-2:]:  # borders: the two scales may differ by one position
            coarse = F.interpolate(coarse, size=down.shape[-2:], mode="bilinear", align_corners=False)
        return F.relu(down + self.coarse(coarse)), fine


class ConvNet(nn.Module):
    """Front end, stem, residual blocks."""

    def __init__(self, fine: int, width: int, top: int, blocks: int) -> None:
        super().__init__()
        self.front = LogEnergy()
        self.stem = Stem(fine, width)
        self.blocks = nn.Sequential(
            Residual(width, top, 2), *(Residual(top, top, 1) for _ in range(blocks - 1))
        )
        self.width = top
        self.widths = (fine, width, top)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) images in [0, 1] to the maps that are pooled, (B, C, h, w) each, finest first."""
        mixed, fine = self.stem(*self.front(image))
        return [fine, mixed, self.blocks(mixed)]


class ViT(nn.Module):
    """Front end, stem, and a small transformer over positions of 16x16 pixels."""

    def __init__(self, fine: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.front = LogEnergy()
        self.stem = Stem(fine, width)
        self.down = nn.Conv2d(width, width, 2, 2)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.width = width
        self.widths = (fine, width, width)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) images in [0, 1] to the maps that are pooled, (B, C, h, w) each, finest first."""
        mixed, fine = self.stem(*self.front(image))
        grid = self.down(mixed)
        tokens = self.layers(map_tokens(grid) + positions(grid))
        return [fine, mixed, tokens.transpose(1, 2).unflatten(2, grid.shape[-2:])]


def positions(grid: Tensor) -> Tensor:
    """Sine and cosine position embeddings (1, h*w, C) of a map (B, C, h, w); any size."""
    _, channels, height, width = grid.shape
    rate = torch.exp(-torch.arange(channels // 4, device=grid.device) * (math.log(1000.0) / (channels // 4)))
    rows = torch.arange(height, device=grid.device)[:, None] * rate
    columns = torch.arange(width, device=grid.device)[:, None] * rate
    by_row = torch.cat([rows.sin(), rows.cos()], 1)[:, None].expand(-1, width, -1)
    by_column = torch.cat([columns.sin(), columns.cos()], 1)[None].expand(height, -1, -1)
    return torch.cat([by_row, by_column], 2).flatten(0, 1)[None].to(grid.dtype)


class TinyBackbone(Backbone):
    """One of our family; pooled = mean and deviation over positions of the maps at three depths."""

    def __init__(self, net: ConvNet | ViT, uri: str, preprocess: Preprocess) -> None:
        super().__init__(net, uri, 2 * sum(net.widths), net.width, preprocess)

    def features(self, image: Tensor) -> Features:
        """Encode images (B, 3, H, W) of at least 32 x 32 pixels."""
        if min(image.shape[-2:]) < _SMALLEST:
            raise ConfigError(f"'{self.uri}' takes images of at least {_SMALLEST} x {_SMALLEST} pixels")
        levels = [map_tokens(level) for level in self.net(image)]
        return Features(torch.cat([pool_tokens(level, "avg_std") for level in levels], dim=1), levels[-1])


def create(uri: Uri, pretrained: bool) -> Backbone:
    """Build ``uri`` with random weights, or those of ``?weights=shipped`` or ``?checkpoint=``.

    An EfficientNet-Lite is built by :mod:`~rali_zoo.backbones.efficientnet_lite`.
    """
    if uri.id in efficientnet_lite.NAMES:
        return efficientnet_lite.create(uri, pretrained)
    options = Options.read(uri, own=("weights",))
    if uri.id not in _NAMES:
        raise UnknownNameError("rali backbone", uri.id, names())
    net: ConvNet | ViT
    if uri.id == "tiny-vit":
        net = ViT(fine=32, width=64, depth=3, heads=4)
    elif uri.id == "small":
        net = ConvNet(fine=64, width=96, top=144, blocks=2)
    else:
        net = ConvNet(fine=32, width=48, top=80, blocks=2)
    backbone = TinyBackbone(net, str(uri), options.preprocess(Preprocess(size=(160, 160))))
    shipped = choice(uri, "weights", options.own.get("weights"), ("shipped",)) is not None
    if shipped and uri.id not in _SHIPPED:
        raise UriError(f"'{uri}': weights=shipped is for {' and '.join(f'rali:{name}' for name in _SHIPPED)}")
    shipped = shipped and pretrained and options.pretrained and options.checkpoint is None
    if shipped:
        prefix = "backbone.net."
        whole = read_state(SHIPPED[_SHIPPED[uri.id]])
        state = {name.removeprefix(prefix): part for name, part in whole.items() if name.startswith(prefix)}
        load_strict(net, state, uri)
    return finish(backbone, options, from_library=shipped, pretrained=pretrained)


def names() -> list[str]:
    """Ids of our families."""
    return sorted((*_NAMES, *efficientnet_lite.NAMES))


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return (
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )
