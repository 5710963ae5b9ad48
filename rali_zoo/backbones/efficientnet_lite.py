"""EfficientNet-Lite without timm: ``rali:efficientnet-lite0``, ``-lite1``, ``-lite2``.

The network of timm's ``tf_efficientnet_lite0`` to ``2`` under the same weight names, so that weights go
either way; here because importing timm takes longer than scoring a photograph. Tan and Le, "EfficientNet",
ICML 2019, without squeeze-and-excitation and with ReLU6 (github.com/tensorflow/tpu, efficientnet/lite).

Own options: ``levels`` and ``weights=package``, as :mod:`~rali_zoo.backbones.timm` has them; or, in place of
``levels``, ``stages=0,1,5`` pools the maps behind some of the seven stages of blocks, two of which timm's levels skip.
What lies behind the last map is not built.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rali_zoo.backbones.base import Backbone, Features, finish, map_tokens, pool_tokens
from rali_zoo.backbones.options import Options, Pool, choice, pooled_levels
from rali_zoo.backbones.packages import package_state
from rali_zoo.backbones.weights import load_strict
from rali_zoo.errors import ConfigError, UriError
from rali_zoo.types import Preprocess
from rali_zoo.uri import Uri

_HEAD = 1280
_STEM = 32
_CLASSES = 1000
#: stages whose ends are the maps that ``levels`` counts: those before the next reduction
_ENDS = (0, 1, 2, 4, 6)


class _Stage(NamedTuple):
    expansion: int
    kernel: int
    stride: int
    width: int
    blocks: int


_STAGES = (
    _Stage(1, 3, 1, 16, 1),
    _Stage(6, 3, 2, 24, 2),
    _Stage(6, 5, 2, 40, 2),
    _Stage(6, 3, 2, 80, 3),
    _Stage(6, 5, 1, 112, 3),
    _Stage(6, 5, 2, 192, 4),
    _Stage(6, 3, 1, 320, 1),
)
#: name to factors of width and depth, and the side in pixels that the ImageNet weights were trained at
_SIZES = {
    "efficientnet-lite0": (1.0, 1.0, 224),
    "efficientnet-lite1": (1.0, 1.1, 240),
    "efficientnet-lite2": (1.1, 1.2, 260),
}
NAMES = tuple(_SIZES)


class _Conv(nn.Conv2d):
    """Convolution padded as TensorFlow's ``SAME``: unevenly where the stride does not divide the size."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, ceil(h / stride), ceil(w / stride))."""
        if self.stride[0] > 1:
            sides = []
            for size in (x.shape[-1], x.shape[-2]):
                missing = max((math.ceil(size / 2) - 1) * 2 + self.kernel_size[0] - size, 0)
                sides += [missing // 2, missing - missing // 2]
            x = F.pad(x, sides)
        return super().forward(x)


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)


