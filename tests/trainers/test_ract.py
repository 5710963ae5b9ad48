"""RACT: which weights learn, from which labels, and the score that the text alone tells."""

from __future__ import annotations

import inspect

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from reasoner_toys import TINY, images, trainer

from rali_zoo.data.datamodule import IQADataModule
from rali_zoo.data.descriptions import write_descriptions
from rali_zoo.data.tables import load_table
from rali_zoo.metrics import srcc
from rali_zoo.models.files import load_checkpoint, read_checkpoint
from rali_zoo.models.vlm import Scoring, VLMNetwork
from rali_zoo.rl.objective import Objective
from rali_zoo.trainers import RACT, Reasoner
from rali_zoo.trainers.ract import score_texts, text_score_metrics
from rali_zoo.trainers.reasoner import Schedule
from rali_zoo.vlm.prompts import write_completion
from rali_zoo.vlm.tuning import Tuning

LIMIT = 40
DOMAINS = ["synthetic:lab?n=60&size=64", "synthetic:wild?n=60&size=64"]


def described(ref: str, answers: bool) -> pd.DataFrame:
    """Descriptions of the training images of a domain: their strongest distortion, and a grade."""
    rows = load_table(ref).split("train")
    grades = (
        rows["mos"].round().astype(int).map(dict(enumerate(("bad", "poor", "fair", "good", "excellent"), 1)))
    )
    seen = rows["level"].map(lambda level: "Strong noise." if level > 3 else "Sharp and clean.")
    texts = seen + (" Overall quality: " + grades + "." if answers else "")
    table = pd.DataFrame({"dataset": ref, "image_id": rows["id"].astype(str), "text": texts})
    return table.assign(score=np.nan, teacher="test", revision="0", seed=0)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> str:
    """Checkpoint of a reasoner that has learnt the form of its answers."""
    folder = tmp_path_factory.mktemp("teacher")
    write_descriptions(described(DOMAINS[0], True), folder / "texts.parquet")
    L.seed_everything(0)
    module = Reasoner(
        TINY, schedule=Schedule(lr=1e-2, shape="cosine"), grpo=Objective(max_completion_length=LIMIT)
    )
    fit = trainer(folder, max_epochs=10)
    texts = str(folder / "texts.parquet")
    fit.fit(module, IQADataModule(train=DOMAINS[0], batch_size=8, descriptions=texts))
    fit.save_checkpoint(folder / "teacher.ckpt")
    return str(folder / "teacher.ckpt")


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> list[str]:
    """A descriptions table for each domain, without scores."""
    files = [str(tmp_path_factory.mktemp("texts") / "t.parquet") for _ in DOMAINS]
    for file, ref in zip(files, DOMAINS, strict=True):
        write_descriptions(described(ref, False), file)
    return files


def weights(module: Reasoner) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.policy.named_parameters()}


def run(teacher: str, texts: list[str], folder, **options) -> tuple[RACT, set[str], IQADataModule]:
    """A short run, and the parts of the model that it has changed."""
    module = RACT(
        TINY, init_from=teacher, schedule=Schedule(lr=1e-3), max_completion_length=LIMIT,
        **{"answers": "text", **options},
    )  # fmt: skip
    data = IQADataModule(train=DOMAINS, test=DOMAINS, batch_size=12, descriptions=texts)
    before = weights(module)
    fit = trainer(folder, limit_train_batches=3)
    fit.fit(module, data)
    changed = {n for n, value in weights(module).items() if not torch.equal(value, before[n])}
    fit.test(module, data, verbose=False)
    fit.save_checkpoint(folder / "ract.ckpt")
    parts = {"vision" if "vision_tower" in n else "joint" if "projector" in n else "words" for n in changed}
    return module, parts, data


def test_only_the_vision_encoder_learns_and_the_tests_give_both_scores(teacher, texts, tmp_path):
    module, parts, _ = run(teacher, texts, tmp_path)
    assert "vision" in parts and parts <= {"vision", "joint"}
    tables = module.test_tables
    assert set(tables) == set(DOMAINS)
    for frame in tables.values():
        assert {"score", "text", "text_score"} <= set(frame.columns)
        read = frame["text_score"].dropna()
        assert len(read) > 6 and read.between(1, 5).all()
    again = load_checkpoint(str(tmp_path / "ract.ckpt"))
    assert isinstance(again, VLMNetwork) and again.training_sets == tuple(DOMAINS)
    assert again.write(images()).texts == module.eval().network.write(images()).texts
    kept = read_checkpoint(str(tmp_path / "ract.ckpt"))["hyper_parameters"]
    assert kept["answers"] == "text" and set(kept) <= set(inspect.signature(RACT).parameters)


def test_the_language_model_or_both_can_learn(teacher, texts, tmp_path):
    _, words, _ = run(
        teacher, texts, tmp_path / "a", tuning=Tuning(freeze_vision=True), answers="text-and-score"
    )
    _, both, _ = run(teacher, texts, tmp_path / "b", tuning=Tuning(freeze_vision=False))
    assert "vision" not in words and "words" in words and {"vision", "words"} <= both


def test_a_score_is_told_by_the_text_without_the_image(teacher):
    module = load_checkpoint(teacher)
    assert isinstance(module, VLMNetwork)
    good = write_completion("Sharp and clean. Overall quality: good.", 4.0)
    bad = write_completion("Strong noise. Overall quality: bad.", 1.5)
    asked = module.asked
    seen: list[dict[str, torch.Tensor]] = []
    generate = module.engine.generate
    module.engine.generate = lambda prompts, *rest: (seen.append(prompts.inputs), generate(prompts, *rest))[1]
    for kind in ("greedy", "expectation"):
        found = score_texts(
            module.vlm, module.engine, [good, bad, "no tags at all", good], asked, Scoring(kind), 64
        )
        assert found.shape == (4,) and torch.isnan(found[2]) and found[0] == pytest.approx(float(found[3]))
        assert ((found[[0, 1]] >= 1) & (found[[0, 1]] <= 5)).all()
    assert all("pixel_values" not in inputs for inputs in seen)
    # the score that stands in the text itself is not read: another number there changes nothing
    other = good.replace("4.00", "1.11")
    pair = score_texts(module.vlm, module.engine, [good, other], asked, Scoring(), LIMIT)
    assert pair[0] == pair[1]
    assert torch.isnan(score_texts(module.vlm, module.engine, ["none"], asked, Scoring(), LIMIT)).all()


def test_numbers_of_text_scores():
    nan = float("nan")
    frame = pd.DataFrame({"mos": [1, 2, 3, nan, 5.0], "text_score": [1, 3, nan, 2, 2.0]})
    found = text_score_metrics(frame)
    assert found["failed_from_text"] == pytest.approx(0.2)
    assert found["srcc_from_text"] == pytest.approx(srcc(np.array([1, 3, 2.0]), np.array([1, 2, 5.0])))
