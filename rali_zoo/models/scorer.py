"""A network as a :class:`~rali_zoo.protocols.Scorer`: images in, :class:`Score` out."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from glob import has_magic
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from rali_zoo.data.images import load_image, load_levels
from rali_zoo.data.sources import find_items
from rali_zoo.data.video import is_video
from rali_zoo.errors import ConfigError, ImageDecodeError
from rali_zoo.models.base import BackboneNetwork, IQANetwork, Prediction
from rali_zoo.types import MOS_RANGE, Batch, Colour, Explanation, Score
from rali_zoo.views import unit

if TYPE_CHECKING:
    from rali_zoo.protocols import Scorer
    from rali_zoo.types import ImageSource

Prepared = Tensor | ImageDecodeError
_NOTE = "rali_zoo_warning"  # an attribute of what is prepared, beside the pixels
Image = TypeVar("Image")
Ready = TypeVar("Ready")
Waiting = Callable[[], list[Score]]  #: waits for the scores of a batch that was started


def overlapped(
    batches: Iterable[Sequence[Image]], prepare: Callable[[Image], Ready], workers: int
) -> Iterator[tuple[Sequence[Image], list[Ready]]]:
    """Batches with what ``prepare`` made of their images, while the next ones are prepared in threads.

    Images are read, decoded and resized outside Python's lock, so threads are enough; what is in
    memory is one batch beyond the one at hand, or as many as keep all threads busy.

    Args:
        batches: images, taken only when they are needed.
        prepare: for one image; an exception ends the iteration.
        workers: threads, each with one torch thread.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(max(1, workers), initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[tuple[Sequence[Image], list[Future[Ready]]]] = deque()
    ahead = 0
    try:
        for batch in batches:
            waiting.append((batch, [pool.submit(prepare, image) for image in batch]))
            ahead += len(batch)
            while ahead - len(waiting[0][0]) >= max(workers, len(waiting[0][0])):
                ready, futures = waiting.popleft()
                ahead -= len(ready)
                yield ready, [future.result() for future in futures]
        while waiting:
            ready, futures = waiting.popleft()
            yield ready, [future.result() for future in futures]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)  # what threads that others start from now on will have


@contextmanager
def _all_digits(device: torch.device) -> Iterator[None]:
    """float32 as the CPU has it: left alone, a GPU's convolutions round what they multiply to 10 bits (TF32)."""
    if device.type != "cuda":
        yield
        return
    # Since torch 2.9 a setting of convolutions alone; who has used it may not read the older one of all of cuDNN.
    conv = getattr(torch.backends.cudnn, "conv", None)
    where, name, exact = (
        (torch.backends.cudnn, "allow_tf32", False) if conv is None else (conv, "fp32_precision", "ieee")
    )
    before = getattr(where, name)
    setattr(where, name, exact)
    try:
        yield
    finally:
        setattr(where, name, before)


def in_turn(started: Iterable[tuple[Image, Waiting]], ahead: bool) -> Iterator[tuple[Image, list[Score]]]:
    """The scores of batches that were started, in order.

    Args:
        started: batches with what waits for their scores; taking the next one starts it.
        ahead: whether the next batch is started before the scores of one are waited for.
    """
    waiting: deque[tuple[Image, Waiting]] = deque()
    for one in started:
        waiting.append(one)
        if len(waiting) > int(ahead):
            batch, scores = waiting.popleft()
            yield batch, scores()
    for batch, scores in waiting:
        yield batch, scores()


def _too_odd(image: Tensor, error: Exception) -> str:
    height, width = image.shape[-2:]
    return f"the model cannot take {width}x{height} pixels: {str(error).strip().splitlines()[0]}"


def _name(image: ImageSource, position: int) -> str:
    return str(image) if isinstance(image, str | Path) else f"[{position}]"


def each(images: ImageSource | Iterable[ImageSource]) -> Iterator[ImageSource]:
    """One image after the other.

    Args:
        images: an image, a batch of them (B, 3, H, W), or several, one by one; a folder stands for the images and
            videos below it, and so does a pattern such as ``shots/**/*.jpg`` that is no file's name.

    Raises:
        ConfigError: a folder or a pattern without any image.
    """
    if isinstance(images, str | Path):
        path = str(images)
        if os.path.isdir(path) or (has_magic(path) and not os.path.lexists(path)):
            yield from (item.source() if not item.error else item.path for item in find_items([path]))
        else:
            yield images
    elif isinstance(images, Tensor | np.ndarray):
        yield from images if images.ndim == 4 else [images]
    elif isinstance(images, Iterable) and not isinstance(images, bytes | bytearray | memoryview):
        for image in images:
            yield from each(image)
    else:
        yield cast("ImageSource", images)


