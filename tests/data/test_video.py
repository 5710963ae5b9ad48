"""Videos: which frames, from which containers, what is refused, and one score of many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="the extra 'video' is not installed")

import av
import torch
from PIL import Image

from rali_zoo.cli.main import main
from rali_zoo.data.images import load_levels, load_views
from rali_zoo.data.sources import Item, find_items
from rali_zoo.data.video import (
    Clip,
    is_video,
    pool_frames,
    pool_scores,
    sample_frames,
    score_video,
)
from rali_zoo.errors import ConfigError, ImageDecodeError
from rali_zoo.scoring.pipeline import make_stages, run, slices
from rali_zoo.types import Preprocess, Score
from rali_zoo.views import View

FRAMES = 40


def write(
    path: Path, codec: str = "libx264", frames: int = FRAMES, gop: int = 12, rate: int = 10, **options
) -> Path:
    """A video whose right half tells the number of the frame: 20 + 5 n; the left half is half as bright."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", gop
        stream.bit_rate = 400_000
        for number in range(frames):
            pixels = np.full((48, 64, 3), 20 + 5 * number, np.uint8)
            pixels[:, :32] //= 2
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def number(image: Image.Image) -> float:
    return (float(np.asarray(image)[:, 40:].mean()) - 20) / 5


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("videos") / "clip.mp4", movflags="faststart")


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.mp4", "libx264", 10), ("b.mkv", "libx264", 10), ("c.webm", "libvpx-vp9", 10),
        ("d.ts", "libx264", 10), ("e.avi", "mpeg4", 10), ("f.avi", "libx264", 10),
        ("g.mpg", "mpeg2video", 25), ("h.mov", "mpeg4", 10),
    ],
)  # fmt: skip
def test_frames_lie_in_the_middle_of_equal_spans_in_any_container(name, codec, rate, tmp_path):
    path = write(tmp_path / name, codec, rate=rate)
    assert is_video(path)
    for source in (path, path.read_bytes()):
        found = [number(frame) for frame in sample_frames(source)]
        assert found == pytest.approx([2, 7, 12, 17, 22, 27, 32, 37], abs=0.8)  # codecs are lossy
    keys = [number(frame) for frame in sample_frames(path, Clip(frames=3, sampling="keyframes"))]
    assert len(keys) == 3 and keys == sorted(keys)


def test_long_videos_are_sought_and_short_ones_seen_whole(tmp_path):
    path = write(tmp_path / "long.mp4", gop=5)
    assert [round(number(f)) for f in sample_frames(path, Clip(frames=1))] == [20]
    assert [round(number(f)) for f in sample_frames(path, Clip(frames=500))] == list(range(FRAMES))
    one = write(tmp_path / "one.mp4", frames=1)
    assert len(sample_frames(one)) == 1


def test_a_phone_held_upright_gives_upright_frames(clip, tmp_path):
    """The display matrix of an mp4 track, as phones write it: the header says how the pixels stand."""
    data = bytearray(clip.read_bytes())
    place = data.index(b"tkhd") + 4 + 40  # matrix of version 0
    quarter = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]  # 90 degrees clockwise
    data[place : place + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in quarter)
    (frame,) = sample_frames(bytes(data), Clip(frames=1))
    assert frame.size == (48, 64)
    rows = np.asarray(frame).mean(axis=(1, 2))
    assert rows[:20].mean() < rows[-20:].mean()  # the dark left half is on top after a turn to the right


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_a_video_that_was_cut_off_is_refused_with_the_same_words(clip, share):
    data = clip.read_bytes()
    reasons = set()
    for _ in range(2):
        with pytest.raises(ImageDecodeError) as caught:
            sample_frames(data[: int(share * len(data))])
        reasons.add(str(caught.value))
    assert len(reasons) == 1 and " at 0x" not in reasons.pop()


def test_what_is_no_video_is_refused(tmp_path, monkeypatch, clip):
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "list.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{clip}\n#EXT-X-ENDLIST\n"
    )
    for path, words in ((tmp_path, "folder"), (tmp_path / "no.mp4", "no such file")):
        with pytest.raises(ImageDecodeError, match=words):
            sample_frames(path)
    for name in ("text.mp4", "list.mp4"):  # a playlist must not make FFmpeg open what it names
        with pytest.raises(ImageDecodeError, match="Invalid data"):
            sample_frames(tmp_path / name)
    monkeypatch.setattr("rali_zoo.data.images.MAX_PIXELS", 1000)
    with pytest.raises(ImageDecodeError, match="64x48 is 3,072 pixels a frame"):
        sample_frames(clip)
    for bad in ({"frames": 0}, {"sampling": "random"}, {"pooling": "max"}):
        with pytest.raises(ConfigError):
            Clip(**bad)


