"""Text encoders of transformers: ``hf:org/repo[@rev]``, ``hf:local-dir:FOLDER``.

CLIP gives its projected embedding and SigLIP its pooled one, without the vision tower. Any other encoder
(BERT and its kin) gives the mean of its tokens, unless the folder is laid out as sentence-transformers lays
it out: then its pooling, its context length and its normalisation are followed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from rali_zoo.backbones.hf import check_complete, locate, one_tower, plain_encoder, quiet
from rali_zoo.backbones.options import choice
from rali_zoo.backbones.weights import from_library
from rali_zoo.errors import CheckpointError, UriError
from rali_zoo.text.base import LongText, TextEncoder, Windows
from rali_zoo.uri import Uri

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

ADVICE = "'hf:local-dir:FOLDER' (config.json, tokenizer files and weights)"
Pooling = Literal["model", "mean", "cls", "max"]


class Recipe(NamedTuple):
    """How tokens become a vector."""

    pooling: Pooling  #: ``model`` = the text encoder's own
    normalise: bool
    context: int | None  #: tokens with the special ones; ``None`` = as the tokenizer and config say


class HFText(TextEncoder):
    """A text encoder of transformers."""

    def __init__(
        self,
        net: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        uri: str,
        long_text: LongText,
        recipe: Recipe,
    ) -> None:
        config = net.config
        dim = config.hidden_size
        if hasattr(net, "text_projection"):
            dim = config.projection_dim
        elif recipe.pooling == "model":
            dim = config.projection_size
        super().__init__(uri, dim, long_text, recipe.normalise)
        self.net: Any = net
        self.pooling = recipe.pooling
        self.context = recipe.context or _context(net, tokenizer)
        self._tokenizer = tokenizer
        # SigLIP reads the last of a fixed number of positions and was trained without a mask
        self._fixed_length = config.model_type.startswith("siglip")

    def windows(self, texts: list[str]) -> Windows:
        """Tokenise; the tokenizer itself cuts longer texts, with special tokens around every window."""
        found = self._tokenizer(
            texts,
            truncation=True,
            max_length=self.context,
            padding="max_length" if self._fixed_length else True,
            return_overflowing_tokens=True,
            return_tensors="pt",
        )
        owner = found.pop("overflow_to_sample_mapping")
        keys = ["input_ids"] if self._fixed_length else self._tokenizer.model_input_names
        return Windows({key: found[key] for key in keys if key in found}, owner)

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """Encode token ids (n, L) to (n, T)."""
        found = self.net(**inputs)
        if self.pooling == "model":
            return found.text_embeds if "text_embeds" in found else found.pooler_output
        last = found.last_hidden_state
        if self.pooling == "cls":
            return last[:, 0]
        mask = inputs["attention_mask"].unsqueeze(-1).to(last.dtype)
        if self.pooling == "max":
            return last.masked_fill(mask == 0, -torch.inf).amax(dim=1)
        return (last * mask).sum(dim=1) / mask.sum(dim=1)


def create(uri: Uri) -> TextEncoder:
    """Build ``uri``; see :func:`rali_zoo.text.create_text_encoder`."""
    place, revision = locate(uri)
    return build(uri, place, revision)


def names() -> list[str]:
    """None: the hub is not listed."""
    return []


def build(uri: Uri, place: str, revision: str) -> TextEncoder:
    """Load the encoder in a repository or folder.

    Args:
        uri: what the user asked for; its options are read.
        place: repository or folder.
        revision: of the repository.
    """
    options = uri.take(["long"])
    long_text = cast("LongText", choice(uri, "long", options.get("long", "truncate"), ("truncate", "chunk")))
    import transformers

    with from_library(uri, "transformers", ADVICE, not Path(place).is_dir()), quiet():
        config = transformers.AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
        tower, config = _tower(uri, config)
        extra: dict[str, bool] = {}
        recipe = Recipe("model", False, None) if tower else _recipe(uri, place, revision)
        if tower is None:
            tower, extra = plain_encoder(uri, config, "input_ids", "texts")
        net, report = tower.from_pretrained(
            place,
            config=config,
            revision=revision,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=False,
            **extra,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            place, revision=revision, trust_remote_code=False
        )
    check_complete(uri, report["missing_keys"])
    if not tokenizer.is_fast:
        raise UriError(
            f"'{uri}': this model has only a slow tokenizer (tokenizer.json is missing), which is not read"
        )
    encoder = HFText(net, tokenizer, str(uri), long_text, recipe)
    encoder.freeze(loaded=True)
    return encoder


def _tower(uri: Uri, config: PretrainedConfig) -> tuple[Any, PretrainedConfig]:
    """Class of a two-tower model's text encoder (``None``: a plain encoder), and its config."""
    import transformers

    towers = {
        "clip": transformers.CLIPTextModelWithProjection,
        "siglip": transformers.SiglipTextModel,
        "siglip2": transformers.Siglip2TextModel,
    }
    family = config.model_type.removesuffix("_text_model")
    if family in towers:
        return towers[family], one_tower(config, "text_config")
    if getattr(config, "text_config", None) is not None:
        raise UriError(
            f"'{uri}' is a {config.model_type!r} model with several towers; "
            f"of those, {', '.join(towers)} are known"
        )
    return None, config


def _recipe(uri: Uri, place: str, revision: str) -> Recipe:
    """What sentence-transformers' own files say; the mean of the tokens where there are none."""
    modules = _json(place, "modules.json", revision)
    if not isinstance(modules, list):
        return Recipe("mean", False, None)
    kinds = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in modules}
    unknown = kinds.keys() - {"Transformer", "Pooling", "Normalize"}
    if unknown:
        raise UriError(
            f"'{uri}': modules of sentence-transformers that are not read here: {', '.join(sorted(unknown))}"
        )
    pooling = _pooling(uri, _json(place, f"{kinds.get('Pooling', '')}/config.json", revision))
    limits = _json(place, "sentence_bert_config.json", revision)
    context = limits.get("max_seq_length") if isinstance(limits, dict) else None
    return Recipe(pooling, "Normalize" in kinds, context)


def _pooling(uri: Uri, config: object) -> Pooling:
    given = config if isinstance(config, dict) else {}
    spelled = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max"}
    chosen = [
        key.removeprefix("pooling_mode_")
        for key, on in given.items()
        if key.startswith("pooling_mode_") and on
    ]
    if "pooling_mode" in given:  # the newer spelling of the same thing
        modes = given["pooling_mode"]
        chosen = (
            [f"{modes}_tokens" if modes != "cls" else "cls_token"] if isinstance(modes, str) else list(modes)
        )
    if len(chosen) != 1 or chosen[0] not in spelled:
        raise UriError(f"'{uri}': its pooling {chosen} is not read here; mean, cls and max are")
    return cast("Pooling", spelled[chosen[0]])


def _json(place: str, name: str, revision: str) -> object:
    """A json file of a folder or repository; ``None`` where there is none."""
    from transformers.utils import cached_file

    found = cached_file(place, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    try:
        return json.loads(Path(found).read_text(encoding="utf-8")) if found else None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{found} is no readable JSON: {error}") from error


def _context(net: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Longest window that both tokenizer and position embeddings allow, special tokens included."""
    limit = getattr(net.config, "max_position_embeddings", None) or tokenizer.model_max_length
    for name, module in net.named_modules():
        # RoBERTa numbers its positions from behind the padding
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            limit -= module.padding_idx + 1
    return min(limit, tokenizer.model_max_length)
