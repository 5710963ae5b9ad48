"""RALI's network: an image encoder, a space shared with descriptions, and prototypes that carry scores.

"Reasoning as representation" (ICLR 2026, arXiv 2510.11369), section 4. The text encoder that taught it is no part
of it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rali_zoo.errors import CheckpointError, ConfigError
from rali_zoo.models.base import BackboneNetwork, Neck, Prediction
from rali_zoo.types import MOS_RANGE, Explanation

Projector = Literal["none", "linear", "mlp"]


class RALINetwork(BackboneNetwork):
    """Score = softmax(cos(U'(E(I) - m) / s, mu) / tau) . f, over K prototypes mu with scores f.

    Args:
        backbone: image encoder by URI.
        embedding_dim: width T of the space shared with the texts; that of the features with ``projector: none``.
        projector: from features to the embedding: ``none`` when the backbone already lives in the text
            encoder's space (CLIP with its own text encoder), else ``linear`` or ``mlp``.
        hidden: width of the perceptron's hidden layer.
        dropout: share in [0, 1) dropped in the projector while training.
        prototypes: K at most (paper: 250).
        pca_dim: components at most (paper: 512); ``None`` leaves PCA out.
        temperature: tau of the score softmax at the start; learned.

    Raises:
        ConfigError: ``projector: none`` and a width that is not that of the features.
    """

    only_trained = ("text_tower.", "align_log_scale")
    projection_mean: Tensor
    projection_scale: Tensor
    components: Tensor
    active: Tensor
    ready: Tensor

    def __init__(
        self,
        backbone: str = "rali:tiny",
        embedding_dim: int | None = None,
        projector: Projector = "linear",
        hidden: int = 512,
        dropout: float = 0.0,
        prototypes: int = 250,
        pca_dim: int | None = 512,
        temperature: float = 0.07,
    ) -> None:
        super().__init__(backbone)
        width = embedding_dim or self.backbone.dim
        if projector == "none" and width != self.backbone.dim:
            raise ConfigError(
                f"projector: none needs texts as wide as the features of {backbone!r}, {self.backbone.dim}, and they "
                f"have {width}; set model.projector=linear"
            )
        self.projector = Neck(projector, self.backbone.dim, width, hidden, dropout)
        components = width if pca_dim is None else min(pca_dim, width)
        # Sizes are fixed and unused rows masked, so that checkpoints load and DDP wraps whatever K comes out.
        self.register_buffer("projection_mean", torch.zeros(width))
        self.register_buffer("projection_scale", torch.ones(width))
        self.register_buffer("components", torch.zeros(components, width))
        self.register_buffer("active", torch.zeros(prototypes, dtype=torch.bool))
        self.register_buffer("ready", torch.tensor(False))
        self.vectors = nn.Parameter(torch.zeros(prototypes, components))
        self.scores = nn.Parameter(torch.zeros(prototypes))
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())
        self.prototype_texts: list[list[str]] = []  #: descriptions nearest to each prototype

    def embed(self, features: Tensor) -> Tensor:
        """(B, D) features to (B, T): the space shared with the texts."""
        return self.projector(features)

    def project(self, embedding: Tensor) -> Tensor:
        """(B, T) embeddings to (B, d): the PCA, as in the released inference code; never in half precision."""
        with torch.autocast(embedding.device.type, enabled=False):
            centred = (_wide(embedding) - _wide(self.projection_mean)) / _wide(self.projection_scale)
            return centred @ _wide(self.components).T

    def query(self, embedding: Tensor) -> Tensor:
        """(B, T) embeddings to unit vectors (B, d), which are compared with the prototypes."""
        return F.normalize(self.project(embedding), dim=-1)

    def predict_features(self, features: Tensor) -> Prediction:
        """(B, D) features to scores, their standard deviations over prototypes, and the weights (B, K).

        The standard deviation is that of the prototypes' scores under the weights: how much the prototypes that
        are near disagree. It is not calibrated.
        """
        out = self.unbounded(features)
        return out._replace(score=out.score.clamp(*MOS_RANGE))

    def unbounded(self, features: Tensor) -> Prediction:
        """As :meth:`predict_features` of (B, D), but scores may leave [1, 5]: a clamp would stop gradients."""
        if not bool(self.ready):
            return Prediction(features.new_full((len(features),), float("nan"), dtype=torch.float32))
        query = self.query(self.embed(features))
        with torch.autocast(query.device.type, enabled=False):
            cosine = query @ F.normalize(_wide(self.vectors), dim=-1).T
            logits = cosine / _wide(self.log_temperature).exp()
            weights = logits.masked_fill(~self.active, float("-inf")).softmax(-1)
            values = _wide(self.scores)
            score = weights @ values
            std = (weights @ values.square() - score.square()).clamp_min(0).sqrt()
        return Prediction(score, std, weights)

    def explain(self, weights: Tensor, k: int = 3) -> list[Explanation]:
        """The ``k`` heaviest prototypes of each image: (weight, score, nearest descriptions).

        Args:
            weights: (B, K) of the images.
            k: how many.
        """
        return heaviest(weights, self.scores[: int(self.active.sum())], self.prototype_texts, k)

    def check_complete(self, name: str) -> None:
        """Refuse to score before the prototypes are made; raises :class:`CheckpointError`."""
        if not bool(self.ready):
            raise CheckpointError(
                f"{name} stopped before its prototypes were made; run the stages after 'align'"
            )

    def extra_state(self) -> dict[str, object]:
        """Adds the prototypes' descriptions."""
        return {**super().extra_state(), "prototype_texts": self.prototype_texts}

    def load_extra_state(self, state: dict[str, object]) -> None:
        """Undo :meth:`extra_state`."""
        super().load_extra_state(state)
        texts = state["prototype_texts"]
        if not isinstance(texts, list) or not all(isinstance(some, list) for some in texts):
            raise CheckpointError("prototype_texts holds a list of texts for each prototype")
        self.prototype_texts = [[str(text) for text in some] for some in texts]


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def heaviest(weights: Tensor, scores: Tensor, texts: list[list[str]], k: int) -> list[Explanation]:
    """The ``k`` prototypes that carry most of each image's score, heaviest first.

    Args:
        weights: (B, K') of the images, K' at least K.
        scores: (K,) of the prototypes.
        texts: descriptions of the prototypes, where there are any.
        k: how many.
    """
    heavy, order = weights[:, : len(scores)].topk(min(k, len(scores)), dim=1)
    bounded = scores.detach().clamp(*MOS_RANGE).tolist()
    return [
        tuple(
            (weight, bounded[i], tuple(texts[i]) if i < len(texts) else ())
            for weight, i in zip(*pair, strict=True)
        )
        for pair in zip(heavy.tolist(), order.tolist(), strict=True)
    ]
