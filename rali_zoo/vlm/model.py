"""Vision-language models of transformers by reference, and images with a question as their input.

``hf:org/repo[@rev]``, ``hf:local-dir:FOLDER``, and ``rali:vlm-tiny``, a new model of ours that is built on
first use. Whatever ``AutoModelForImageTextToText`` and ``AutoProcessor`` load will do.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from rali_zoo.backbones.hf import check_complete, locate
from rali_zoo.backbones.weights import from_library
from rali_zoo.errors import ConfigError, UnknownNameError
from rali_zoo.paths import cache_dir
from rali_zoo.types import Preprocess
from rali_zoo.uri import Uri, parse_uri
from rali_zoo.vlm.prompts import Prompt, messages, vocabulary, write_completion

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    from rali_zoo.backbones.base import Backbone
    from rali_zoo.vlm.tiny.vision import VisionEncoder

Precision = Literal["float32", "bfloat16"]
#: (B, 3, H, W) in [0, 1], or B tensors (3, H, W) of different sizes
Images = Tensor | Sequence[Tensor]

ADVICE = (
    "'hf:local-dir:FOLDER' (config.json, weights, and the processor's files); 'rali:vlm-tiny' needs no files"
)
_TINY = "vlm-tiny"
_TINY_OPTIONS = {"seed": int, "vision": str, "width": int, "layers": int, "image_size": int, "grid": int}
_TINY_SOURCES = (
    "vlm/tiny/*.py", "vlm/p*.py", "data/phrases.py", "data/captioners.py", "backbones/tiny.py",
    "backbones/efficientnet_lite.py",
)  # fmt: skip
#: Where the families keep their vision encoder, below the model without its head.
_ENCODERS = ("visual", "vision_tower", "vision_model")
#: Where they keep what leads from it to the language model; Qwen's is a part of the encoder.
_PROJECTORS = ("multi_modal_projector", "connector")
#: Settings that name a token which stands for images or frames them.
_IMAGE_TOKENS = (
    "image_token_id", "image_token_index", "video_token_id", "video_token_index", "vision_start_token_id",
    "vision_end_token_id", "boi_token_id", "eoi_token_id",
)  # fmt: skip
# Only for views that cut a size and name none, and models that take any size.
_ANY_SIZE = (448, 448)


@dataclass(frozen=True)
class Prompts:
    """N questions about an image each, as tensors, padded on the left.

    Attributes:
        inputs: what the model's ``forward`` takes: ``input_ids`` and ``attention_mask`` (N, P), the image's
            tensors, and where the family has them ``mm_token_type_ids`` (N, P).
        texts: N, before the processor has made room for the image's tokens.
        images: N of (3, H, W) uint8, as the processor got them.
    """

    inputs: dict[str, Tensor]
    texts: tuple[str, ...]
    images: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])

    @property
    def length(self) -> int:
        """P, tokens of the longest prompt."""
        return self.inputs["input_ids"].shape[1]

    def take(self, rows: Sequence[int]) -> Prompts:
        """The prompts at some positions; a position may come several times.

        Raises:
            ConfigError: a family whose tensors have neither a row an image nor Qwen's layout.
        """
        count, grid = len(self), self.inputs.get("image_grid_thw")
        taken = {}
        for name, value in self.inputs.items():
            if grid is not None and name == "pixel_values":
                # all images' patches stand in one long row, as many each as its grid has cells
                pieces = value.split(grid.prod(dim=1).tolist())
                taken[name] = torch.cat([pieces[row] for row in rows])
            elif len(value) == count:
                taken[name] = value[torch.tensor(rows, device=value.device)]
            else:
                raise ConfigError(
                    f"the processor gives {name!r} of shape {tuple(value.shape)} for {count} images, and "
                    "how to repeat it is not known; use a family with one row an image, or Qwen's"
                )
        return Prompts(taken, tuple(self.texts[row] for row in rows), tuple(self.images[row] for row in rows))

    def repeat(self, n: int) -> Prompts:
        """Each prompt ``n`` times, side by side."""
        return self.take([row for row in range(len(self)) for _ in range(n)])

    def token_ids(self) -> list[list[int]]:
        """The tokens of each prompt, without padding."""
        pairs = zip(self.inputs["input_ids"], self.inputs["attention_mask"].bool(), strict=True)
        return [ids[mask].tolist() for ids, mask in pairs]

    def as_images(self) -> list[Image]:
        """The images for libraries that process them on their own."""
        from PIL import Image

        return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in self.images]

    def followed_by(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Inputs of the prompts with (N, C) completions behind them; one padding drives every mask."""
        joined = {
            "input_ids": torch.cat([self.inputs["input_ids"], ids], dim=1),
            "attention_mask": torch.cat([self.inputs["attention_mask"], mask], dim=1),
        }
        for name in ("mm_token_type_ids", "token_type_ids"):  # a completion is text, which is 0
            if name in self.inputs:
                joined[name] = torch.cat([self.inputs[name], torch.zeros_like(ids)], dim=1)
        return {**self.inputs, **joined}