def checked_device(device: str | torch.device | None) -> torch.device | None:
    """A device that this machine has; ``None`` as it is.

    Raises:
        ConfigError: no device, or one that is not here.
    """
    if device is None:
        return None
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch's own, by back end
        here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ConfigError(
            f"device={str(device)!r} cannot be used on this machine ({str(error).strip().splitlines()[0]}); "
            f"it has {', '.join(here)}"
        ) from error
    return found


class NetworkScorer:
    """Scores images with a network.

    Args:
        network: put into evaluation mode.
        name: reference it was loaded from.
        device: where to compute; the network's own by default.

    Raises:
        CheckpointError: training stopped before it had made all that a score needs.
        ConfigError: a device that this machine does not have.
    """

    needs_reference = False
    native_scale = False
    score_range: tuple[float, float] | None = MOS_RANGE
    licence = ""

    def __init__(self, network: IQANetwork, name: str, device: torch.device | str | None = None) -> None:
        network.check_complete(name)
        self.network = network.eval().to(checked_device(device) or network.device)
        self.name = name
        self.training_sets: tuple[str, ...] | None = network.training_sets
        #: type that an image encoder computes in where autocast allows it; ``None`` = float32 throughout
        self.autocast: torch.dtype | None = None
        #: takes the place of the network's own ``encode``, see :mod:`rali_zoo.export.encoder`
        self.encode: Callable[[Tensor], Tensor] | None = None

    @property
    def colour(self) -> Colour:
        """As the network's view has it."""
        return self.network.view.colour

    @property
    def revision(self) -> str:
        """Hash of the weights."""
        return self.network.revision

    @property
    def preprocess_id(self) -> str:
        """What is done to an image before the network; with :attr:`revision` it determines a score."""
        return f"{type(self.network).__name__} {self.network.view} {self.network.preprocess}"

    def modules(self) -> list[nn.Module]:
        """The networks behind a score, so that their parameters can be counted."""
        return [self.network]

    def stages(self) -> list[tuple[str, Callable[[object], object]]]:
        """What is done to one image, step by step; each step takes what the one before it gave.

        ``decode`` and ``preprocess``, then ``encode`` and ``head`` where the module has both.
        """
        network = self.network
        steps: list[tuple[str, Callable[[Any], Any]]] = [
            ("decode", lambda image: load_image(image, colour=network.view.colour)),
            ("preprocess", lambda image: network.view(image, network.preprocess)),
        ]
        if not isinstance(network, BackboneNetwork):
            return steps
        encode = torch.inference_mode()(lambda x: network.features(Batch(image=x[None].to(network.device))))
        head = torch.inference_mode()(lambda features: network.predict_features(features.flatten(0, 1)))
        return [*steps, ("encode", encode), ("head", head)]

    def score(
        self,
        images: ImageSource | Iterable[ImageSource],
        batch_size: int = 16,
        progress: Callable[[int], None] | None = None,
        workers: int = 2,
        maps: bool = False,
    ) -> list[Score]:
        """Score images.

        Args:
            images: one image or several, in a list, a generator or a batch: paths, bytes, PIL images, uint8 or
                [0, 1] float arrays (H, W, 3) or (B, H, W, 3), tensors (3, H, W) or (B, 3, H, W). A folder and a
                pattern with ``*`` stand for what is found there, in the order of names.
            batch_size: images a forward pass.
            progress: called with the number of images done.
            workers: threads that decode and cut ahead of the model.
            maps: whether each score gets its :attr:`~rali_zoo.types.Score.map`, for 16 more images' work.

        Returns:
            One score an image, in order. An image that cannot be read has ``error`` and no score.
        """
        if not maps:
            return list(self.iterate(each(images), batch_size, progress, workers))
        from rali_zoo.models.maps import with_map

        kept, this = list(each(images)), cast("Scorer", self)
        scores = self.iterate(kept, batch_size, progress, workers)
        return [with_map(this, image, score) for image, score in zip(kept, scores, strict=True)]

    def iterate(
        self,
        images: Iterable[ImageSource],
        batch_size: int,
        progress: Callable[[int], None] | None = None,
        workers: int = 2,
    ) -> Iterator[Score]:
        """As :meth:`score`, one at a time; memory does not grow with the number of images."""
        items, begun, done = iter(images), 0, 0
        batches = iter(lambda: list(islice(items, batch_size)), [])

        def started() -> Iterator[tuple[Sequence[ImageSource], Waiting]]:
            nonlocal begun
            for batch, prepared in overlapped(batches, self.prepare, workers):
                yield batch, self.start(prepared, [_name(x, begun + i) for i, x in enumerate(batch)])
                begun += len(batch)

        for batch, scores in in_turn(started(), self.is_asynchronous):
            yield from scores
            done += len(batch)
            if progress is not None:
                progress(done)

    def prepare(self, image: ImageSource) -> Prepared:
        """What :meth:`score_prepared` takes, of anything that :meth:`score` takes; for use in threads.

        Returns:
            (3, H, W) or (V, 3, H, W) uint8, or why the image cannot be read.
        """
        view, preprocess = self.network.view, self.network.preprocess
        try:
            if is_video(image):
                return load_levels(image, view, preprocess)
            whole = load_image(image, colour=view.colour)
            return self.noted(view.cut(whole, preprocess), whole.width, whole.height)
        except ImageDecodeError as error:
            return error

    def noted(self, made: Tensor, width: int, height: int) -> Tensor:
        """What was made of an image, (3, H, W) or (V, 3, H, W), noted where it is smaller than the training images."""
        if min(width, height) < self.network.smallest:
            vars(made)[_NOTE] = (
                f"{width}x{height} pixels: smaller than the images that the model was trained on "
                f"({self.network.smallest} pixels and more)"
            )
        return made

    @property
    def is_asynchronous(self) -> bool:
        """Whether the device goes on computing while Python gets the next batch ready."""
        return self.network.device.type == "cuda"

    def score_prepared(self, prepared: Sequence[Prepared], names: Sequence[str]) -> list[Score]:
        """One score for each of what :meth:`prepare` returned, under the names given; one batch."""
        return self.start(prepared, names)()

    @torch.inference_mode()
    def start(self, prepared: Sequence[Prepared], names: Sequence[str]) -> Waiting:
        """Begin what :meth:`score_prepared` does; what is returned waits for the scores.

        A GPU computes meanwhile, so the next batch can be put together before the scores of this one are fetched.
        """
        found: dict[int, Score] = {}
        good = []
        for i, item in enumerate(prepared):
            if isinstance(item, Tensor):
                good.append((i, item))
            else:
                found[i] = Score(None, error=str(item), path=names[i], model=self.name)
        # Native-size views differ in shape; equal ones still go through together.
        by_shape = sorted(good, key=lambda pair: tuple(pair[1].shape))
        outputs: list[tuple[tuple[int, ...], tuple[Tensor, ...], Prediction]] = []
        for _, same in groupby(by_shape, key=lambda pair: tuple(pair[1].shape)):
            positions, tensors = zip(*same, strict=True)
            try:
                outputs.append((positions, tensors, self._predict(self._gathered(tensors))))
            except (ConfigError, RuntimeError) as error:
                if not self._native or isinstance(error, torch.OutOfMemoryError):
                    raise
                reason = _too_odd(tensors[0], error)
                found |= {i: Score(None, error=reason, path=names[i], model=self.name) for i in positions}

        def finish() -> list[Score]:
            for positions, tensors, out in outputs:
                mine = self._scores(out, [names[i] for i in positions])
                for i, tensor, score in zip(positions, tensors, mine, strict=True):
                    found[i] = replace(score, warning=vars(tensor).get(_NOTE, ""))
            return [found[i] for i in range(len(prepared))]

        return finish

    def _gathered(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """A batch in [0, 1] on the network's device; to a GPU through memory that it reads while Python goes on."""
        device = self.network.device
        if device.type != "cuda":
            return unit(torch.stack(tensors).to(device))
        shape = (len(tensors), *tensors[0].shape)
        locked = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        return unit(torch.stack(tensors, out=locked).to(device, non_blocking=True))

    @property
    def _native(self) -> bool:
        """Whether the model sees images of any size, so that it may refuse one and take the next."""
        resized = self.network.view.resized(self.network.preprocess)
        return resized is not None and resized.resize == "none"

    def _predict(self, image: Tensor) -> Prediction:
        if self.encode is not None:
            return self.network.predict_batch(Batch(features=self.encode(image)))
        if self.autocast is None or not isinstance(self.network, BackboneNetwork):
            with _all_digits(image.device):
                return self.network.predict_batch(Batch(image=image))
        with torch.autocast(image.device.type, self.autocast):
            features = self.network.features(Batch(image=image))
        # The encoder is nearly all of the work; its head keeps full precision.
        return self.network.predict_batch(Batch(features=features.float()))

    def _scores(self, out: Prediction, names: Sequence[str]) -> list[Score]:
        """One score a row. Each tensor is fetched from the device once: to fetch a number takes as long."""
        values = out.score.tolist()
        stds = [None] * len(values) if out.std is None else out.std.tolist()
        texts = out.texts if out.texts is not None else [""] * len(values)
        why: list[Explanation] = [()] * len(values)
        if out.weights is not None:
            why = self.network.explain(out.weights)
        error = (
            "the model gave no finite score" if out.texts is None else "no score can be parsed from the text"
        )
        return [
            Score(value, std=std, path=name, model=self.name, explanation=explanation, text=text)
            if math.isfinite(value)
            else Score(None, error=error, path=name, model=self.name, text=text)
            for value, std, name, explanation, text in zip(values, stds, names, why, texts, strict=True)
        ]
