"""Image encoders of transformers: ``hf:org/repo[@rev]``, ``hf:local-dir:FOLDER``.

CLIP gives its projected embedding, SigLIP its attention-pooled one, everything else the model's own pooler
when it is a part of the weights and else its class token (or, without one, the mean of its tokens).
Of a model with a text encoder only the vision encoder is built. Normalisation and resizing are read from the
image processor's config. Processors that resize larger than they crop (256 then 224) are read as ``size`` =
the crop, since quality is judged from the whole image.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from rali_zoo.backbones.base import LOCAL, Backbone, Features, finish, map_tokens, pool_tokens, recipe_in_use
from rali_zoo.backbones.options import Options, Pool
from rali_zoo.backbones.weights import from_library, or_random
from rali_zoo.errors import CheckpointError, ConfigError, UriError
from rali_zoo.types import Interpolation, Preprocess
from rali_zoo.uri import Uri

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

ADVICE = "'hf:local-dir:FOLDER' (config.json, preprocessor_config.json and weights)"
_PREFIX_PARAMETERS = ("cls_token", "class_embedding", "distillation_token", "register_tokens", "reg_token")
_FILTERS: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}


class HFBackbone(Backbone):
    """A vision encoder of transformers."""

    def __init__(self, net: PreTrainedModel, uri: str, preprocess: Preprocess, pool: Pool | None) -> None:
        config = net.config
        hidden = getattr(config, "hidden_size", None) or (getattr(config, "hidden_sizes", None) or [0])[-1]
        if not hidden:
            raise ConfigError(f"'{uri}': the config of this {config.model_type!r} model has no hidden_size")
        embedding = config.projection_dim if hasattr(net, "visual_projection") else hidden
        dim = {"avg": hidden, "avg_std": 2 * hidden, "token": hidden}.get(pool or "", embedding)
        side = getattr(config, "image_size", None)
        self_resizing = "interpolate_pos_encoding" in inspect.signature(net.forward).parameters
        native = (side, side) if isinstance(side, int) else tuple(side or ())
        super().__init__(net, uri, dim, hidden, preprocess)
        self.pool = pool
        self.prefix = _count_prefix(net)
        self._native = native if self_resizing else ()

    def features(self, image: Tensor) -> Features:
        """Encode images (B, 3, H, W) that are already normalised."""
        resampled = bool(self._native) and tuple(image.shape[-2:]) != self._native
        found = self.net(image, **({"interpolate_pos_encoding": True} if resampled else {}))
        last = found.last_hidden_state
        tokens = map_tokens(last) if last.ndim == 4 else last[:, self.prefix :]
        if self.pool == "token":
            return Features(last[:, 0], tokens)
        if self.pool is not None:
            return Features(pool_tokens(tokens, self.pool), tokens)
        pooled = found.image_embeds if "image_embeds" in found else found.get("pooler_output")
        if pooled is None:
            pooled = last[:, 0] if self.prefix else pool_tokens(tokens, "avg")
        return Features(pooled.flatten(1), tokens)

    def adapt_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Drop the text encoder of a whole CLIP or SigLIP model, which names its parts."""
        other = ("text_model.", "text_projection.", "logit_scale", "logit_bias")
        kept = {key: value for key, value in state.items() if not key.startswith(other)}
        if not hasattr(self.net, "vision_model") and all(key.startswith("vision_model.") for key in kept):
            kept = {key.removeprefix("vision_model."): value for key, value in kept.items()}
        return kept

    def recipe(self) -> dict[str, object]:
        """Config and preprocessing as plain values."""
        config = json.loads(self.net.config.to_json_string(use_diff=False))
        for key in ("_name_or_path", "transformers_version"):  # of the machine that wrote it
            config.pop(key, None)
        return {"config": config, "preprocess": asdict(self.preprocess)}


