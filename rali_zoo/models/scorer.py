"""A trained module as a :class:`~rali_zoo.types.Scorer`: pictures in, :class:`Score` out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rali_zoo.data.images import load_image
from rali_zoo.errors import CheckpointError, ImageDecodeError
from rali_zoo.models.rali import RALI
from rali_zoo.types import Batch, Score

if TYPE_CHECKING:
    from rali_zoo.models.base import IQAModule


class ModuleScorer:
    """Scores pictures with a trained :class:`Regression` or :class:`RALI`.

    Args:
        module: the trained module; put into evaluation mode.
        name: reference it was loaded from.
        device: where to compute; the module's own by default.

    Raises:
        CheckpointError: a RALI whose prototypes were never made.
    """

    def __init__(self, module: IQAModule, name: str, device: torch.device | str | None = None) -> None:
        if isinstance(module, RALI) and not bool(module.ready):
            raise CheckpointError(
                f"{name} stopped before its prototypes were made; run the stages after 'align'"
            )
        self.module = module.eval().to(device or module.device)
        self.name = name
        self.training_sets = module.training_sets

    @property
    def revision(self) -> str:
        """Hash of the weights."""
        return self.module.revision

    def score(
        self,
        images: Sequence[Any] | Any,
        batch_size: int = 16,
        progress: Callable[[int], None] | None = None,
        workers: int = 2,
    ) -> list[Score]:
        """Score pictures.

        Args:
            images: one picture or several: paths, bytes, PIL images, uint8 or [0, 1] float arrays
                (H, W, 3), tensors (3, H, W).
            batch_size: pictures a forward pass.
            progress: called with the number of pictures done.
            workers: threads that decode and cut ahead of the model.

        Returns:
            One score a picture, in order. A picture that cannot be read has ``error`` and no score.
        """
        return list(
            self.iterate(
                images if isinstance(images, list | tuple) else [images], batch_size, progress, workers
            )
        )

    def iterate(
        self, images: Sequence[Any], batch_size: int, progress: Callable[[int], None] | None, workers: int
    ) -> Iterator[Score]:
        """As :meth:`score`, one at a time; memory does not grow with the number of pictures."""
        names = (str(x) if isinstance(x, str | Path) else f"[{i}]" for i, x in enumerate(images))
        pictures, done = iter(images), 0
        with ThreadPoolExecutor(max(1, workers)) as pool:
            waiting = [pool.submit(self._prepare, image) for image in islice(pictures, batch_size)]
            while waiting:
                # The next batch is decoded while this one is scored.
                ahead = [pool.submit(self._prepare, image) for image in islice(pictures, batch_size)]
                prepared = [future.result() for future in waiting]
                yield from self._score_batch(prepared, [next(names) for _ in prepared])
                waiting = ahead
                done += len(prepared)
                if progress is not None:
                    progress(done)

    def _prepare(self, image: Any) -> Tensor | ImageDecodeError:
        try:
            return self.module.view(load_image(image), self.module.preprocess)
        except ImageDecodeError as error:
            return error

    @torch.inference_mode()
    def _score_batch(self, prepared: list[Tensor | ImageDecodeError], names: list[str]) -> list[Score]:
        found: dict[int, Score] = {}
        good = []
        for i, item in enumerate(prepared):
            if isinstance(item, Tensor):
                good.append((i, item))
            else:
                found[i] = Score(None, error=str(item), path=names[i], model=self.name)
        # Native-size views differ in shape; equal ones still go through together.
        by_shape = sorted(good, key=lambda pair: tuple(pair[1].shape))
        for _, same in groupby(by_shape, key=lambda pair: tuple(pair[1].shape)):
            positions, tensors = zip(*same, strict=True)
            batch = Batch(image=torch.stack(tensors).to(self.module.device))
            out = self.module.predict_batch(batch)
            for row, i in enumerate(positions):
                found[i] = self._one(out, row, names[i])
        return [found[i] for i in range(len(prepared))]

    def _one(self, out: Any, row: int, name: str) -> Score:
        value = float(out.score[row])
        if not math.isfinite(value):
            return Score(None, error="the model gave no score that can be read", path=name, model=self.name)
        reasons: list[tuple[float, float, tuple[str, ...]]] = []
        if isinstance(self.module, RALI) and out.weights is not None:
            reasons = self.module.reasons(out.weights[row])
        std = None if out.std is None else float(out.std[row])
        return Score(value, std=std, path=name, model=self.name, reasons=tuple(reasons))
