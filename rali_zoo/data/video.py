"""Videos as a handful of frames: which ones, decoded to images, and one score of theirs.

A video is judged like an image, frame by frame; what only shows in motion (judder, freezes, flicker between
the frames that were looked at) is not seen. Frames are decoded by FFmpeg through PyAV, the extra ``video``.

What is decided here:

- The first video stream counts. Frames are turned upright as the stream's display matrix says.
- Colours are converted by the matrix that the frame names; high dynamic range is not tone-mapped, and pixels
  that are not square stay as they are stored.
- A video lasts as long as its own stream says, to the end of its last frame; sound and subtitles do not count.
- A file that ends before its header says, or breaks in the middle, is an error and not a shorter video.
"""

from __future__ import annotations

import bisect
import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from rali_zoo.data.formats import VIDEO_SUFFIXES
from rali_zoo.errors import ConfigError, ImageDecodeError, ImageUnavailableError
from rali_zoo.types import Score

if TYPE_CHECKING:
    from PIL import Image

    from rali_zoo.protocols import Scorer


Sampling = Literal["uniform", "keyframes"]
Pooling = Literal["mean", "harmonic", "worst"]

_WORST = 0.2  # share of the frames that the pooling ``worst`` looks at
_WHOLE = 0.9  # share of the time that a header states, below which a file was cut off
#: Demuxers that find the key frame they are asked for; others are decoded from the beginning.
_SEEKABLE = ("mov", "matroska", "mpegts")
# Containers only: a playlist that is called .mp4 would make FFmpeg fetch what it names.
_OPEN = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,avi,mpegts,mpeg,mpegvideo,yuv4mpegpipe",
}


@dataclass(frozen=True)
class Clip:
    """How a video becomes images, and their scores one score.

    Attributes:
        frames: how many are looked at; fewer where the video has fewer.
        sampling: ``uniform`` = in the middle of equal spans of time; ``keyframes`` = of those frames that are
            coded on their own, evenly many: much faster on long videos, and often a little better coded.
        pooling: ``mean``; ``harmonic`` = harmonic mean, which low scores pull down; ``worst`` = mean of the
            worst fifth (Moorthy and Bovik, "Visual importance pooling", 2009, do so over space).

    Raises:
        ConfigError: no frame, or a word that is not known.
    """

    frames: int = 8
    sampling: Sampling = "uniform"
    pooling: Pooling = "mean"

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ConfigError(f"{self.frames} frames of a video: give at least 1")
        for word, known in ((self.sampling, get_args(Sampling)), (self.pooling, get_args(Pooling))):
            if word not in known:
                raise ConfigError(f"a video has no {word!r}; it is one of {', '.join(known)}")


def is_video(source: object) -> bool:
    """Whether a path is taken for a video, by its suffix alone."""
    return isinstance(source, str | Path) and Path(source).suffix.lower() in VIDEO_SUFFIXES


# ---- frames ---------------------------------------------------------------------------------


def sample_frames(source: str | Path | bytes, clip: Clip | None = None) -> list[Image.Image]:
    """Decode the frames of a video that are looked at.

    Args:
        source: a path, or the bytes of a file.
        clip: which frames; 8, evenly spread over time, by default.

    Returns:
        RGB images, in the order of time.

    Raises:
        ImageDecodeError: what is wrong with this one video, or that PyAV is not installed; the same text in
            every run.
    """
    try:
        import av  # noqa: F401 (whether it is there)
    except ImportError:
        raise ImageUnavailableError("videos need PyAV: pip install 'rali-zoo[video]'") from None
    clip = clip or Clip()
    try:
        with _opened(source) as (container, stream):
            index = _index(container, stream)
        with _opened(source) as (container, stream):
            only_keys = clip.sampling == "keyframes"
            if container.format.name.startswith(_SEEKABLE) and index.exact:
                times = [key.time for key in index.keys] if only_keys else index.times
                return list(_sought(container, stream, _wanted(times, index.end, clip.frames), index))
            return list(_in_order(container, stream, clip.frames, index, only_keys))
    except ImageDecodeError:
        raise
    except Exception as error:  # a decoder fed with garbage raises nearly anything
        from rali_zoo.data.images import as_decode_error

        raise as_decode_error(error) from error