def test_garbage_in_the_middle_never_crashes(clip):
    rng, data = np.random.default_rng(0), clip.read_bytes()
    for _ in range(30):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 40):
            broken[place] = rng.integers(256)
        try:
            assert all(frame.size in ((64, 48), (48, 64)) for frame in sample_frames(bytes(broken)))
        except ImageDecodeError as error:
            assert str(error)


def test_pooling_by_hand():
    values = [1.0, 2.0, 4.0, 4.0, 5.0]
    assert pool_scores(values) == pytest.approx(3.2)
    assert pool_scores(values, "harmonic") == pytest.approx(5 / (1 + 0.5 + 0.25 + 0.25 + 0.2))
    assert pool_scores(values, "worst") == 1.0
    with pytest.raises(ValueError):
        pool_scores([])
    found = pool_frames([Score(2.0, std=0.3), Score(4.0, std=0.4)], "mean", "v.mp4")
    assert (found.score, found.path) == (3.0, "v.mp4") and found.std == pytest.approx((0.125 + 1) ** 0.5)
    failed = pool_frames([Score(2.0), Score(None, error="too small")], "mean", "v.mp4")
    assert failed.score is None and failed.error == "frame 2 of 2: too small"


class Brightness:
    """Someone else's metric of images: 1 + brightness / 64."""

    name, revision, training_sets = "brightness", "1", ()

    def score(self, images, batch_size=16, progress=None):
        assert all(isinstance(image, Image.Image) for image in images)
        return [
            Score(1 + float(np.asarray(image).mean()) / 64, path=f"[{i}]") for i, image in enumerate(images)
        ]


