"""A vision-language model of our own, of one or two million parameters, that a CPU can train.

A model of transformers' FastVLM class: the vision net of ``rali:tiny``, or a pretrained EfficientNet-Lite, behind
``timm_wrapper``, a two-layer projector, a small Qwen2, and a LLaVA processor with a tokenizer for the words of our
captioners. It is built into a folder that the Auto classes read; **import this module first**, which registers the
vision net with timm.

Architecture class: Vasu et al., "FastVLM: Efficient vision encoding for vision language models", CVPR 2025.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

import torch
from torch import Tensor, nn

from rali_zoo.backbones.base import Backbone
from rali_zoo.backbones.tiny import ConvNet
from rali_zoo.backbones.weights import load_strict
from rali_zoo.errors import CheckpointError, ConfigError, UnknownNameError
from rali_zoo.vlm.tiny.text import CHAT_TEMPLATE, IMAGE, MAX_LENGTH, NEVER_WRITTEN, build_tokenizer
from rali_zoo.vlm.tiny.vision import ARCHITECTURE, PRETRAINED, VisionEncoder, tower

if TYPE_CHECKING:
    from transformers import (
        FastVlmConfig,
        FastVlmForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

Vision = Literal["tiny", "small", "efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"]
_HEAD = 32
_SMALLEST = 32
_CALIBRATION = 48
_WEIGHTS = "model.safetensors"


def build_tiny_vlm(
    folder: str | Path,
    *,
    seed: int = 0,
    vision: Vision = "tiny",
    width: int = 192,
    layers: int = 2,
    image_size: int = 160,
    grid: int = 3,
) -> Path:
    """Write a new model with its processor to a folder.

    ``AutoProcessor`` and ``AutoModelForImageTextToText`` load it from there. Its tokens are suppressed in
    generation where they stand for images, turns or padding. The statistics of its normalisations come
    from made-up images; :func:`load_vision` replaces the vision net by a trained one.

    Args:
        folder: where to; must be empty or absent.
        seed: of the weights; the tokenizer is always the same.
        vision: the net of ``rali:tiny`` or of ``rali:small``, or an EfficientNet-Lite with the ImageNet weights of its
            package (``rali-zoo[weights]``), which stays as it is in every training.
        width: of the text model; a multiple of 32, which is the width of a head.
        layers: of the text model.
        image_size: side in pixels to which every image is squashed, at least 32; 160 as in ``rali:tiny``.
        grid: cells along each side; an image is 1 + grid² tokens, the first one the image as a whole.

    Returns:
        The folder.

    Raises:
        ConfigError: a folder that holds something, or sizes that do not fit.
        UnknownNameError: another vision net.
    """
    folder = Path(folder)
    if vision not in get_args(Vision):
        raise UnknownNameError("vision net", vision, get_args(Vision))
    _check(folder, width, layers, image_size, grid)
    tokenizer = build_tokenizer()
    processor = _processor(tokenizer, image_size, grid)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(_config(tokenizer, vision, width, layers, grid))
        # transformers has drawn the weights of the convolutions too, far too small ones
        net = tower(vision, pretrained=True).net
    encoder = vision_encoder(model)
    _copy_net(encoder, net, "a new net")
    encoder.calibrate(calibration_images(image_size), net=vision not in PRETRAINED)
    _write(folder, model, processor, tokenizer)
    return folder


def load_vision(folder: str | Path, backbone: Backbone) -> None:
    """Put the net of a trained ``rali:tiny`` or ``rali:small`` into the vision encoder of a model on disk.

    A reasoner whose vision net already knows quality learns far faster. The net is, for instance,
    ``rali_zoo.load_model("ckpt:…").module.backbone`` of a :class:`~rali_zoo.trainers.Regression`.

    Args:
        folder: what :func:`build_tiny_vlm` wrote; its weights are replaced at once or not at all.
        backbone: of the family ``rali:``, and of the size the model was built with.

    Raises:
        CheckpointError: no such model in the folder, or a net of another kind or size.
    """
    model, size = _load(Path(folder))
    encoder = vision_encoder(model)
    if encoder.is_fixed or not isinstance(backbone.net, ConvNet):
        raise CheckpointError(
            f"'{backbone.uri}' cannot become the vision encoder of {folder}: both have to be rali:tiny or rali:small"
        )
    _copy_net(encoder, backbone.net, f"'{backbone.uri}'")
    encoder.calibrate(calibration_images(size), net=False)
    _replace_weights(Path(folder), model)


def vision_encoder(model: FastVlmForConditionalGeneration) -> VisionEncoder:
    """The vision net inside a loaded model."""
    return cast(VisionEncoder, model.model.vision_tower.timm_model)


def calibration_images(size: int) -> Tensor:
    """Made-up images for setting statistics, (48, 3, size, size) in [0, 1]; always the same."""
    import numpy as np

    from rali_zoo.data.synthetic.distortions import DISTORTIONS, distort
    from rali_zoo.data.synthetic.sources import MAX_SIZE, contents, window

    rng = np.random.default_rng(0)
    textures = contents("train")[1]
    kinds = list(DISTORTIONS)
    made = []
    for i in range(_CALIBRATION):
        pristine = window(textures[i * len(textures) // _CALIBRATION], min(size, MAX_SIZE), rng)
        damaged = distort(pristine, kinds[i % len(kinds)], 1 + i % 5, rng)
        made.append(torch.from_numpy(damaged).permute(2, 0, 1))
    images = torch.stack(made)
    if size > MAX_SIZE:
        images = torch.nn.functional.interpolate(images, (size, size), mode="bilinear")
    return images


def _check(folder: Path, width: int, layers: int, image_size: int, grid: int) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} holds something already; give a new folder, or remove it first")
    if width < _HEAD or width % _HEAD:
        raise ConfigError(f"width={width}: give a multiple of {_HEAD}, which is the width of a head")
    if layers < 1:
        raise ConfigError(f"layers={layers}: the text model needs at least 1")
    if image_size < _SMALLEST:
        raise ConfigError(f"image_size={image_size}: give at least {_SMALLEST} pixels")
    # the processor counts the tokens of an image as (size // cell) squared
    if grid < 1 or image_size // (image_size // grid or 1) != grid:
        raise ConfigError(f"grid={grid} does not divide {image_size} pixels; give a smaller one, such as 3")


def _config(
    tokenizer: PreTrainedTokenizerFast, vision: str, width: int, layers: int, grid: int
) -> FastVlmConfig:
    from transformers import FastVlmConfig, Qwen2Config

    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // _HEAD,
        num_key_value_heads=width // _HEAD,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=width**-0.5 / 2,  # 0.02 is meant for widths in the thousands
        tie_word_embeddings=True,
    )
    return FastVlmConfig(
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": ARCHITECTURE,
            "model_args": {"backbone": vision, "grid": grid},
            "hidden_size": VisionEncoder(vision, grid).num_features,
            "do_pooling": False,
        },
        text_config=text,
        image_token_index=tokenizer.get_vocab()[IMAGE],
        image_seq_length=1 + grid**2,
        tie_word_embeddings=True,
    )


def _model(config: FastVlmConfig) -> FastVlmForConditionalGeneration:
    from transformers import FastVlmForConditionalGeneration

    return FastVlmForConditionalGeneration(config).eval()


def _processor(tokenizer: PreTrainedTokenizerFast, image_size: int, grid: int) -> LlavaProcessor:
    from transformers import LlavaImageProcessor, LlavaProcessor

    square = {"height": image_size, "width": image_size}
    images = LlavaImageProcessor(
        size=square, crop_size=square, do_center_crop=False, do_normalize=False, do_rescale=True
    )
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=image_size // grid,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
    )


def _copy_net(encoder: VisionEncoder, net: nn.Module, source: str) -> None:
    # a backbone does not keep its fixed filters with its weights, the encoder does
    front = net.front.named_buffers() if isinstance(net, ConvNet) else ()
    fixed = {f"front.{name}": filters for name, filters in front}
    load_strict(encoder.net, {**net.state_dict(), **fixed}, source)


def _write(
    folder: Path,
    model: FastVlmForConditionalGeneration,
    processor: LlavaProcessor,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=tokenizer.convert_tokens_to_ids(list(NEVER_WRITTEN)),
    )
    with _beside(folder) as temporary:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)


def _replace_weights(folder: Path, model: FastVlmForConditionalGeneration) -> None:
    with _beside(folder) as temporary:
        model.save_pretrained(temporary)
        (temporary / _WEIGHTS).replace(folder / _WEIGHTS)


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        inside = Path(temporary) / folder.name  # made here, and so with the permissions of the user's folders
        inside.mkdir()
        yield inside


def _load(folder: Path) -> tuple[FastVlmForConditionalGeneration, int]:
    from transformers import FastVlmForConditionalGeneration, LlavaProcessor

    try:
        model = FastVlmForConditionalGeneration.from_pretrained(folder, trust_remote_code=False)
        size = LlavaProcessor.from_pretrained(folder, trust_remote_code=False).image_processor.size["height"]
    except Exception as error:  # a broken file can make the readers raise anything
        raise CheckpointError(f"{folder} holds no model of build_tiny_vlm: {error}") from error
    return model.eval(), size
