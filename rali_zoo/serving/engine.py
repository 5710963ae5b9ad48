"""Images from many callers to one model: decoded beside it, scored in batches of what is waiting."""

from __future__ import annotations

import io
import logging
import queue
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from PIL import Image

from rali_zoo.errors import ConfigError, ImageDecodeError, RaliZooError
from rali_zoo.serving.decoding import DecodePool, SentImage
from rali_zoo.types import Score

if TYPE_CHECKING:
    from rali_zoo.protocols import Scorer

_log = logging.getLogger(__name__)
_WARM_UP_SECONDS = 300.0


@dataclass(frozen=True)
class Limits:
    """What is taken from a caller.

    Attributes:
        images: in a request.
        megabytes: of a request (MB of 1,000,000 bytes).
        megapixels: of an image; read from its header before anything is decoded.
        waiting_megabytes: of all images that wait; more are turned away.
        decode_seconds: that an image may take to decode.
        seconds: that a request may take to arrive, and again to be answered.
    """

    images: int = 32
    megabytes: int = 64
    megapixels: int = 64
    waiting_megabytes: int = 512
    decode_seconds: float = 10.0
    seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ConfigError(f"the limit {name} is {value:g}; it must be above 0")


class BusyError(RaliZooError):
    """More images are waiting than the service holds; try again later."""


class Upload(NamedTuple):
    """A file that somebody sent: ``name`` is only repeated to them, never opened."""

    name: str
    data: bytes


class Answer(NamedTuple):
    """What became of an image.

    Attributes:
        score: of it, or why there is none.
        width: in pixels, upright; 0 where it could not be decoded.
        height: in pixels, upright; 0 where it could not be decoded.
        preview: a small JPEG; empty if none was asked for.
        overlay: the same with the map of the score on it; empty where it has none.
    """

    score: Score
    width: int = 0
    height: int = 0
    preview: bytes = b""
    overlay: bytes = b""


@dataclass
class _Job:
    upload: Upload
    answer: Future[Answer] = field(default_factory=Future)
    decoded: SentImage | None = None
    prepared: Any = None


