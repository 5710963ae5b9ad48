"""Many callers, one model: batches, limits, and images that harm nobody but themselves."""

from __future__ import annotations

import io
import multiprocessing
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from serving_toys import Brightness, image, misbehave, png_header, until

from rali_zoo.data.colour import _matrix_profile
from rali_zoo.data.images import load_image
from rali_zoo.errors import ConfigError
from rali_zoo.serving import decoding
from rali_zoo.serving.engine import BusyError, Engine, Limits, Upload, caution, is_synthetic


def results(futures):
    return [future.result(60) for future in futures]


def test_one_answer_an_image_in_order(engine):
    made = engine(Limits(megapixels=1), preview=32)
    uploads = [
        Upload("a", image(51)),
        Upload("../../etc/passwd", image(204, "JPEG", 128, 96)),
        Upload("empty", b""),
        Upload("noise", bytes(range(256))),
        Upload("page", b"<!doctype html><p>404"),
        Upload("bomb", png_header(20_000, 20_000)),
        Upload("cut", image(90, "JPEG", 640, 480)[:400]),
        Upload("too large", image(90, width=1001, height=1000)),
    ]
    answers = results(made.submit(uploads))
    assert [a.score.path for a in answers] == [u.name for u in uploads]
    assert [a.score.score for a in answers[:2]] == [pytest.approx(1.8), pytest.approx(4.2, abs=0.02)]
    assert [(a.width, a.height) for a in answers] == [(64, 48), (128, 96)] + [(0, 0)] * 6
    reasons = [
        "the file is empty",
        "no known image format",
        "it is a web page",
        "(400000000 pixels) exceeds limit",
        "cannot be decoded",
        "1001x1000 is 1,001,000 pixels",
    ]
    for answer, reason in zip(answers[2:], reasons, strict=True):
        assert answer.score.score is None and reason in (answer.score.error or "")
    small = Image.open(io.BytesIO(answers[1].preview))
    assert small.format == "JPEG" and small.size == (32, 24) and answers[2].preview == b""
    assert made.waiting == 0


def test_batches_gather_while_the_model_works(engine):
    made = engine(batch_size=4)
    made.scorer.gate.clear()
    first = made.submit([Upload("first", image())])
    assert made.scorer.entered.wait(60)
    rest = made.submit([Upload(str(i), image(i)) for i in range(10, 16)])
    until(lambda: made._ready.qsize() == 6)
    made.scorer.gate.set()
    levels = [answer.score.score for answer in results(first + rest)[1:]]
    assert levels == sorted(levels)
    assert made.scorer.sizes == [1, 4, 2]
    assert (made.batches, made.scored) == (3, 7)


def test_too_much_waiting_is_turned_away(engine):
    made = engine(Limits(waiting_megabytes=1))
    made.scorer.gate.clear()
    large = image() + bytes(700_000)  # what follows the end of a PNG is not looked at
    taken = made.submit([Upload("a", large)])
    with pytest.raises(BusyError, match="try again"):
        made.submit([Upload("b", large)])
    taken += made.submit([Upload("c", image())])
    made.scorer.gate.set()
    assert all(a.score.error is None for a in results(taken))
    assert made.waiting == 0
    assert results(made.submit([Upload("b", large)]))[0].score.error is None


def test_what_nobody_waits_for_is_not_scored(engine):
    made = engine()
    made.scorer.gate.clear()
    made.submit([Upload("a", image())])
    assert made.scorer.entered.wait(60)
    others = made.submit([Upload(str(i), image()) for i in range(20)])
    gone = [future for future in others if future.cancel()]
    assert gone  # one decoder cannot have begun with all twenty
    made.scorer.gate.set()
    results([future for future in others if not future.cancelled()])
    last = results(made.submit([Upload("last", image())]))[0]
    assert last.score.error is None and made.waiting == 0
    assert made.scored == 22 - len(gone)


def test_an_image_that_the_model_cannot_take_costs_one_row(engine):
    made = engine()
    made.scorer.gate.clear()
    first = made.submit([Upload("first", image())])
    assert made.scorer.entered.wait(60)
    rest = made.submit([Upload("a", image(9)), Upload("black", image(0)), Upload("b", image(7))])
    until(lambda: made._ready.qsize() == 3)
    made.scorer.gate.set()
    errors = [a.score.error for a in results(first + rest)]
    assert errors == [None, None, "the model failed on it: a black image", None]


def test_decoders_that_hang_or_crash_or_eat(engine, monkeypatch):
    monkeypatch.setattr(decoding, "decode", misbehave)
    made = engine(Limits(decode_seconds=1.0, megapixels=1))
    made.warm_up()
    names = ["sleep", "good", "crash", "good", "eat", "good"]
    data = {"good": image()}
    answers = results(made.submit([Upload(n, data.get(n, n.encode())) for n in names]))
    errors = [a.score.error for a in answers]
    assert errors[0] == "decoding took longer than 1 s"
    assert errors[2] == "its decoder crashed"
    if sys.platform == "linux":
        assert errors[4] == "not enough memory to decode it"
    assert errors[1::2] == [None, None, None]


def workers():
    """The decoders among this process's children; joblib keeps some of other tests."""
    return [child for child in multiprocessing.active_children() if "Loky" not in child.name]


def test_a_decoder_that_died_while_idle_is_replaced(engine):
    made = engine()
    made.warm_up()
    (process,) = workers()
    process.kill()
    process.join()
    assert results(made.submit([Upload("a", image())]))[0].score.error is None


def test_closing_answers_what_waits_and_ends_the_processes(engine, monkeypatch):
    monkeypatch.setattr(decoding, "decode", misbehave)
    made = engine()
    futures = made.submit([Upload("sleep", b"sleep"), Upload("next", image())])
    made.close()
    made.close()
    assert {a.score.error for a in results(futures)} == {"the service is stopping"}
    assert not made.alive and not workers()
    with pytest.raises(BusyError):
        made.submit([Upload("late", image())])