@contextmanager
def _opened(source: str | Path | bytes) -> Iterator[tuple[Any, Any]]:
    """Container and first video stream of a file."""
    import av

    from rali_zoo.data.images import MAX_PIXELS  # which brings NumPy along

    with av.open(_openable(source), options=_OPEN, metadata_errors="ignore") as container:
        if not container.streams.video:
            raise ImageDecodeError("the file has no video in it")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise ImageDecodeError("the video's codec is not known")
        width, height = stream.width, stream.height
        if not 0 < width * height <= MAX_PIXELS:
            raise ImageDecodeError(
                f"{width}x{height} is {width * height:,} pixels a frame; the limit is {MAX_PIXELS:,}"
            )
        stream.codec_context.thread_count = 1  # whoever scores many videos has threads of their own
        yield container, stream


def _openable(source: str | Path | bytes) -> str | io.BytesIO:
    from rali_zoo.data.images import open_regular

    if isinstance(source, bytes):
        _refuse_cut_matroska(io.BytesIO(source), len(source))
        return io.BytesIO(source)
    with open_regular(source) as file:
        _refuse_cut_matroska(file, os.fstat(file.fileno()).st_size)
    return f"file:{os.path.abspath(source)}"


def _refuse_cut_matroska(file: IO[bytes], size: int) -> None:
    """Matroska states the duration of the whole file, sound included; whether it is whole, its lengths show."""
    head = file.read(4096)
    place = head.find(b"\x18\x53\x80\x67")  # the one Segment, behind a short header
    if head[:4] != b"\x1a\x45\xdf\xa3" or place < 0 or place + 12 > len(head):
        return
    first = head[place + 4]
    width = 9 - first.bit_length()  # bytes of a variable-length number: leading zero bits, and one
    if not 1 <= width <= 8:
        return
    length = int.from_bytes(head[place + 4 : place + 4 + width], "big") & ((1 << 7 * width) - 1)
    declared = place + 4 + width + length
    if length != (1 << 7 * width) - 1 and declared > size:  # all ones: a stream that was written as it came
        raise ImageDecodeError(f"the file ends after {size:,} of {declared:,} bytes")


class _Key(NamedTuple):
    """A frame that is coded on its own."""

    time: int  #: when it is shown
    decoded: int  #: when it is decoded, which is what a container is searched by


class _Index(NamedTuple):
    """What a container states of its frames, in units of the stream."""

    times: list[int]  #: when each is shown
    end: float  #: when the last one is no longer shown
    keys: list[_Key]  #: in the order of time
    exact: bool  #: whether the times are those that the decoder will tell


def _index(container: Any, stream: Any) -> _Index:
    """All packets of the stream, without decoding any."""
    times: list[int] = []
    keys: list[_Key] = []
    exact, last, lasts = True, -math.inf, 0
    for packet in container.demux(stream):
        # Some containers (AVI) tell only when a frame is decoded.
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None or packet.size == 0 or packet.is_discard:
            continue
        exact &= packet.pts is not None
        times.append(time)
        if time > last:
            last, lasts = time, packet.duration or 0
        if packet.is_keyframe:
            keys.append(_Key(time, time if packet.dts is None else packet.dts))
    if not times or not keys:
        raise ImageDecodeError("the video has no frame that can be decoded")
    times.sort()
    mean = (times[-1] - times[0]) / max(len(times) - 1, 1)
    index = _Index(times, times[-1] + (lasts or mean), sorted(keys), exact)
    base = float(stream.time_base)
    seconds, declared = (index.end - times[0]) * base, (stream.duration or 0) * base
    if len(times) > 1 and seconds < _WHOLE * declared:
        raise ImageDecodeError(f"the file ends after {seconds:.1f} of {declared:.1f} s")
    return index


def _wanted(times: Sequence[int], end: float, count: int) -> list[int]:
    """Times of the frames on show in the middle of ``count`` equal spans up to ``end``; each frame once."""
    if len(times) <= count:
        return list(times)
    middles = (times[0] + (end - times[0]) * (i + 0.5) / count for i in range(count))
    return sorted({times[bisect.bisect_right(times, middle) - 1] for middle in middles})