class NaflexBackbone(HFBackbone):
    """SigLIP 2 NaFlex, which takes patches instead of images."""

    def features(self, image: Tensor) -> Features:
        """Encode images (B, 3, H, W) that are already normalised; H and W are multiples of the patch."""
        patch = self.net.config.patch_size
        count, _, height, width = image.shape
        if height % patch or width % patch:
            raise ConfigError(f"'{self.uri}' takes heights and widths that are multiples of {patch}")
        rows, columns = height // patch, width // patch
        cut = image.reshape(count, 3, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
        shapes = torch.tensor([[rows, columns]] * count, device=image.device)
        mask = torch.ones(count, rows * columns, dtype=torch.int32, device=image.device)
        found = self.net(
            cut.reshape(count, rows * columns, -1), pixel_attention_mask=mask, spatial_shapes=shapes
        )
        tokens = found.last_hidden_state
        return Features(found.pooler_output if self.pool is None else pool_tokens(tokens, self.pool), tokens)


def create(uri: Uri, pretrained: bool) -> Backbone:
    """Build ``uri``; see :func:`rali_zoo.backbones.create_backbone`."""
    options = Options.read(uri, pools=("avg", "avg_std", "token"))
    recipe = recipe_in_use()
    if recipe is not None:
        return _rebuild(uri, recipe, options)
    wanted = pretrained and options.pretrained and options.checkpoint is None
    place, revision = locate(uri)
    with (
        from_library(uri, "transformers", or_random(uri, ADVICE), place == uri.id.partition("@")[0]),
        quiet(),
    ):
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
        tower, config, extra = _tower(uri, config)
        if wanted:
            net, report = tower.from_pretrained(
                place,
                config=config,
                revision=revision,
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
                **extra,
            )
            check_complete(uri, report["missing_keys"])
        else:
            net = tower(config, **extra)
    backbone = _wrap(uri, net, _preprocess(uri, place, revision, config, options), options)
    return finish(backbone, options, from_library=wanted, pretrained=pretrained)


def _rebuild(uri: Uri, recipe: dict[str, Any], options: Options) -> HFBackbone:
    from transformers import AutoConfig

    with from_library(uri, "transformers", "a scorer file whose header is whole", fetches=False):
        settings = dict(recipe["config"])
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        rules: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in recipe["preprocess"].items()
        }
        tower, config, extra = _tower(uri, config)
        return _wrap(uri, tower(config, **extra), Preprocess(**rules), options)


def _wrap(uri: Uri, net: PreTrainedModel, preprocess: Preprocess, options: Options) -> HFBackbone:
    kind = NaflexBackbone if net.config.model_type == "siglip2_vision_model" else HFBackbone
    backbone = kind(net, str(uri), preprocess, options.pool)
    if options.pool == "token" and not backbone.prefix:
        raise UriError(f"'{uri}': this network has no class token; pool=avg or pool=avg_std")
    return backbone


def names() -> list[str]:
    """None: the hub is not listed."""
    return []


def locate(uri: Uri) -> tuple[str, str]:
    """Repository or folder, and revision, of ``hf:org/repo[@rev]`` or ``hf:local-dir:FOLDER``."""
    if uri.id.startswith(LOCAL):
        folder = Path(uri.id.removeprefix(LOCAL)).expanduser()
        if not folder.is_dir():
            raise UriError(f"'{uri}': there is no folder {str(folder)!r}")
        return str(folder), "main"
    repo, _, revision = uri.id.partition("@")
    if repo.count("/") > 1 or repo.startswith((".", "/", "~")):
        raise UriError(f"'{uri}' looks like a folder: write '{uri.scheme}:local-dir:{uri.id}'")
    return repo, revision or "main"


def check_complete(uri: Uri, missing: object) -> None:
    """Refuse weights that leave a part of the network random; transformers only warns of it."""
    names = sorted(cast("list[str]", missing))
    if names:
        raise CheckpointError(
            f"'{uri}': its weights lack {len(names)} of the network's tensors, which would be random: "
            f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}. Save the whole model with "
            "save_pretrained (of CLIP a CLIPModel or CLIPVisionModelWithProjection; CLIPVisionModel has no projection)"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' report of the other tower's weights, which are left out on purpose."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _tower(uri: Uri, config: PretrainedConfig) -> tuple[Any, PretrainedConfig, dict[str, bool]]:
    """Class of the vision tower, its config, and arguments of its constructor."""
    import transformers

    towers = {
        "clip": transformers.CLIPVisionModelWithProjection,
        "siglip": transformers.SiglipVisionModel,
        "siglip2": transformers.Siglip2VisionModel,
    }
    family = config.model_type.removesuffix("_vision_model")
    if "CLIPVisionModel" in (config.architectures or ()):  # saved without the projection: its own pooling
        return transformers.CLIPVisionModel, config, {}
    if family in towers:
        return towers[family], one_tower(config, "vision_config"), {}
    if getattr(config, "vision_config", None) is not None:
        raise UriError(
            f"'{uri}' is a {config.model_type!r} model with several towers; "
            f"of those, {', '.join(towers)} are known"
        )
    tower, extra = plain_encoder(uri, config, "pixel_values", "images")
    return tower, config, extra