def test_scores_are_those_of_the_scorer(photo):
    """The real model, through processes, threads and batches, against its own ``score``."""
    from rali_zoo.zoo import load_model

    scorer = load_model("rali-tiny-synthetic")
    images = []
    for i, size in enumerate([(48, 64), (300, 200), (61, 37), (500, 501)]):
        buffer = io.BytesIO()
        Image.fromarray(photo(*size, seed=i)).save(buffer, "PNG")
        images.append(buffer.getvalue())
    made = Engine(scorer)
    try:
        answers = results(made.submit([Upload(str(i), data) for i, data in enumerate(images)]))
    finally:
        made.close()
    wanted = scorer.score(images)
    np.testing.assert_allclose([a.score.score for a in answers], [s.score for s in wanted], atol=1e-5)
    np.testing.assert_allclose([a.score.std for a in answers], [s.std for s in wanted], atol=1e-5)
    assert [len(a.score.explanation) for a in answers] == [3] * 4
    assert [a.score.explanation[0][2] for a in answers] == [s.explanation[0][2] for s in wanted]
    assert is_synthetic(scorer) and "synthetic" in caution(scorer) and "people" in caution(scorer)
    assert scorer.score_range == (1.0, 5.0)


def test_refused_scorers_and_settings(engine, tmp_path):
    from rali_zoo.zoo import load_model

    (tmp_path / "s.csv").write_text("id,score\na.jpg,3\n")
    with pytest.raises(ConfigError, match="looks at no image"):
        Engine(load_model(f"csv:{tmp_path / 's.csv'}"))
    with pytest.raises(ConfigError, match="no-reference"):
        Engine(load_model("torchmetrics:PeakSignalNoiseRatio"))
    with pytest.raises(ConfigError, match="batch_size"):
        engine(batch_size=0)
    with pytest.raises(ConfigError, match="seconds is 0"):
        Limits(seconds=0)


def test_a_request_of_many_images_holds_up_nobody(engine, monkeypatch) -> None:
    """Requests take turns: another one waits for the images that are being decoded, not for all."""
    made = engine(workers=1)
    order: list[str] = []
    prepare = made._prepare
    gate = threading.Event()

    def slow(job) -> None:
        gate.wait(60)
        order.append(job.upload.name)
        prepare(job)

    monkeypatch.setattr(made, "_prepare", slow)
    many = made.submit([Upload(f"many {i}", image()) for i in range(20)])
    one = made.submit([Upload("one", image())])
    gate.set()
    assert all(f.result(60).score.score for f in [*many, *one])
    assert order.index("one") <= 2 and sorted(order) == sorted([*(f"many {i}" for i in range(20)), "one"])


def test_one_clients_many_requests_do_not_hold_up_another_client(engine, monkeypatch) -> None:
    made, order, gate = engine(), [], threading.Event()
    prepare = made._prepare

    def slow(job) -> None:
        gate.wait(60)
        order.append(job.upload.name)
        prepare(job)

    monkeypatch.setattr(made, "_prepare", slow)
    many = [made.submit([Upload(f"{k}.{i}", image()) for i in range(3)], "10.0.0.1") for k in range(8)]
    one = made.submit([Upload("one", image())], "10.0.0.2")
    gate.set()
    assert all(f.result(60).score.score for f in [*one, *(f for some in many for f in some)])
    assert order.index("one") <= 2 and len(order) == 25 and not made._held


def test_one_client_does_not_take_all_of_the_room(engine) -> None:
    made = engine(Limits(waiting_megabytes=2))
    made.scorer.gate.clear()
    large = image() + bytes(600_000)
    taken = made.submit([Upload("a", large)], "10.0.0.1")
    with pytest.raises(BusyError, match="of your images"):
        made.submit([Upload("b", large)], "10.0.0.1")
    taken += made.submit([Upload("c", large)], "10.0.0.2")
    made.scorer.gate.set()
    assert all(answer.score.error is None for answer in results(taken))
    assert results(made.submit([Upload("b", large)], "10.0.0.1"))[0].score.error is None


@pytest.mark.parametrize("colour", ["srgb", "stored"])
def test_colours_are_read_as_the_scorer_takes_them(colour) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (40, 200, 40)).save(buffer, "PNG", icc_profile=_matrix_profile(12))  # P3
    scorer = Brightness()
    scorer.colour = colour
    made = Engine(scorer)
    try:
        found = results(made.submit([Upload("a", buffer.getvalue())]))[0].score.score
    finally:
        made.close()
    right, wrong = (
        1 + 4 * float(np.asarray(load_image(buffer.getvalue(), colour=c)).mean()) / 255
        for c in (colour, {"srgb": "stored", "stored": "srgb"}[colour])
    )
    assert found == pytest.approx(right) and abs(found - wrong) > 0.01


def test_stopped_decoders_are_seen_and_cost_their_image_only(engine) -> None:
    import os
    import signal

    made = engine(Limits(decode_seconds=2.0, seconds=20.0))
    made.submit([Upload("a", image())])[0].result(120)
    assert made.alive
    for decoder in list(made._decode._all):
        os.kill(decoder.process.pid, signal.SIGSTOP)
    until = time.monotonic() + 20  # a signal takes its time
    while made.alive and time.monotonic() < until:
        time.sleep(0.05)
    assert not made.alive
    large = image(width=1500, height=1500, kind="BMP")  # more than a pipe holds
    assert "longer than 2 s" in made.submit([Upload("b", large)])[0].result(60).score.error
    assert made.submit([Upload("c", image())])[0].result(120).score.score and made.alive