def test_videos_and_images_share_a_run(clip, tmp_path, photo_folder):
    photo_folder(2, tmp_path)
    (tmp_path / "m.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "n.mp4").write_bytes(b"broken")
    items = [item for item in find_items([str(tmp_path)])]
    assert [Path(item.path).name for item in items] == ["m.mp4", "n.mp4", "photo000.png", "photo001.png"]
    videos = [item for item in items if item.path.endswith("mp4")]
    scores = [s for _, part in run(slices([(0, videos)], 3), make_stages(Brightness()), 2) for s in part]
    expected = 1 + np.mean([np.asarray(f).mean() for f in sample_frames(clip)]) / 64
    assert scores[0].score == pytest.approx(expected) and scores[0].path == items[0].path
    assert scores[1].score is None and "cannot be decoded" in scores[1].error
    assert score_video(Brightness(), clip).score == pytest.approx(expected)
    assert score_video(Brightness(), b"broken").error is not None


def test_a_module_scores_a_video_as_the_mean_of_its_frames(clip, tmp_path, photo_folder):
    from rali_zoo.types import Batch
    from rali_zoo.zoo import load_model

    scorer = load_model("rali-tiny-synthetic")
    (image,) = photo_folder(1, tmp_path)
    items = [Item(str(image)), Item(str(clip)), Item("nowhere.mp4")]
    found = [s for _, part in run(slices([(0, items)], 2), make_stages(scorer), 2) for s in part]
    frames = scorer.score(sample_frames(clip))
    assert found[1].score == pytest.approx(np.mean([s.score for s in frames]), abs=1e-5)
    assert found[1].std == pytest.approx(
        np.sqrt(np.mean([s.std**2 for s in frames]) + np.var([s.score for s in frames])), abs=1e-5
    )
    assert found[0].score == pytest.approx(scorer.score([str(image)])[0].score, abs=1e-6)
    assert "no such file" in found[2].error
    worst = make_stages(scorer, clip=Clip(pooling="worst"))
    (low,) = [s for _, part in run(slices([(0, items[1:2])], 2), worst, 2) for s in part]
    assert low.score == pytest.approx(np.mean(sorted(s.score for s in frames)[:2]), abs=1e-5)
    # The frames as views: what a data set of videos gives a module to train on and to be tested with.
    views = load_views(clip, scorer.network.view, scorer.network.preprocess)
    with torch.inference_mode():
        out = scorer.network.predict_batch(Batch(image=views[None]))
    assert out.score.item() == pytest.approx(found[1].score, abs=1e-5)
    assert out.std.item() == pytest.approx(found[1].std, abs=1e-4)


def test_views_of_images_stay_as_they_are(clip, tmp_path, photo_folder):
    (image,) = photo_folder(1, tmp_path)
    preprocess = Preprocess((32, 32))
    assert load_levels(image, View(), preprocess).shape == (3, 32, 32)
    assert load_levels(clip, View(), preprocess, Clip(frames=5)).shape == (5, 3, 32, 32)
    assert load_levels(clip, View("grid", crops=2), preprocess, Clip(frames=5)).shape == (10, 3, 32, 32)


def test_the_command_gives_a_row_a_video(clip, tmp_path):
    import pandas as pd

    (tmp_path / "bad.mp4").write_bytes(clip.read_bytes()[:900])
    output = tmp_path / "scores.csv"
    words = [str(clip), str(tmp_path / "bad.mp4"), "--model", "rali-tiny-synthetic", "--output", str(output)]
    assert main(["score", *words]) == 0
    table = pd.read_csv(output)
    assert table["path"].tolist() == [str(clip), str(tmp_path / "bad.mp4")]
    assert 1 <= table["score"][0] <= 5 and np.isnan(table["score"][1]) and table["error"][1]


# ---- how long a video is ---------------------------------------------------------------------------------


def held(
    path: Path, durations: list[int], sound: float = 0, codec: str = "libx264", voice: str = "aac"
) -> Path:
    """Frames shown for so many milliseconds each, and so many seconds of sound beside them."""
    from fractions import Fraction

    from av.codec.context import Flags

    clock, start = Fraction(1, 1000), 0
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.time_base = video.codec_context.time_base = clock
        video.codec_context.flags |= Flags.frame_duration
        video.codec_context.max_b_frames = 0  # the last frame in the file is the last one shown
        audio = container.add_stream(voice, rate=48000) if sound else None
        for number, lasts in enumerate(durations):
            pixels = np.full((48, 64, 3), 20 + 5 * (number % 40), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base, frame.duration = start, clock, lasts
            container.mux(video.encode(frame))
            start += lasts
        container.mux(video.encode(None))
        if audio is not None:
            for place in range(0, int(48000 * sound), 960):
                wave = np.zeros((1, 960), np.int16)
                part = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
                part.sample_rate, part.pts, part.time_base = 48000, place, Fraction(1, 48000)
                container.mux(audio.encode(part))
            container.mux(audio.encode(None))
    return path


@pytest.mark.parametrize(("name", "durations", "sound", "codec", "voice"), [
    ("audio_longer.mkv", [40] * 50, 5, "libx264", "aac"),
    ("audio_longer.mp4", [40] * 50, 5, "libx264", "aac"),
    ("audio_longer.webm", [40] * 50, 5, "libvpx", "libopus"),
    ("audio_shorter.mkv", [40] * 50, 1, "libx264", "aac"),
    ("held.mp4", [40] * 50 + [8000], 0, "libx264", ""),
    ("held.mkv", [40] * 50 + [8000], 0, "libx264", ""),
    ("slides.mp4", [1000, 1000, 1000, 20000], 0, "libx264", ""),
    ("screen.webm", [100, 50, 300, 40, 40, 40, 900, 40, 6000], 0, "libvpx", ""),
])  # fmt: skip
def test_a_video_lasts_as_long_as_its_own_stream(name, durations, sound, codec, voice, tmp_path):
    path = held(tmp_path / name, durations, sound, codec, voice)
    assert 1 <= len(sample_frames(path)) <= 8
    data = path.read_bytes()
    if "audio_longer" not in name or path.suffix != ".mp4":  # there the end of the file is sound alone
        with pytest.raises(ImageDecodeError):
            sample_frames(data[: len(data) * 3 // 5])


def test_the_last_frame_counts_for_as_long_as_it_is_shown(tmp_path):
    frames = sample_frames(held(tmp_path / "slides.mp4", [100] * 10 + [9000]), Clip(frames=2))
    assert [round(number(f)) for f in frames] == [10]
