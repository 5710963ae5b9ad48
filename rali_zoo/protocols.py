"""What parts of the package need of each other, where neither imports the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from rali_zoo.types import Colour, Preprocess, Score

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import Tensor, nn

    from rali_zoo.types import Batch, ImageSource
    from rali_zoo.views import View


class Scorer(Protocol):
    """Anything that gives images a score: a network of ours, an export, somebody else's metric, a table."""

    name: str  #: the reference it was loaded from
    training_sets: tuple[str, ...] | None  #: ``None`` where its authors do not state them
    needs_reference: bool  #: whether it compares with a reference image
    native_scale: bool  #: whether scores are in units of its own instead of MOS in [1, 5]
    score_range: tuple[float, float] | None  #: nominal range of the scores; ``None`` where an end is open
    licence: str  #: of what computes them, as an SPDX identifier; empty for ours

    @property
    def colour(self) -> Colour:
        """How the colours of its images are read from files."""
        ...

    @property
    def revision(self) -> str:
        """Identifies what computes the scores: a hash of weights, or a version."""
        ...

    @property
    def preprocess_id(self) -> str:
        """What is done to an image first; with :attr:`revision` it determines a score."""
        ...

    def modules(self) -> Sequence[nn.Module]:
        """The networks behind a score, so that their parameters can be counted."""
        ...

    def score(
        self,
        images: ImageSource | Iterable[ImageSource],
        batch_size: int = 16,
        progress: Callable[[int], None] | None = None,
    ) -> list[Score]:
        """One :class:`~rali_zoo.types.Score` an image, in order; an undecodable one has ``error``."""
        ...


@runtime_checkable
class FeatureSource(Protocol):
    """A model under training, as the data module sees it."""

    can_cache: bool  #: whether what it makes of an image first stays as it is
    learns_ranks: bool  #: whether it learns from images whose order alone is known

    @property
    def preprocess(self) -> Preprocess:
        """What the model expects of an image."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def encoder_key(self) -> str:
        """Identifies the image encoder and its weights."""
        ...

    def encode_frozen(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) or (B, V, 3, H, W) images in [0, 1] to features (B, D) or (B, V, D)."""
        ...


class TrainingData(Protocol):
    """The data module, as a model under training sees it."""

    train_refs: list[str]
    val_refs: list[str]
    test_refs: list[str]
    rank_refs: list[str]
    batch_size: int
    eval_view: View
    #: (data set, image) to its descriptions; ``None`` where none were asked for
    texts: Mapping[tuple[str, str], Sequence[str]] | None
    #: (role, data set) to the undecodable images left out, with columns id, mos, reason
    left_out: dict[tuple[str, str], pd.DataFrame]

    @property
    def smallest(self) -> int:
        """Shorter side in pixels of the smallest rated training images; 0 where there is none to look at."""
        ...

    @property
    def streams(self) -> Sequence[str]:
        """References of shards, which have no length."""
        ...

    def train_eval_dataloader(self) -> Iterable[Batch]:
        """The training images once, in order, cut as for evaluation."""
        ...