@dataclass(frozen=True)
class VLM:
    """A vision-language model with all that turns texts and images into its input.

    Attributes:
        model: of the class that ``AutoModelForImageTextToText`` chose.
        processor: of the class that ``AutoProcessor`` chose.
        uri: the reference.
        end: ids of the tokens that end a completion; the first one is written in training.
        suppressed: ids that a completion never holds: what stands for images, turns and padding, and ids
            beyond the tokenizer. A policy that samples one crashes in its next forward pass.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    uri: str
    end: tuple[int, ...]
    suppressed: tuple[int, ...]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The processor's tokenizer."""
        return cast("PreTrainedTokenizerBase", self.processor.tokenizer)

    @property
    def pad(self) -> int:
        """Id of the padding."""
        return cast(int, self.tokenizer.pad_token_id)

    @cached_property
    def fingerprint(self) -> str:
        """12 hexadecimal digits of the vocabulary and the chat template: what weights are bound to."""
        words = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        text = json.dumps([words, self.processor.chat_template])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @cached_property
    def preprocess(self) -> Preprocess:
        """Images keep their pixels: resizing and normalising is the processor's."""
        images = self.processor.image_processor
        for size in (getattr(images, "crop_size", None), getattr(images, "size", None)):
            if size and size.get("height") and size.get("width"):
                return Preprocess((size["height"], size["width"]), resize="none")
        return Preprocess(_ANY_SIZE, resize="none")

    @property
    def fixed_encoder(self) -> VisionEncoder | None:
        """The vision encoder, where it is a pretrained one of ``rali:vlm-tiny``: what it makes of an image stays."""
        for part in self.model.modules():
            if getattr(part, "is_fixed", False):
                return cast("VisionEncoder", part)
        return None

    @torch.inference_mode()
    def encode_fixed(self, image: Images) -> Tensor:
        """(B, 3, H, W) in [0, 1], or B tensors (3, H, W), to features (B, T * D) that :meth:`ask` takes.

        Raises:
            ConfigError: the vision encoder is one that learns.
        """
        encoder = self.fixed_encoder
        if encoder is None:
            raise ConfigError(
                f"the vision encoder of '{self.uri}' learns: what it makes of an image cannot be kept"
            )
        return self._looked_at(encoder, _whole_numbers(image))

    def _looked_at(self, encoder: VisionEncoder, images: tuple[Tensor, ...]) -> Tensor:
        pixels: Any = self.processor.image_processor(images=list(images), return_tensors="pt")
        return encoder.pool(pixels["pixel_values"].to(self.model.device)).flatten(1)

    def ask(self, image: Images, asked: Sequence[Prompt], features: Tensor | None = None) -> Prompts:
        """Ask a question about each image, the image first.

        Args:
            image: (B, 3, H, W) in [0, 1], or B tensors (3, H, W) of different sizes.
            asked: B questions.
            features: (B, T * D) of :meth:`encode_fixed`, in place of the images, which are then not looked at.

        Returns:
            B prompts on the model's device; where the vision encoder is fixed they hold what it makes of the images, so
            that it looks once, however often the language model reads a prompt.
        """
        write: Any = self.processor.apply_chat_template
        texts = {q: write(messages(q), add_generation_prompt=True, tokenize=False) for q in set(asked)}
        if features is not None:
            return self._ask_about(features, [texts[q] for q in asked])
        images = _whole_numbers(image)
        each = tuple(texts[q] for q in asked)
        if self.fixed_encoder is not None:
            with torch.no_grad():
                looked = self._looked_at(self.fixed_encoder, images)
            return replace(self._ask_about(looked, each), images=images)
        inputs = self.processor(text=list(each), images=list(images), padding=True, return_tensors="pt")
        tensors = {k: v.to(self.model.device) for k, v in inputs.items() if isinstance(v, Tensor)}
        return Prompts(tensors, each, images)

    def _ask_about(self, features: Tensor, texts: Sequence[str]) -> Prompts:
        kinds = list(dict.fromkeys(texts))
        blank = torch.zeros(3, *self.preprocess.size, dtype=torch.uint8)  # as many tokens as any image
        inputs = self.processor(text=kinds, images=[blank] * len(kinds), padding=True, return_tensors="pt")
        rows = torch.tensor([kinds.index(text) for text in texts])
        device = self.model.device
        tensors = {
            k: v[rows].to(device) for k, v in inputs.items() if isinstance(v, Tensor) and k != "pixel_values"
        }
        count = cast("VisionEncoder", self.fixed_encoder).count
        tensors["pixel_values"] = features.unflatten(1, (count, -1)).to(device)
        return Prompts(tensors, tuple(texts), (blank,) * len(texts))

    def write(self, completions: Sequence[str], ended: bool = True) -> tuple[Tensor, Tensor]:
        """Texts as tokens, (N, C) ids and mask, padded on the right.

        Args:
            completions: N texts.
            ended: whether the first end token follows each.
        """
        end = self.end[:1] if ended else ()
        rows = [[*self.tokenizer(text, add_special_tokens=False)["input_ids"], *end] for text in completions]
        ids = torch.full((len(rows), max(map(len, rows))), self.pad)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        mask = torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in rows])
        return ids.to(self.model.device), mask.long().to(self.model.device)

    def read(self, ids: Tensor, mask: Tensor) -> list[str]:
        """(N, C) tokens as texts, without the end token.

        Nothing else is left out: tags may be special tokens.
        """
        keep = mask.bool() & ~torch.isin(ids, torch.tensor(self.end, device=ids.device))
        decode: Any = self.tokenizer.decode
        return [
            decode(row[k].tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
            for row, k in zip(ids, keep, strict=True)
        ]

    def save(self, folder: str | Path) -> None:
        """Write model and processor as a folder for ``hf:local-dir:FOLDER``, and for transformers itself."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def _whole_numbers(image: Images) -> tuple[Tensor, ...]:
    """Images as uint8, as a file has them: the processor scales them itself."""
    return tuple((x.detach().float().cpu() * 255).round().clamp(0, 255).to(torch.uint8) for x in image)


def load_vlm(
    ref: str, pretrained: bool = True, precision: Precision = "float32", vision: Backbone | None = None
) -> VLM:
    """Load a vision-language model.

    Args:
        ref: ``hf:org/repo[@rev]``, ``hf:local-dir:FOLDER``, or ``rali:vlm-tiny`` with the options of
            :func:`rali_zoo.vlm.tiny.model.build_tiny_vlm`.
        pretrained: whether to read the weights; without them they are whatever lies in memory, for a
            checkpoint to fill.
        precision: of the weights.
        vision: trained backbone whose weights ``rali:vlm-tiny`` gets for its vision encoder.

    Raises:
        UriError: a reference that cannot be read, or a folder that is not there.
        ConfigError: a processor without a chat template or image processor; ``vision`` for another model.
        CheckpointError: files that are missing or cannot be read.
    """
    uri = parse_uri(ref, ("hf", "rali"), "vision-language model")
    if uri.scheme == "rali":
        folder = _tiny(uri)
        if vision is None:
            return _load(uri, str(folder), "main", pretrained, precision)
        from rali_zoo.vlm.tiny.model import load_vision

        with tempfile.TemporaryDirectory() as temporary:
            own = shutil.copytree(folder, Path(temporary) / "model")
            load_vision(own, vision)
            return _load(uri, str(own), "main", pretrained, precision)
    if vision is not None:
        raise ConfigError(
            f"'{ref}' has a vision encoder of its own; only 'rali:{_TINY}' can be given another"
        )
    uri.take(())
    return _load(uri, *locate(uri), pretrained, precision)


def _load(uri: Uri, place: str, revision: str, pretrained: bool, precision: Precision) -> VLM:
    """The model of a folder or repository."""
    # registers our vision net with timm: a folder may hold one of our own models
    import rali_zoo.vlm.tiny.vision  # noqa: F401

    with from_library(uri, "transformers", ADVICE, not Path(place).is_dir()):
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
        from transformers.initialization import no_init_weights

        # spelled out: unset, transformers asks on a terminal whether to run code from the repository
        processor = AutoProcessor.from_pretrained(place, revision=revision, trust_remote_code=False)
        dtype = getattr(torch, precision)
        if pretrained:
            family: Any = AutoModelForImageTextToText
            model, report = family.from_pretrained(
                place, revision=revision, trust_remote_code=False, dtype=dtype, output_loading_info=True
            )
            check_complete(uri, report["missing_keys"])
        else:
            config = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
            with no_init_weights():
                model = AutoModelForImageTextToText.from_config(config, dtype=dtype, trust_remote_code=False)
    return finish(model, processor, str(uri))


def finish(model: PreTrainedModel, processor: ProcessorMixin, uri: str) -> VLM:
    """Check a model and its processor, and find the tokens that end a completion or never occur in one.

    Raises:
        ConfigError: a processor without a chat template or image processor, or no token that ends a turn.
    """
    for part in ("tokenizer", "image_processor", "chat_template"):
        if getattr(processor, part, None) is None:
            raise ConfigError(
                f"'{uri}': its {type(processor).__name__} has no {part}; use a model for images and chat "
                "whose folder holds a complete processor"
            )
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    ends = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = [tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])]
    end = tuple(dict.fromkeys(i for i in listed if i is not None))
    if not end:
        raise ConfigError(f"'{uri}': no end-of-sequence token in its tokenizer or generation_config")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.generation_config = _plain_generation(end, tokenizer.pad_token_id)
    return VLM(model, processor, uri, end, _suppressed(model, tokenizer, end))


def _plain_generation(end: tuple[int, ...], pad: int) -> Any:
    # what an author set for chatting (penalties, top-k) would make the sampler another one than the policy
    from transformers import GenerationConfig

    return GenerationConfig(eos_token_id=list(end), pad_token_id=pad)


def _suppressed(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, end: tuple[int, ...]
) -> tuple[int, ...]:
    named = [getattr(model.config, name, None) for name in _IMAGE_TOKENS]
    beyond = range(len(tokenizer), model.config.get_text_config().vocab_size)
    words = vocabulary("q-insight")
    samples = [
        write_completion("a", score=3.42),
        write_completion("a", distortion="blur", level=1, words=words),
    ]
    needed = {i for text in samples for i in tokenizer(text, add_special_tokens=False)["input_ids"]}
    found = {*named, *tokenizer.all_special_ids, tokenizer.pad_token_id, *beyond} - {None, *end} - needed
    return tuple(sorted(found))


def vision_encoder(model: torch.nn.Module) -> tuple[str, torch.nn.Module]:
    """Dotted name and module of a model's vision encoder; raises :class:`ConfigError` where none is known."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in _ENCODERS:
            return name, module
    raise ConfigError(
        f"no vision encoder in a {type(model).__name__}: none of its parts is named {', '.join(_ENCODERS)}"
    )


def copy_vision(source: VLM, target: VLM) -> None:
    """Give a model another one's vision encoder; raises :class:`ConfigError` where the weights do not fit."""
    weights = vision_encoder(source.model)[1].state_dict()
    try:
        vision_encoder(target.model)[1].load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(f"the vision encoder of {source.uri} does not fit {target.uri}: {error}") from None


def projector(model: torch.nn.Module) -> torch.nn.Module | None:
    """What leads from the vision encoder to the language model; ``None`` where the encoder has it, as Qwen's."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in _PROJECTORS:
            return module
    return None


def _tiny(uri: Uri) -> Path:
    """Folder of ``rali:vlm-tiny``, which is built on first use."""
    if uri.id != _TINY:
        raise UnknownNameError("vision-language model of the scheme 'rali:'", uri.id, [_TINY])
    options: dict[str, Any] = {}
    for name, text in uri.take(_TINY_OPTIONS).items():
        try:
            options[name] = _TINY_OPTIONS[name](text)
        except ValueError:
            raise ConfigError(f"'{uri}': {name} is a whole number") from None
    # its tokenizer is made of the package's own words: another version of them is another model
    package = Path(__file__).parents[1]
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for source in sorted(path for pattern in _TINY_SOURCES for path in package.glob(pattern)):
        digest.update(source.read_bytes())
    folder = cache_dir("vlm") / f"tiny-{digest.hexdigest()[:12]}"
    if not folder.is_dir():
        from rali_zoo.vlm.tiny.model import build_tiny_vlm

        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            built = build_tiny_vlm(Path(temporary) / "model", **options)
            try:
                built.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process has built the same one meanwhile
                    raise
    return folder


def with_model(vlm: VLM, model: torch.nn.Module) -> VLM:
    """The same with another model in its place, such as one with an adapter."""
    return replace(vlm, model=cast("PreTrainedModel", model))


def merged(vlm: VLM) -> VLM:
    """The model with its adapter added to its weights, if it has one; a copy, so that training can go on."""
    if not hasattr(vlm.model, "merge_and_unload"):
        return vlm
    return with_model(vlm, cast(Any, copy.deepcopy(vlm.model)).merge_and_unload())
