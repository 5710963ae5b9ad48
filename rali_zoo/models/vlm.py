"""A vision-language model as a scorer: it writes about an image, and the score is read from what it wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from rali_zoo.backbones.weights import weights_hash
from rali_zoo.errors import CheckpointError, ConfigError
from rali_zoo.models.base import IQANetwork, Prediction, loading_weights
from rali_zoo.settings import read_settings
from rali_zoo.types import Batch, Preprocess
from rali_zoo.vlm.expectation import digit_tokens, expected_scores
from rali_zoo.vlm.generation import Completions, Engine, TransformersEngine, evaluating
from rali_zoo.vlm.model import VLM, Images, Precision, load_vlm, merged, with_model
from rali_zoo.vlm.prompts import Prompt, score_prompt
from rali_zoo.vlm.tuning import Adapter, with_adapter

if TYPE_CHECKING:
    import pandas as pd

ScoreKind = Literal["greedy", "samples", "expectation"]


@dataclass(frozen=True)
class Scoring:
    """How a score is made of what the model writes.

    Attributes:
        kind: ``greedy`` = the likeliest answer; ``samples`` = mean and deviation of several; ``expectation``
            = over the digits of the likeliest answer, which has far fewer ties.
        samples: how many, for ``samples``; at least 2.
    """

    kind: ScoreKind = "greedy"
    samples: int = 4

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ConfigError(f"scoring: samples={self.samples} is at least 2")


class VLMNetwork(IQANetwork):
    """Writes ``<think>…</think><answer>…</answer>`` about an image; the score is read from the answer.

    Args:
        vlm: vision-language model: ``hf:org/repo[@rev]``, ``hf:local-dir:FOLDER`` or ``rali:vlm-tiny``.
        prompt: name of the question about the score.
        scoring: how a score is made of what is written.
        max_completion_length: limit of length in tokens.
        temperature: of the sampler, for ``samples``.
        seed: of the samples.
        precision: of the weights.
        adapter: low-rank adapter beside the weights; a file then holds the adapter alone.
        loaded: the model itself, where it is at hand already.

    Raises:
        ConfigError: a prompt of another task, or an expectation over digits that are not single tokens.
        CheckpointError: weights that cannot be read.
    """

    def __init__(
        self,
        vlm: str,
        prompt: str = "score-short",
        scoring: Scoring | Mapping[str, object] | None = None,
        max_completion_length: int = 256,
        temperature: float = 1.0,
        seed: int = 0,
        precision: Precision = "float32",
        adapter: Adapter | Mapping[str, object] | None = None,
        loaded: VLM | None = None,
    ) -> None:
        super().__init__()
        if isinstance(scoring, Mapping):
            scoring = read_settings(Scoring, dict(scoring), "scoring")
        self.scoring = scoring or Scoring()
        layers = read_settings(Adapter, dict(adapter), "adapter") if isinstance(adapter, Mapping) else adapter
        self.settings |= {
            "scoring": asdict(self.scoring),
            "adapter": None if layers is None else asdict(layers),
        }
        del self.settings["loaded"]
        self.asked = score_prompt(prompt)
        self.limit, self.temperature, self.seed = max_completion_length, temperature, seed
        if loaded is None:
            # of which an adapter's file brings no others
            loaded = load_vlm(
                vlm, pretrained=not loading_weights() or layers is not None, precision=precision
            )
            if layers is not None:
                loaded = with_model(loaded, with_adapter(loaded.model, layers))
        self.vlm: VLM = loaded
        self.policy: torch.nn.Module = loaded.model
        self.engine: Engine = TransformersEngine(loaded)
        if self.scoring.kind == "expectation":
            digit_tokens(loaded)  # fails at once where they are not what is needed

    @property
    def preprocess(self) -> Preprocess:
        """Images keep their size; the processor of the model resizes them."""
        return self.vlm.preprocess

    @property
    def encoder_key(self) -> str:
        """Identifies a pretrained vision encoder, its weights and what it is shown; "" for one that learns."""
        encoder = self.vlm.fixed_encoder
        if encoder is None:
            return ""
        return f"vlm|{encoder.grid}|{self.vlm.preprocess.size}|{weights_hash(encoder.net)}"

    def cached_features(self, ref: str, frame: pd.DataFrame, batch_size: int) -> Tensor | None:
        """What a pretrained vision encoder makes of a data set's images, from the cache.

        Args:
            ref: the data set's reference.
            frame: columns id, path, mos, std.
            batch_size: most images encoded at once.

        Returns:
            (N, T * D), in place of the images; ``None`` of an encoder that learns, or where an image is damaged.
        """
        from rali_zoo.data.checks import undecodable
        from rali_zoo.data.features import cached_features, encoded_at_once

        if not self.encoder_key or len(undecodable(frame)):
            return None
        encode, about = self.vlm.encode_fixed, (self.encoder_key, self.view, self.preprocess)
        return cached_features(ref, frame, encode, *about, encoded_at_once(batch_size, self.device), 0)

    def write(
        self,
        image: Images,
        asked: Prompt | Sequence[Prompt] | None = None,
        n: int = 1,
        temperature: float = 0.0,
        seed: int = 0,
        features: Tensor | None = None,
    ) -> Completions:
        """Let the model write about images.

        Args:
            image: (B, 3, H, W) in [0, 1], or B tensors (3, H, W) of different sizes.
            asked: the question, or one for each image; that about the score if ``None``.
            n: completions an image; 1 for greedy ones.
            temperature: of the sampler; 0 is greedy.
            seed: of the sampler.
            features: (B, T * D) of :meth:`rali_zoo.vlm.model.VLM.encode_fixed`, in place of the images.
        """
        one = self.asked.of("") if asked is None else asked
        count = len(image) if features is None else len(features)
        each = [one] * count if isinstance(one, Prompt) else one
        prompts = self.vlm.ask(one_view(image), each, features)
        return self.engine.generate(prompts, n, self.limit, temperature, seed)

    def predict_batch(self, batch: Batch) -> Prediction:
        """Scores of a batch as ``scoring`` sets, with the texts (the first one where several are drawn).

        A score is NaN where no answer can be parsed; of several samples the parseable ones count.
        """
        image, features = batch.get("image", ()), batch.get("features")
        count = len(image) if features is None else len(features)
        asked = [self.asked.of(origin) for origin in batch.get("prompt", [""] * count)]
        if self.scoring.kind == "samples":
            n = self.scoring.samples
            drawn = self.write(image, asked, n, self.temperature, self.seed, features)
            values = parsed_scores(drawn).view(-1, n)
            parsed = (~values.isnan()).sum(dim=1)
            mean = values.nanmean(dim=1)
            squares = ((values - mean[:, None]) ** 2).nansum(dim=1)
            std = torch.where(parsed > 1, squares / (parsed - 1).clamp_min(1), float("nan")).sqrt()
            return Prediction(mean, std, texts=drawn.texts[::n])
        greedy = self.write(image, asked, seed=self.seed, features=features)
        if self.scoring.kind == "greedy":
            return Prediction(parsed_scores(greedy), texts=greedy.texts)
        with evaluating(self.vlm.model):
            return Prediction(*expected_scores(self.vlm, greedy), texts=greedy.texts)

    # ---- files --------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model and processor for ``hf:local-dir:FOLDER``; an adapter is added to the weights."""
        merged(self.vlm).save(folder)

    def extra_state(self) -> dict[str, object]:
        """Adds a fingerprint of tokenizer and chat template."""
        return {**super().extra_state(), "words": self.vlm.fingerprint}

    def load_extra_state(self, state: dict[str, object]) -> None:
        """Undo :meth:`extra_state`; raises :class:`CheckpointError` where the tokenizer is another one."""
        if state["words"] != self.vlm.fingerprint:
            raise CheckpointError(f"these weights are not of vlm={self.vlm.uri}: {OTHER_WORDS}")
        super().load_extra_state(state)

    def load_state_dict(
        self, state_dict: Mapping[str, object], strict: bool = True, assign: bool = False
    ) -> object:
        """As torch's, but that nothing beyond the adapter is asked of an adapter's file."""
        if self.settings["adapter"] is None:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        return load_adapter(self, state_dict, assign)

    @classmethod
    def upgrade(cls, hparams: Mapping[str, object]) -> dict[str, object]:
        """Settings of a Reasoner or RACT that 0.1.0 saved."""
        tuning, grpo, sampling = (_group(hparams, name) for name in ("tuning", "grpo", "sampling"))
        lora = tuning.get("method") == "lora" and not (hparams.get("init_from") or hparams.get("vision_from"))
        return {
            "vlm": hparams["vlm"],
            "prompt": hparams["prompt"],
            "scoring": hparams.get("scoring"),
            "max_completion_length": hparams.get(
                "max_completion_length", grpo.get("max_completion_length", 256)
            ),
            "temperature": sampling.get("temperature", 1.0),
            "seed": hparams.get("seed", 0),
            "precision": tuning.get("precision", "float32"),
            "adapter": {k: tuning[k] for k in Adapter.__dataclass_fields__ if k in tuning} if lora else None,
        }


