"""Image encoders of open_clip: ``open_clip:ARCH/TAG``, ``open_clip:hf-hub:…``, ``open_clip:local-dir:DIR``.

``pooled`` is the embedding that CLIP compares with texts (after the projection, not normalised to length 1)
unless ``pool=`` says otherwise. open_clip builds both encoders; the text encoder is dropped at once.

Own option: ``quick_gelu=true`` or ``false``, for weights files of architectures that were trained with both.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import open_clip
from open_clip.model import resize_pos_embed
from open_clip.transform import PreprocessCfg
from torch import Tensor, nn

from rali_zoo.backbones.base import LOCAL, Backbone, Features, config_of, finish, map_tokens, pool_tokens
from rali_zoo.backbones.options import Options, Pool, flag
from rali_zoo.backbones.weights import from_library, or_random
from rali_zoo.errors import UnknownNameError, UriError, near_miss
from rali_zoo.types import Interpolation, Preprocess, Resize
from rali_zoo.uri import Uri

ADVICE = (
    "'open_clip:local-dir:FOLDER' (open_clip_config.json and a weights file) or "
    "'open_clip:ARCH/TAG?checkpoint=FILE'"
)
_HUB = "hf-hub:"
_NO_TEXT = {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
_RESIZE: dict[str, Resize] = {"shortest": "center_crop", "squash": "squash"}


class Source(NamedTuple):
    """Where a CLIP model comes from, in open_clip's words."""

    model: str  #: an architecture, or ``hf-hub:`` or ``local-dir:`` and what follows
    tag: str | None  #: name of pretrained weights; only with an architecture