class _Block(nn.Module):
    """Inverted residual; without expansion, a depthwise separable convolution. Names of parts are timm's."""

    def __init__(self, inputs: int, width: int, stage: _Stage, stride: int) -> None:
        super().__init__()
        self.same = stride == 1 and inputs == width
        inner = inputs * stage.expansion
        if stage.expansion == 1:
            self.conv_dw = _Conv(inputs, inputs, stage.kernel, stride, groups=inputs)
            self.bn1 = _norm(inputs)
            self.conv_pw = _Conv(inputs, width)
            self.bn2 = _norm(width)
            return
        self.conv_pw = _Conv(inputs, inner)
        self.bn1 = _norm(inner)
        self.conv_dw = _Conv(inner, inner, stage.kernel, stride, groups=inner)
        self.bn2 = _norm(inner)
        self.conv_pwl = _Conv(inner, width)
        self.bn3 = _norm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, width, h / stride, w / stride)."""
        if hasattr(self, "conv_pwl"):
            y = F.relu6(self.bn1(self.conv_pw(x)), inplace=True)
            y = F.relu6(self.bn2(self.conv_dw(y)), inplace=True)
            y = self.bn3(self.conv_pwl(y))
        else:
            y = F.relu6(self.bn1(self.conv_dw(x)), inplace=True)
            y = self.bn2(self.conv_pw(y))
        return x + y if self.same else y


class EfficientNetLite(nn.Module):
    """The network without its classifier, as far as the maps asked for need it.

    Args:
        name: one of :data:`NAMES`.
        stages: behind which of the seven stages of blocks a map is asked for, 0 to 6.
        last: whether the map behind the head convolution is.
    """

    def __init__(self, name: str, stages: Sequence[int], last: bool) -> None:
        super().__init__()
        widths, depth = stage_widths(name), _SIZES[name][1]
        self.stages, self.last = tuple(sorted(stages)), last
        self.conv_stem = _Conv(3, _STEM, 3, 2)
        self.bn1 = _norm(_STEM)
        self.blocks = nn.Sequential()
        inputs = _STEM
        count = len(_STAGES) if last else max(stages) + 1
        for i, (stage, width) in enumerate(zip(_STAGES[:count], widths, strict=False)):
            scaled = 0 < i < len(_STAGES) - 1  # the first and the last stage keep their depth
            blocks = math.ceil(stage.blocks * depth) if scaled else stage.blocks
            members = [
                _Block(inputs if j == 0 else width, width, stage, stage.stride if j == 0 else 1)
                for j in range(blocks)
            ]
            self.blocks.append(nn.Sequential(*members))
            inputs = width
        if last:
            self.conv_head = _Conv(inputs, _HEAD)
            self.bn2 = _norm(_HEAD)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised images to the maps asked for, (B, C, h, w) each, finest first."""
        return self.run(self.stem(image), 0, len(self.blocks))[0]

    def stem(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images to what the first stage reads."""
        return F.relu6(self.bn1(self.conv_stem(image)), inplace=True)

    def run(self, x: Tensor, start: int, stop: int) -> tuple[list[Tensor], Tensor]:
        """The maps asked for of some stages, and the map behind the last of these stages.

        Args:
            x: (B, C, h, w), what stage ``start`` reads.
            start: the first stage.
            stop: the stage behind the last one; the head convolution belongs to the last.
        """
        maps = []
        for i in range(start, stop):
            x = self.blocks[i](x)
            if i in self.stages:
                maps.append(x)
        if self.last and stop == len(self.blocks):
            x = F.relu6(self.bn2(self.conv_head(x)), inplace=True)
            maps.append(x)
        return maps, x


def stage_widths(name: str) -> list[int]:
    """Channels of the seven stages, whole multiples of 8."""
    factor = _SIZES[name][0]
    widths = []
    for stage in _STAGES:
        exact = stage.width * factor
        width = max(8, int(exact + 4) // 8 * 8)
        widths.append(width + 8 if width < 0.9 * exact else width)
    return widths


class EfficientNetLiteBackbone(Backbone):
    """Pools the maps of :class:`EfficientNetLite`.

    Args:
        net: the network.
        uri: the reference it was built from.
        dim: length of the pooled features.
        token_dim: channels of the last map.
        preprocess: size and normalisation.
        pool: how each map is pooled.
    """

    def __init__(
        self, net: nn.Module, uri: str, dim: int, token_dim: int, preprocess: Preprocess, pool: Pool
    ) -> None:
        super().__init__(net.to(memory_format=torch.channels_last), uri, dim, token_dim, preprocess)
        self.pool: Pool = pool

    def features(self, image: Tensor) -> Features:
        """Encode images (B, 3, H, W) that are already normalised."""
        if image.device.type == "cpu":  # convolutions are faster so
            image = image.contiguous(memory_format=torch.channels_last)
        levels = [map_tokens(level) for level in self.net(image)]
        return Features(torch.cat([pool_tokens(level, self.pool) for level in levels], dim=1), levels[-1])

    def first_parts(self, stages: int) -> list[nn.Module]:
        """The stem and the first ``stages`` stages of blocks.

        Raises:
            ConfigError: none of them, or none left to train.
        """
        if not 1 <= stages < len(self.net.blocks):
            raise ConfigError(
                f"'{self.uri}' has {len(self.net.blocks)} stages; keep 1 to {len(self.net.blocks) - 1} of them "
                f"frozen, not {stages}"
            )
        return [self.net.conv_stem, self.net.bn1, *self.net.blocks[:stages]]

    def first(self, image: Tensor, stages: int) -> Tensor:
        """(B, 3, H, W) images in [0, 1] to (B, P): the pooled maps of the first stages, then the last map itself.

        Raises:
            ConfigError: an image that is not square, whose map's sides :meth:`rest` could not know.
        """
        if image.shape[-1] != image.shape[-2]:
            raise ConfigError(
                f"frozen_stages={stages} needs square images, not {image.shape[-1]} x {image.shape[-2]}: give "
                "data.train_view and data.eval_view kind: whole"
            )
        image = (image - self.mean) / self.std
        if image.device.type == "cpu":
            image = image.contiguous(memory_format=torch.channels_last)
        maps, x = self.net.run(self.net.stem(image), 0, stages)
        return torch.cat([*(pool_tokens(map_tokens(m), self.pool) for m in maps), x.flatten(1)], dim=1)

    def rest(self, first: Tensor, stages: int, window: float = 1.0) -> Tensor:
        """Pooled features (B, D) of (B, P); see :meth:`Backbone.rest`."""
        widths = stage_widths(self.uri.partition("?")[0].removeprefix("rali:"))
        pooled = sum(widths[i] for i in self.net.stages if i < stages) * (2 if self.pool == "avg_std" else 1)
        early, x = first[:, :pooled], first[:, pooled:]
        side = math.isqrt(x.shape[1] // widths[stages - 1])
        x = x.unflatten(1, (widths[stages - 1], side, side))
        if window < 1:
            kept = max(1, round(window * side))
            top, left = torch.randint(side - kept + 1, (2,)).tolist()
            x = x[..., top : top + kept, left : left + kept]
            x = x.flip(-1) if torch.rand(()) < 0.5 else x
        if x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)
        maps, _ = self.net.run(x, stages, len(self.net.blocks))
        return torch.cat([early, *(pool_tokens(map_tokens(m), self.pool) for m in maps)], dim=1)

    def adapt_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Drop the classifier and the stages that are not built."""
        own = self.net.state_dict()
        known = {*EfficientNetLite(self.uri.partition("?")[0].removeprefix("rali:"), (), True).state_dict()}
        return {k: v for k, v in state.items() if k in own or not (k in known or k.startswith("classifier."))}


def _maps(uri: Uri, options: Options, widths: Sequence[int]) -> tuple[list[int], bool]:
    """Behind which stages of blocks, and whether behind the head convolution, maps are pooled."""
    text = options.own.get("stages")
    if text is None:
        levels, last = pooled_levels(uri, options, [widths[i] for i in _ENDS], _HEAD)
        return [_ENDS[i] for i in levels], last
    if "levels" in options.own:
        raise UriError(f"'{uri}': levels and stages name the same maps in two ways; give one of them")
    parts = text.split(",")
    for part in parts:
        choice(uri, "stages", part, [*map(str, range(len(_STAGES)))])
    return sorted({int(part) for part in parts}), False


def create(uri: Uri, pretrained: bool) -> Backbone:
    """Build ``uri``; weights come from ``?checkpoint=`` or ``?weights=package``, else they are random."""
    options = Options.read(uri, pools=("avg", "avg_std"), own=("levels", "stages", "weights"))
    pool: Pool = options.pool or "avg"
    widths = stage_widths(uri.id)
    stages, last = _maps(uri, options, widths)
    net = EfficientNetLite(uri.id, stages, last)
    side = _SIZES[uri.id][2]
    preprocess = options.preprocess(Preprocess((side, side), (0.5,) * 3, (0.5,) * 3))
    channels = [widths[i] for i in sorted(stages)] + [_HEAD] * last
    dim = sum(channels) * (2 if pool == "avg_std" else 1)
    backbone = EfficientNetLiteBackbone(net, str(uri), dim, channels[-1], preprocess, pool)
    packaged = choice(uri, "weights", options.own.get("weights"), ("package",)) is not None
    packaged = packaged and pretrained and options.pretrained and options.checkpoint is None
    if packaged:
        classifier = {
            "classifier.weight": torch.empty(_CLASSES, _HEAD),
            "classifier.bias": torch.empty(_CLASSES),
        }
        whole = {**EfficientNetLite(uri.id, (), True).state_dict(), **classifier}
        state = package_state(f"timm:tf_{uri.id.replace('-', '_')}", whole)
        load_strict(net, backbone.adapt_state(state), uri)
    return finish(backbone, options, from_library=packaged, pretrained=pretrained)