def _group(hparams: Mapping[str, object], name: str) -> dict[str, object]:
    found = hparams.get(name) or {}
    if not isinstance(found, dict):
        raise ConfigError(f"{name} is {found!r}, and has to hold settings")
    return found


OTHER_WORDS = "its tokenizer or chat template differs"


def parsed_scores(completions: Completions) -> Tensor:
    """(N,) scores of completions in [1, 5], NaN where the answer cannot be parsed."""
    return torch.tensor([float("nan") if p.score is None else p.score for p in completions.parsed])


def one_view(image: Images) -> Images:
    """Images as given; raises :class:`ConfigError` for several views of one."""
    shapes = [image.shape[1:]] if isinstance(image, Tensor) else [each.shape for each in image]
    if any(len(shape) != 3 for shape in shapes):
        raise ConfigError(
            f"a Reasoner looks at one view of an image, and images come as {[tuple(s) for s in shapes[:3]]}; set "
            "crops=1 and a kind other than multi in data.train_view and data.eval_view"
        )
    return image


def load_adapter(module: torch.nn.Module, state: Mapping[str, object], assign: bool) -> object:
    """Load a state dict that must hold the adapter of a module and may leave the rest out.

    Args:
        module: with an adapter inside.
        state: weights by name.
        assign: as torch's ``load_state_dict`` takes it.

    Raises:
        RuntimeError: weights of the adapter are missing, or there are unknown ones.
    """
    report = torch.nn.Module.load_state_dict(module, state, strict=False, assign=assign)
    missing = [name for name in report.missing_keys if "lora_" in name]
    if missing or report.unexpected_keys:
        raise RuntimeError(f"missing {missing[:5]}, unexpected {report.unexpected_keys[:5]}")
    return report