def _sought(container: Any, stream: Any, wanted: Sequence[int], index: _Index) -> Iterator[Image.Image]:
    """The frames of the times that are wanted; the decoder jumps where a key frame lies between two."""
    shown: Iterator[Any] = iter(())
    at = -math.inf  # time of the last frame that came out
    for time in wanted:
        key = index.keys[max(bisect.bisect_right(index.keys, time, key=lambda k: k.time) - 1, 0)]
        if key.time > at:
            container.seek(key.decoded, stream=stream, backward=True)
            shown = container.decode(stream)
        frame = next((f for f in shown if f.pts is not None and f.pts >= time), None)
        if frame is None or frame.pts != time or frame.is_corrupt:
            seconds = (time - index.times[0]) * float(stream.time_base)
            raise ImageDecodeError(f"the data are damaged: no whole frame at {seconds:.1f} s")
        at = time
        yield _upright(frame)


def _in_order(
    container: Any, stream: Any, count: int, index: _Index, only_keys: bool
) -> Iterator[Image.Image]:
    """As many frames, by their number, for containers whose times are not to be relied on."""
    numbers = range(len(index.keys if only_keys else index.times))
    wanted = set(_wanted(numbers, len(numbers), count))
    number = 0
    for frame in container.decode(stream):
        if only_keys and not frame.key_frame:
            continue
        if number in wanted:
            if frame.is_corrupt:
                raise ImageDecodeError(f"the data are damaged: frame {number + 1} is not whole")
            wanted.discard(number)
            yield _upright(frame)
        number += 1
        if not wanted:
            return
    raise ImageDecodeError(f"the data are damaged: only {number} frames can be decoded")


def _upright(frame: Any) -> Image.Image:
    from PIL import Image

    image: Image.Image = frame.to_image()
    quarters = round(frame.rotation / 90) % 4  # counterclockwise, as Pillow turns
    turns = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
    turn = turns[quarters]
    return image if turn is None else image.transpose(turn)


# ---- scores ---------------------------------------------------------------------------------


def pool_scores(scores: Sequence[float], pooling: Pooling = "mean") -> float:
    """One score of the scores of frames, see :class:`Clip`.

    Args:
        scores: in [1, 5], at least one.
        pooling: how.

    Raises:
        ValueError: no score.
    """
    if not scores:
        raise ValueError("no score to pool")
    if pooling == "harmonic":
        return len(scores) / sum(1 / s for s in scores)
    kept = sorted(scores)[: max(1, round(_WORST * len(scores)))] if pooling == "worst" else scores
    return sum(kept) / len(kept)


def pool_frames(scores: Sequence[Score], pooling: Pooling, path: str) -> Score:
    """The score of a video of those of its frames.

    Its ``std`` is that of a frame drawn at random: the frames' own uncertainty and how far they lie apart, as
    for several views of an image; ``None`` where the scorer has none. A frame without a score is an error.

    Args:
        scores: of the frames, at least one.
        pooling: how they become one.
        path: name of the video.
    """
    model = scores[0].model
    for number, score in enumerate(scores):
        if score.error is not None or score.score is None:
            return Score(
                None, error=f"frame {number + 1} of {len(scores)}: {score.error}", path=path, model=model
            )
    values = [s.score for s in scores if s.score is not None]
    variances = [s.std**2 for s in scores if s.std is not None]
    std = None
    if len(variances) == len(values):
        mean = sum(values) / len(values)
        std = math.sqrt(sum(variances) / len(values) + sum((v - mean) ** 2 for v in values) / len(values))
    return Score(pool_scores(values, pooling), std=std, path=path, model=model)


def score_video(
    scorer: Scorer, source: str | Path | bytes, clip: Clip | None = None, batch_size: int = 16
) -> Score:
    """Score one video with any scorer of images.

    Args:
        scorer: such as :func:`rali_zoo.load_model` returns.
        source: a path, or the bytes of a file.
        clip: which frames, and how they are pooled.
        batch_size: frames a forward pass.

    Returns:
        A score with ``error`` for a video that cannot be decoded.
    """
    clip = clip or Clip()
    path = "[0]" if isinstance(source, bytes) else str(source)
    try:
        frames = sample_frames(source, clip)
    except ImageDecodeError as error:
        return Score(None, error=str(error), path=path, model=scorer.name)
    return pool_frames(scorer.score(frames, batch_size=batch_size), clip.pooling, path)