class Engine:
    """Scores images for many callers at once.

    While the model computes one batch the next gathers, so batches grow with the load, and a single image
    waits for nobody.

    Args:
        scorer: a no-reference scorer.
        limits: what is taken.
        batch_size: most images a forward pass.
        workers: processes that decode, and threads that cut.
        preview: longer side of the small copies in the answers, in pixels; 0 for none.
        attributes: whether scores get what is measured on their images, which are those that were decoded apart.

    Raises:
        ConfigError: a scorer that needs more than an image, or looks at none.
    """

    def __init__(
        self,
        scorer: Scorer,
        limits: Limits | None = None,
        batch_size: int = 16,
        workers: int = 2,
        preview: int = 0,
        attributes: bool = False,
    ) -> None:
        from rali_zoo.scoring.attributes import measured
        from rali_zoo.scoring.pipeline import make_stages

        if batch_size < 1 or workers < 1:
            raise ConfigError("--batch_size and --workers are at least 1")
        _check(scorer)
        self.scorer, self.limits = scorer, limits or Limits()
        self.revision = scorer.revision  #: of the scorer, which may be a hash of all weights
        stages = make_stages(scorer)
        self.stages, self.batch_size = measured(stages) if attributes else stages, batch_size
        self.batches = 0  #: forward passes so far
        self.scored = 0  #: images that went through the model so far
        self._waiting = self._pending = 0
        self._moved = time.monotonic()  # when an image was last answered, or came where none waited
        self._held: Counter[str] = Counter()  # bytes of each client's images that wait
        # clients that have requests, and those requests, with images that are not decoded yet
        self._turns: OrderedDict[str, deque[deque[_Job]]] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = False
        self._ready: queue.Queue[_Job | None] = queue.Queue()
        pixels, seconds = self.limits.megapixels * 1_000_000, self.limits.decode_seconds
        self._decode = DecodePool(workers, pixels, seconds, preview, scorer.colour)
        self._preparing = ThreadPoolExecutor(workers, "prepare")
        self._model = threading.Thread(target=self._run, name="model", daemon=True)
        self._model.start()

    @property
    def alive(self) -> bool:
        """Whether images are taken, the decoders and the model run, and what waits gets on."""
        stalled = self._pending > 0 and time.monotonic() - self._moved > self.limits.seconds
        return not (self._closed or stalled) and self._model.is_alive() and self._decode.alive

    @property
    def waiting(self) -> int:
        """Bytes of the images that wait."""
        return self._waiting

    def submit(self, uploads: Sequence[Upload], client: str = "") -> list[Future[Answer]]:
        """Take the images of one request, all or none.

        Args:
            uploads: the images.
            client: who asks. Clients take turns at the decoders, image by image, and so do the requests of one;
                while something waits, one client's images take up half of the room at most.

        Returns:
            One future an image, in order. An image that cannot be read is an answer with the reason.

        Raises:
            BusyError: too much is waiting, or the engine is closed.
        """
        size = sum(len(upload.data) for upload in uploads)
        with self._lock:
            if self._closed:
                raise BusyError("the service is stopping")
            room, held = self.limits.waiting_megabytes * 1_000_000, self._held[client]
            if self._waiting and self._waiting + size > room:
                raise BusyError(f"{self._waiting / 1e6:.0f} MB of images are waiting; try again in a moment")
            if client and held and held + size > room // 2:
                raise BusyError(f"{held / 1e6:.0f} MB of your images are waiting; try again in a moment")
            self._waiting += size
            self._held[client] += size
            self._moved = time.monotonic() if self._pending == 0 else self._moved
            self._pending += len(uploads)
            jobs = [_Job(upload) for upload in uploads]
            self._turns.setdefault(client, deque()).append(deque(jobs))
            for job in jobs:
                job.answer.add_done_callback(partial(self._leave, job, client, len(job.upload.data)))
                self._preparing.submit(self._prepare_next)
        return [job.answer for job in jobs]

    def warm_up(self) -> None:
        """Score a grey image, so that the first caller does not wait for processes to start."""
        buffer = io.BytesIO()
        Image.new("RGB", (512, 384), (128, 128, 128)).save(buffer, "PNG")
        for future in self.submit([Upload("grey.png", buffer.getvalue())]):
            future.result(_WARM_UP_SECONDS)

    def close(self) -> None:
        """Take nothing more, answer what waits with an error, end threads and processes."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._decode.close()
        self._preparing.shutdown(wait=True)
        self._ready.put(None)
        self._model.join()

    def _leave(self, job: _Job, client: str, size: int, _: Future[Answer]) -> None:
        job.upload = Upload(job.upload.name, b"")  # a cancelled job stays in line, but not its bytes
        with self._lock:
            self._waiting -= size
            self._held[client] -= size
            if not self._held[client]:
                del self._held[client]
            self._pending -= 1
            self._moved = time.monotonic()

    def _prepare_next(self) -> None:
        """In a thread: one image of the client whose turn it is, so that nobody's many hold up others' few."""
        with self._lock:
            client, requests = self._turns.popitem(last=False)
            request = requests.popleft()
            job = request.popleft()
            if request:
                requests.append(request)
            if requests:
                self._turns[client] = requests
        self._prepare(job)

    def _prepare(self, job: _Job) -> None:
        """In a thread: bytes to what the model takes."""
        if not job.answer.set_running_or_notify_cancel():
            return  # whoever asked has gone
        try:
            job.decoded = self._decode(job.upload.data)
            image = job.decoded.image()
            job.decoded = job.decoded._replace(pixels=b"")
            job.prepared = self.stages.prepare(cast("Any", _Held(job.upload.name, image)))
        except ImageDecodeError as error:
            job.prepared = error
        except Exception as error:
            _log.exception("preparing an image failed")
            job.prepared = ImageDecodeError(_failed(error))
        self._ready.put(job)

    def _run(self) -> None:
        """In the model's thread: batches of what is there."""
        while (job := self._ready.get()) is not None:
            batch, last = [job], False
            while len(batch) < self.batch_size and not last:
                try:
                    more = self._ready.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                else:
                    batch.append(more)
            self._score(batch)
            if last:
                return

    def _score(self, batch: list[_Job]) -> None:
        try:
            scores = self.stages.score([job.prepared for job in batch], [job.upload.name for job in batch])
        except Exception as error:
            if len(batch) > 1:  # an image that the model cannot take is not to fail its neighbours
                for job in batch:
                    self._score([job])
                return
            _log.exception("the model failed")
            name = batch[0].upload.name
            scores = [Score(None, error=_failed(error), path=name, model=self.scorer.name)]
        self.batches += 1
        self.scored += len(batch)
        for job, score in zip(batch, scores, strict=True):
            shape = (0, 0, b"") if job.decoded is None else job.decoded[1:]
            job.answer.set_result(Answer(score, *shape))


class _Held(NamedTuple):
    """A decoded image in the place of a :class:`~rali_zoo.data.sources.Item`."""

    path: str
    image: Image.Image

    def source(self) -> Image.Image:
        return self.image


def _failed(error: Exception) -> str:
    return f"the model failed on it: {(str(error).strip().splitlines() or [type(error).__name__])[0]}"


def _check(scorer: Scorer) -> None:
    """Refuse scorers that an image alone does not serve."""
    from rali_zoo.baselines.csv import TableScorer

    if isinstance(scorer, TableScorer):
        raise ConfigError(f"{scorer.name!r} is a table of scores and looks at no image; give a model")
    if scorer.needs_reference:
        raise ConfigError(f"{scorer.name!r} compares with a reference image; give a no-reference model")


def is_synthetic(scorer: Scorer) -> bool:
    """Whether labels that come from a rule, not from people, took part in the training."""
    return any(name.startswith("synthetic:") for name in scorer.training_sets or ())


def caution(scorer: Scorer) -> str:
    """What a score of this model is not, in a sentence or two."""
    if is_synthetic(scorer):
        return (
            "Trained on synthetic labels, made by a rule instead of people: it tells strong distortions from "
            "weak ones, and is no judge of real photographs, nor of the people in them."
        )
    return (
        "A score says how well an image is reproduced (sharpness, noise, compression, exposure), as the "
        "raters of the training images saw it; nothing of what it shows, nor of the people in it."
    )
