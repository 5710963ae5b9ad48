"""An exported graph in the place of a torch module, so that one pipeline scores with either."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rali_zoo.errors import ConfigError, UriError
from rali_zoo.export.graph import Header, preprocess_of, view_of
from rali_zoo.models.base import BackboneNetwork, IQANetwork, Prediction
from rali_zoo.models.rali import heaviest
from rali_zoo.types import Batch, Explanation, Preprocess
from rali_zoo.uri import Uri

if TYPE_CHECKING:
    from rali_zoo.models.scorer import NetworkScorer

#: (B, 3, H, W) float32 to the graph's outputs by name.
Run = Callable[[np.ndarray], Mapping[str, np.ndarray]]


class ExportedNetwork(IQANetwork):
    """A network that another runtime computes; on the CPU, without gradients.

    Args:
        header: of the exported file.
        run: the runtime's function.
        files: what was loaded; their bytes make the revision, since a quantised or converted network is
            another network.
    """

    def __init__(self, header: Header, run: Run, files: tuple[Path, ...]) -> None:
        super().__init__()
        self.header, self.run, self.files = header, run, files
        self.view = view_of(header)
        self.training_sets = tuple(header.training_sets)
        self.scores = torch.tensor([score for score, _ in header.prototypes])
        self.prototype_texts = [texts for _, texts in header.prototypes]

    @property
    def preprocess(self) -> Preprocess:
        """What the exported network expects of an image."""
        return preprocess_of(self.header)

    @property
    def revision(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the files."""
        digest = hashlib.sha256()
        for file in self.files:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()[:12]

    def features(self, batch: Batch) -> Tensor:
        """(B, V, 3, H, W): to a graph that takes pixels, the pixels are the features."""
        image = batch["features"] if "features" in batch else batch["image"]
        return image if image.ndim == 5 else image[:, None]

    def predict_features(self, image: Tensor) -> Prediction:
        """(B, 3, H, W) pixels in [0, 1] to scores, std and weights.

        Raises:
            ConfigError: images of another size than the graph takes.
        """
        size = self.header.size
        if image.ndim != 4 or image.shape[1] != 3 or (size and list(image.shape[-2:]) != size):
            wanted = "(B, 3, H, W)" if size is None else f"(B, 3, {size[0]}, {size[1]})"
            raise ConfigError(
                f"{self.files[0]} takes {wanted}, not {tuple(image.shape)}; export it with --any_size"
            )
        found = self.run(np.ascontiguousarray(image.detach().float().numpy()))
        out = {name: torch.from_numpy(found[name]) for name in self.header.outputs}
        return Prediction(out["score"], out.get("std"), out.get("weights"))

    # How views are averaged does not depend on who computes.
    predict_batch = BackboneNetwork.predict_batch  # type: ignore[assignment]

    def explain(self, weights: Tensor, k: int = 3) -> list[Explanation]:
        """The ``k`` heaviest prototypes of each image: (weight, score, nearest descriptions).

        Args:
            weights: (B, K) of the images.
            k: how many.
        """
        return heaviest(weights, self.scores, self.prototype_texts, k)


def as_scorer(network: ExportedNetwork, name: str) -> NetworkScorer:
    """An exported graph as a scorer of the name it was asked for by."""
    from rali_zoo.models.scorer import NetworkScorer

    return NetworkScorer(network, name)


def threads_of(uri: Uri) -> int:
    """The option ``threads`` of a reference; torch's number of threads if it is not given."""
    options = uri.take(["threads"])
    if "threads" not in options:
        return torch.get_num_threads()
    text = options["threads"]
    if not text.isdecimal() or int(text) < 1:
        raise UriError(f"'{uri}': threads={text!r} must be a whole number of at least 1")
    return int(text)


def check_device(uri: Uri, device: str | None) -> None:
    """Refuse a device that the exported graph would not use."""
    if device is not None and torch.device(device).type != "cpu":
        raise ConfigError(f"'{uri}' computes on the CPU, not on {device!r}; leave --device out")