def one_tower(config: PretrainedConfig, part: str) -> PretrainedConfig:
    """Config of one tower; a two-tower config keeps the length of the shared embedding to itself."""
    tower = getattr(config, part, config)
    if tower is not config and hasattr(config, "projection_dim"):
        tower.projection_dim = config.projection_dim
    return tower


def plain_encoder(
    uri: Uri, config: PretrainedConfig, takes: str, what: str
) -> tuple[type[PreTrainedModel], dict[str, bool]]:
    """Class of the encoder that a one-tower config describes, and arguments of its constructor.

    Args:
        uri: the reference, for messages.
        config: of the model.
        takes: name of the model input it must take.
        what: that input in words.
    """
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    if type(config) not in MODEL_MAPPING:
        raise UriError(f"'{uri}': transformers has no plain encoder for a {config.model_type!r} model")
    tower: Any = MODEL_MAPPING[type(config)]
    if tower.main_input_name != takes:
        raise UriError(f"'{uri}' is a {config.model_type!r} model, which takes no {what}")
    # many checkpoints were saved without the pooler, which transformers would then make up at random
    optional = "add_pooling_layer" in inspect.signature(tower.__init__).parameters
    return tower, {"add_pooling_layer": False} if optional else {}


def _count_prefix(net: nn.Module) -> int:
    """Number of tokens before the patches: class, distillation and register tokens."""
    count = 0
    for name, parameter in net.named_parameters():
        if name.rpartition(".")[2] in _PREFIX_PARAMETERS:
            count += parameter.shape[-2] if parameter.ndim == 3 else 1
    return count


def _preprocess(
    uri: Uri, place: str, revision: str, config: PretrainedConfig, options: Options
) -> Preprocess:
    if None not in (options.size, options.mean, options.std):
        return options.preprocess(Preprocess(size=(1, 1)))
    from transformers import AutoImageProcessor

    advice = "a folder with preprocessor_config.json, or all of size=, mean= and std= in the reference"
    with from_library(uri, "transformers' image processor", advice, not Path(place).is_dir()), quiet():
        processor = AutoImageProcessor.from_pretrained(place, revision=revision, trust_remote_code=False)
    side = getattr(config, "image_size", None)
    crops = bool(getattr(processor, "do_center_crop", False)) and getattr(processor, "crop_size", None)
    # a processor of native resolutions (SigLIP 2 NaFlex) has no size of its own
    size = options.size or _height_width(
        processor.crop_size if crops else getattr(processor, "size", None), side
    )
    if size is None:
        raise UriError(f"'{uri}': the image processor names no size; add size=PIXELS to the reference")
    normal = getattr(processor, "do_normalize", True)
    code = int(getattr(processor, "resample", 3))
    if code not in _FILTERS and options.interpolation is None:
        raise UriError(f"'{uri}' resizes with filter {code} of Pillow; add interpolation=bicubic or bilinear")
    library = Preprocess(
        size=size,
        mean=tuple(processor.image_mean) if normal else (0.0, 0.0, 0.0),
        std=tuple(processor.image_std) if normal else (1.0, 1.0, 1.0),
        resize="center_crop" if crops else "squash",
        interpolation=_FILTERS.get(code, "bicubic"),
        crop_rule="floor",
    )
    return options.preprocess(library)


def _height_width(size: object, side: object) -> tuple[int, int] | None:
    """(height, width) from a processor's size in any of its spellings, else the config's ``image_size``."""
    given = dict(size) if size is not None else {}  # type: ignore[call-overload]
    given = {key: value for key, value in given.items() if value is not None}
    if {"height", "width"} <= given.keys():
        return int(given["height"]), int(given["width"])
    if isinstance(side, int):
        return side, side
    if "shortest_edge" in given:
        return int(given["shortest_edge"]), int(given["shortest_edge"])
    return None