class OpenClipBackbone(Backbone):
    """The vision encoder of a CLIP model, any of open_clip's kinds."""

    def __init__(
        self, net: nn.Module, uri: str, embed_dim: int, preprocess: Preprocess, pool: Pool | None
    ) -> None:
        inner: Any = net  # the kinds have no base that names these
        trunk = getattr(net, "trunk", None)  # a timm network inside
        if trunk is not None:
            token_dim, fixed = (
                trunk.feature_info[-1]["num_chs"],
                bool(trunk.pretrained_cfg.get("fixed_input_size")),
            )
        elif hasattr(net, "attnpool"):  # CLIP's own ResNet
            token_dim, fixed = inner.attnpool.k_proj.in_features, True
        else:
            token_dim, fixed = inner.conv1.out_channels, True
        dim = {"avg": token_dim, "avg_std": 2 * token_dim}.get(pool or "", embed_dim)
        super().__init__(net, uri, dim, token_dim, preprocess, fixed)
        self.pool = pool
        # an attentional pooler's norm belongs to its own, other width
        self._normalise = getattr(net, "attn_pool", None) is None

    def features(self, image: Tensor) -> Features:
        """Encode images (B, 3, H, W) that are already normalised."""
        found = self.net.forward_intermediates(image, indices=1, normalize_intermediates=self._normalise)
        tokens = map_tokens(found["image_intermediates"][0])
        pooled = found["image_features"] if self.pool is None else pool_tokens(tokens, self.pool)
        return Features(pooled, tokens)

    def adapt_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take the vision encoder out of a whole CLIP model and resample its position embeddings."""
        if any(key.startswith("visual.") for key in state):
            visual = {key: value for key, value in state.items() if key.startswith("visual.")}
        else:
            visual = {f"visual.{key}": value for key, value in state.items()}
        resize_pos_embed(visual, SimpleNamespace(visual=self.net))
        return {key.removeprefix("visual."): value for key, value in visual.items()}


def create(uri: Uri, pretrained: bool) -> Backbone:
    """Build ``uri``; see :func:`rali_zoo.backbones.create_backbone`."""
    options = Options.read(uri, pools=("avg", "avg_std"), own=("quick_gelu",))
    wanted = pretrained and options.pretrained and options.checkpoint is None
    source = find(uri, needs_tag=wanted)
    if options.checkpoint is not None and source.tag is None:
        _check_settings(uri, source.model)
    quick_gelu = "quick_gelu" in options.own and flag(uri, "quick_gelu", options.own["quick_gelu"])
    with config_of(uri, "open_clip_config.json", _vision_only) as (place, config):
        if config is not None:
            source = source._replace(model=place)
        model = build(uri, source, wanted, options.size, quick_gelu)
        width = open_clip.get_model_config(source.model)["embed_dim"]
        preprocess = _preprocess(uri, source, model.visual, options)
    backbone = OpenClipBackbone(cast("nn.Module", model.visual), str(uri), width, preprocess, options.pool)
    backbone.config = config
    return finish(backbone, options, from_library=wanted, pretrained=pretrained)


def _vision_only(config: dict[str, Any]) -> dict[str, Any]:
    """A config of open_clip with the smallest text encoder; raises for a vision encoder from elsewhere."""
    model = {k: v for k, v in config["model_cfg"].items() if k != "multimodal_cfg"}
    name = str(model["vision_cfg"].get("timm_model_name", ""))
    if ":" in name:
        raise UriError(f"{name!r} is not read because a file says so")
    return {**config, "model_cfg": {**model, "text_cfg": _NO_TEXT}}


def names() -> list[str]:
    """Ids with pretrained weights, ``ARCH/TAG``."""
    return [f"{arch}/{tag}" for arch, tag in open_clip.list_pretrained()]


def find(uri: Uri, needs_tag: bool) -> Source:
    """Read the id of ``uri`` and check it against open_clip's lists.

    Raises:
        UnknownNameError: no such architecture or tag.
        UriError: no tag where pretrained weights are wanted.
    """
    if uri.id.startswith(LOCAL):
        return Source(uri.id, None)
    if uri.id.startswith(_HUB):
        return Source(_at_revision(uri), None)
    arch, _, tag = uri.id.partition("/")
    if arch not in open_clip.list_models():
        raise UnknownNameError("open_clip architecture", arch, open_clip.list_models())
    tags = open_clip.list_pretrained_tags_by_model(arch)
    if tag and tag not in tags:
        raise UnknownNameError(f"open_clip weights of {arch}", tag, tags)
    if needs_tag and not tag:
        raise UriError(
            f"'{uri}' names no weights. {near_miss('', tags)} Write 'open_clip:{arch}/TAG', "
            "add checkpoint=FILE, or pretrained=false for random weights"
        )
    return Source(arch, tag or None)


def _check_settings(uri: Uri, arch: str) -> None:
    """Refuse a weights file that may need other settings than its architecture's own.

    The same tensors fit with either GELU and any normalisation; only one of each gives the right features.

    Raises:
        UriError: published weights of the architecture differ in a setting that the reference does not give.
    """
    if arch.startswith((_HUB, LOCAL)):  # a config lies beside
        return
    own = {**asdict(PreprocessCfg()), "quick_gelu": bool(open_clip.get_model_config(arch).get("quick_gelu"))}
    tags = {
        tag: {**own, **{k: v for k, v in open_clip.get_pretrained_cfg(arch, tag).items() if k in own}}
        for tag in open_clip.list_pretrained_tags_by_model(arch)
    }
    spelled = {name: name for name in ("quick_gelu", "mean", "std", "interpolation")} | {
        "resize_mode": "resize"
    }
    open_ = [
        option
        for key, option in spelled.items()
        if option not in uri.options and any(settings[key] != own[key] for settings in tags.values())
    ]
    if open_:
        raise UriError(
            f"'{uri}': weights of {arch} are published with several settings of {', '.join(open_)}, and the "
            f"file does not say which are its own. Name the weights it comes from, "
            f"'open_clip:{arch}/TAG?checkpoint=FILE' (TAG: {', '.join(sorted(tags))}), or give "
            f"{' and '.join(f'{name}=' for name in open_)}"
        )


@contextmanager
def loading(uri: Uri, library: str = "open_clip", fetches: bool = True) -> Iterator[None]:
    """Around every call that makes open_clip load: our errors, no code of a repository, no untrue warning.

    Args:
        uri: what the user asked for.
        library: who is asked to load, for messages.
        fetches: whether it may ask the hub of Hugging Face for files.
    """
    from transformers import (
        dynamic_module_utils,
    )  # parts named by a model's config are loaded by transformers

    def keep(record: logging.LogRecord) -> bool:  # weights come later, or were declined
        message = record.getMessage()
        return "initialized randomly" not in message and "no CLIP weights found" not in message

    root = logging.getLogger()  # where open_clip logs
    patience = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    root.addFilter(keep)
    # open_clip passes no trust_remote_code on; without time for an answer transformers refuses
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    try:
        with from_library(uri, library, or_random(uri, ADVICE), fetches):
            yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = patience
        root.removeFilter(keep)


def build(
    uri: Uri,
    source: Source,
    weights: bool,
    size: tuple[int, int] | None = None,
    quick_gelu: bool = False,
) -> nn.Module:
    """Both encoders of a CLIP model, with the source's weights or random ones.

    Args:
        uri: the reference, for messages.
        source: architecture and where its weights are.
        weights: whether to load them.
        size: (height, width) of the input in pixels; ``None`` = as the architecture says.
        quick_gelu: whether the weights were trained with OpenAI's approximation of GELU, where neither tag
            nor architecture says so.
    """
    tagged = open_clip.get_pretrained_cfg(source.model, source.tag) if source.tag else {}
    with loading(uri, fetches=weights or source.model.startswith(_HUB)):
        return open_clip.create_model(
            source.model,
            pretrained=source.tag if weights else None,
            load_weights=weights,
            require_pretrained=weights,
            pretrained_text=False,
            force_image_size=size,
            # some weights (OpenAI's) were trained with another GELU than their architecture's file says
            force_quick_gelu=quick_gelu or bool(tagged.get("quick_gelu")),
        )


def _at_revision(uri: Uri) -> str:
    """What open_clip takes for ``hf-hub:org/repo[@rev]``: it knows no revisions, so those become a folder."""
    repo, at, revision = uri.id.removeprefix(_HUB).partition("@")
    if not at:
        return uri.id
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with from_library(uri, "huggingface_hub", or_random(uri, ADVICE)):
        config = hf_hub_download(repo, "open_clip_config.json", revision=revision)
        try:
            hf_hub_download(repo, "open_clip_model.safetensors", revision=revision)
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            hf_hub_download(repo, "open_clip_pytorch_model.bin", revision=revision)
    return f"{LOCAL}{Path(config).parent}"


def _preprocess(uri: Uri, source: Source, visual: Any, options: Options) -> Preprocess:
    config = open_clip.get_model_preprocess_cfg(SimpleNamespace(visual=visual))
    if source.tag:  # create_model reads the tag's own values only when it loads the tag's weights
        config = {**config, **open_clip.get_pretrained_cfg(source.model, source.tag)}
    mode = config.get("resize_mode", "shortest")
    if mode not in _RESIZE and options.resize is None:
        raise UriError(
            f"'{uri}': open_clip resizes for this model with {mode!r}, which is not offered; "
            "add resize=squash or resize=center_crop"
        )
    size = visual.image_size
    library = Preprocess(
        size=(size, size) if isinstance(size, int) else (size[0], size[1]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        resize=_RESIZE.get(mode, "squash"),
        interpolation=cast("Interpolation", config.get("interpolation", "bicubic")),
        crop_rule="round",
    )
    return options.preprocess(library)
