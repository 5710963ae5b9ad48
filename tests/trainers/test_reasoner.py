"""The reasoner: every family's round trip, both objectives trained for real, checkpoints, scores."""

from __future__ import annotations

import math
from pathlib import Path

import lightning as L
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from reasoner_toys import SHORT, TINY, data, grpo, images, trainer
from vlm_families import build

import rali_zoo
from rali_zoo.data.datamodule import IQADataModule
from rali_zoo.errors import CheckpointError, ConfigError, UnknownNameError
from rali_zoo.models.files import load_checkpoint, save_scorer
from rali_zoo.models.vlm import Scoring
from rali_zoo.rl.grpo import Sampling
from rali_zoo.rl.objective import Objective
from rali_zoo.trainers import Reasoner, Regression
from rali_zoo.trainers.reasoner import UNPARSEABLE, Schedule, text_metrics
from rali_zoo.vlm import expectation
from rali_zoo.vlm.generation import completion_logps
from rali_zoo.vlm.questions import Tasks
from rali_zoo.vlm.tuning import Tuning


class Losses(L.Callback):
    """Keeps the loss of every batch."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.values.append(float(trainer.callback_metrics["train/loss"]))


# ---- families ----


@pytest.fixture(scope="module")
def cold(blurred, texts, tmp_path_factory) -> tuple[Path, list[float]]:
    """Checkpoint of a cold start, and its losses."""
    folder = tmp_path_factory.mktemp("cold")
    L.seed_everything(0)
    module = Reasoner(
        TINY, schedule=Schedule(lr=1e-2, shape="cosine"), grpo=Objective(max_completion_length=48)
    )
    losses = Losses()
    loop = trainer(folder, max_epochs=4, callbacks=[losses])
    loop.fit(module, data(blurred, descriptions=texts))
    loop.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt", losses.values


def test_cold_start_teaches_the_form(cold):
    path, losses = cold
    assert losses[-1] < 0.5 * losses[0]
    module = load_checkpoint(str(path))
    written = module.write(images()).parsed
    assert all(p.think.startswith("The image has blur of strength") for p in written)
    assert all(p.format_grade == 1 and 1 <= p.score <= 5 for p in written)


def test_scores_of_every_kind(cold, monkeypatch):
    scorer = rali_zoo.load_model(f"ckpt:{cold[0]}")
    greedy = scorer.network.predict_batch({"image": images()})
    assert greedy.std is None
    scorer.network.temperature = 0.3  # after so few steps a bold sample cannot be parsed
    for kind in ("samples", "expectation"):
        scorer.network.scoring = Scoring(kind)
        out = scorer.network.predict_batch({"image": images()})
        again = scorer.network.predict_batch({"image": images()})
        assert ((out.score >= 1) & (out.score <= 5)).all() and (out.std >= 0).all()
        torch.testing.assert_close(out.score, again.score)
    # firsts that are next to impossible are not asked about, and that cannot be seen
    with monkeypatch.context() as patch:
        patch.setattr(expectation, "_RARE", 0.0)
        whole = scorer.network.predict_batch({"image": images()})
    torch.testing.assert_close(out.score, whole.score, atol=2e-3, rtol=0)
    # where the model is sure of its digits, the expectation is its answer but for the digit left out
    with torch.no_grad():
        scorer.network.policy.get_output_embeddings().weight.mul_(40)
    sure = scorer.network.predict_batch({"image": images()})
    torch.testing.assert_close(sure.score, greedy.score, atol=0.06, rtol=0)
    assert (sure.std < 0.05).all()


def test_unparseable_answers_are_errors_not_numbers(blurred, tmp_path):
    module = Reasoner(TINY, grpo=SHORT)
    (metrics,) = trainer(tmp_path).test(module, data(blurred), verbose=False)
    assert metrics[f"test/{blurred}/n"] == 0 and metrics[f"test/{blurred}/failed"] == 16
    table = module.test_tables[blurred]
    assert set(table["error"]) == {UNPARSEABLE} and table["score"].isna().all()
    assert table["text"].str.len().gt(0).all()
    (score,) = rali_zoo.models.scorer.NetworkScorer(module.network, "x").score(images(1)[0])
    assert score.score is None and score.error


def test_validation_is_not_defined_by_the_answers_that_were_left_out():
    frame = pd.DataFrame({"mos": range(1, 21), "score": range(1, 21), "error": "", "text": "sharp"})
    frame["text"] = ["sharp" if i > 10 else "noisy" for i in range(20)]
    assert text_metrics(frame)["srcc"] == 1 and text_metrics(frame)["text_only_srcc"] > 0.7
    frame.loc[:2, "error"] = UNPARSEABLE
    metrics = text_metrics(frame)
    assert math.isnan(metrics["srcc"]) and metrics["failed"] == pytest.approx(0.15)


def resumed(make, source: IQADataModule, folder: Path) -> tuple[Reasoner, Reasoner]:
    """The module after two epochs of three steps, and the one that went on after the first of them."""
    modules = []
    for resume in (None, folder / "epoch=0.ckpt"):
        torch.manual_seed(0 if resume is None else 1)  # nothing may hang on what was drawn before
        modules.append(make())
        each = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
        options = {"enable_checkpointing": True, "callbacks": [each], "limit_train_batches": 3}
        trainer(folder, max_epochs=2, **options).fit(
            modules[-1], source, ckpt_path=resume, weights_only=False if resume else None
        )
    return modules[0], modules[1]


def test_resumed_cold_start_ends_where_an_undisturbed_one_ends(blurred, texts, tmp_path):
    whole, part = resumed(
        lambda: Reasoner(TINY, schedule=Schedule(lr=1e-3, shape="cosine")),
        data(blurred, descriptions=texts),
        tmp_path,
    )
    for (name, a), b in zip(whole.state_dict().items(), part.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


# ---- reinforcement ----


def changed(module: Reasoner, before: dict[str, torch.Tensor]) -> set[str]:
    return {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tuning": Tuning(freeze_vision=False, gradient_checkpointing=True)},
        {"tuning": Tuning(method="lora", rank=2)},
        {"sampling": Sampling(rollouts=3, updates=2)},
        {"grpo": Objective(loss="dapo", beta=0.0, max_completion_length=40)},
    ],
    ids=["full", "vision", "lora", "updates", "dapo"],
)
def test_three_steps_change_only_what_learns(options, cold, blurred, tmp_path):
    torch.manual_seed(0)
    module = grpo(cold, **options)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    image = images()
    said = module.eval().network.write(image, n=4, temperature=1.0, seed=0)
    losses = Losses()
    loop = trainer(tmp_path, max_epochs=1, limit_train_batches=3, callbacks=[losses])
    loop.fit(module, data(blurred))
    assert all(map(math.isfinite, losses.values)) and len(losses.values) == 3
    assert all(torch.isfinite(v).all() for v in module.state_dict().values())
    moved = changed(module, before)
    learning = {name for name, p in module.named_parameters() if p.requires_grad}
    assert moved and moved <= learning | {
        "network.policy.lm_head.weight"
    }  # tied to the embedding, and named twice
    assert any("vision_tower" in name for name in moved) == (not module.tuning.freeze_vision)
    assert all("lora" in name for name in moved) == (module.tuning.method == "lora")
    metrics = loop.callback_metrics
    assert {"reward/format/std", "monitor/distinct_texts", "policy/entropy", "rollout/truncated"} <= set(
        metrics
    )
    if module.grpo.beta > 0:  # the reference is the model as it was
        assert float(metrics["policy/kl"]) > 0
        with module.reinforcement.reference.policy(module.policy) as reference:
            now, _ = completion_logps(module.vlm, reference, said.prompts, said.ids, said.mask)
        module.load_state_dict(before)
        with torch.no_grad():
            then, _ = completion_logps(module.vlm, module.eval().policy, said.prompts, said.ids, said.mask)
        torch.testing.assert_close(now, then)
    assert loop.global_step == 3 * module.sampling.updates


def test_reinforcement_earns_more_reward(cold, blurred, tmp_path):
    """After so short a cold start few samples are of the right form; it is quickly learned."""
    torch.manual_seed(0)
    module = grpo(
        cold,
        rewards={"format": 1.0},
        sampling=Sampling(rollouts=8),
        schedule=Schedule(lr=5e-3, warmup=0.1),
        grpo=Objective(beta=0.0, max_completion_length=40),
    )

    def grade() -> float:
        written = module.eval().network.write(images(), n=32, temperature=1.0, seed=0).parsed
        return sum(p.format_grade for p in written) / len(written)

    before = grade()
    trainer(tmp_path, max_epochs=2).fit(module, data(blurred))
    assert before < 0.7 and grade() > before + 0.15


def test_adapter_is_all_that_its_checkpoint_holds(blurred, tmp_path):
    torch.manual_seed(0)
    module = grpo(TINY, tuning=Tuning(method="lora", rank=2))
    loop = trainer(tmp_path, max_steps=2)
    loop.fit(module, data(blurred))
    loop.save_checkpoint(tmp_path / "a.ckpt")
    kept = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    assert kept and all("lora" in name for name in kept) and not any("vision" in name for name in kept)
    # the next run starts from the sum, and measures its KL from there
    follows = grpo(TINY, init_from=str(tmp_path / "a.ckpt"), tuning=Tuning(method="lora", rank=2))
    assert follows.network.write(images()).texts == module.eval().network.write(images()).texts
    assert not follows.adapter_only
    full = grpo(TINY, init_from=str(tmp_path / "a.ckpt"))
    assert full.network.write(images()).texts == module.network.write(images()).texts


def test_resumed_reinforcement_goes_on_as_it_would_have(cold, blurred, tmp_path):
    """Rollouts are functions of seed, epoch and batch; the reference is not the resumed policy."""
    whole, part = resumed(lambda: grpo(cold, schedule=Schedule(lr=1e-3)), data(blurred), tmp_path)
    for (name, a), b in zip(whole.state_dict().items(), part.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_tasks_are_asked_and_answered():
    tasks = Tasks("score-short", "degradation-short", 0.5)
    batch = {
        "id": list("abcd"), "dataset": ["d"] * 4, "mos": torch.tensor([2.0, float("nan"), 3.0, 4.0]),
        "distortion": ["gaussian_blur", "jpeg;gaussian_blur", "", "pristine"],
        "level": ["3", "1;4", "0", "0"],
        "text": ["Blurred."] * 4,
    }  # fmt: skip
    seen = {tuple(q.asked.task for q in tasks.ask(batch, seed)) for seed in range(20)}
    assert {s[1] for s in seen} == {"degradation"} and {s[2] for s in seen} == {"score"}
    assert {s[0] for s in seen} == {s[3] for s in seen} == {"score", "degradation"}
    assert tasks.ask(batch, 3) == tasks.ask(batch, 3) or math.isnan(batch["mos"][1])
    always = Tasks("score-short", "degradation-short", 1.0)
    answers = [always.answer(q) for q in always.ask(batch, 0)]
    assert '"gaussian blur", "severity": "obvious"' in answers[0]
    assert '"gaussian blur", "severity": "serious"' in answers[1]
    assert '{"rating": 3.00}' in answers[2] and "null" in answers[3]
    with pytest.raises(ConfigError, match="neither|no MOS"):
        Tasks("score-short", None, 0.5).ask(batch, 0)


def test_both_tasks_in_one_batch_are_rewarded(tmp_path, photo_folder):
    files = photo_folder(8, height=40, width=40)
    rows = {
        "image": [f.name for f in files], "mos": range(8), "split": ["train"] * 6 + ["val", "test"],
        "distortion": ["gaussian_blur", ""] * 4, "level": [2, 0] * 4,
    }  # fmt: skip
    pd.DataFrame(rows).to_csv(files[0].parent / "s.csv", index=False)
    module = grpo(
        TINY, degradation_prompt="degradation-short", degradation_share=1.0,
        rewards={"score_gaussian": 1.0, "degradation_class": 0.25},
    )  # fmt: skip
    ref = f"csv:{files[0].parent / 's.csv'}?mos_range=0,10"
    loop = trainer(tmp_path)
    loop.fit(module, IQADataModule(train=ref, batch_size=6))
    applies = [float(loop.callback_metrics[f"reward/{n}/applies"]) for n in module.rewards.weights]
    assert sum(applies) == pytest.approx(1) and min(applies) > 0


# ---- settings ----


def test_vision_encoder_of_a_regression(tmp_path):
    regression = Regression("rali:tiny?size=40")
    path = save_scorer(regression, tmp_path / "encoder.safetensors")
    module = Reasoner(TINY, vision_from=str(path))
    for name, value in regression.backbone.net.state_dict().items():
        torch.testing.assert_close(
            module.policy.state_dict()[f"model.vision_tower.timm_model.net.{name}"], value
        )
    with pytest.raises(ConfigError, match="rali:vlm-tiny"):
        Reasoner(build("llava", tmp_path / "llava"), vision_from=str(path))
    again = Reasoner(TINY, vision_from=str(save_scorer(module, tmp_path / "reasoner.safetensors")))
    for (name, old), new in zip(module.policy.named_parameters(), again.policy.parameters(), strict=True):
        assert "vision_tower" not in name or torch.equal(old, new), name
    with pytest.raises(ConfigError, match="does not fit"):
        Reasoner(TINY, vision_from="reasoner-tiny-synthetic")  # whose encoder is the larger one


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"prompt": "scoer"}, UnknownNameError, "Did you mean 'score'"),
        ({"prompt": "degradation"}, ConfigError, "score task"),
        ({"vlm": "rali:vlm-tny"}, UnknownNameError, "vlm-tiny"),
        ({"vlm": "hf:local-dir:/nowhere"}, ValueError, "no folder"),
        ({"vlm": "rali:vlm-tiny?width=x"}, ConfigError, "whole number"),
        ({"rewards": {"format": math.nan}}, ConfigError, "rewards.format=nan is no finite number"),
        ({"rewards": {"format": math.inf}}, ConfigError, "no finite number"),
        ({"reward_options": {"score_within": {"sigma": 1.0}}}, UnknownNameError, "epsilon"),
        ({"sampling": {"temperature": math.nan}}, ConfigError, "temperature"),
        ({"grpo": {"beta": math.nan}}, ConfigError, "beta"),
        ({"schedule": {"lr": -1.0}}, ConfigError, "lr=-1.0"),
        ({"schedule": {"max_grad_norm": math.nan}}, ConfigError, "max_grad_norm"),
        ({"tuning": {"method": "lora", "alpha": math.inf}}, ConfigError, "alpha"),
        ({"limits": {"entropy": math.nan}}, ConfigError, "entropy"),
        ({"tuning": {"methd": "lora"}}, ConfigError, "method"),
        ({"init_from": "nowhere.ckpt"}, CheckpointError, "no checkpoint"),
    ],
)
def test_settings_that_cannot_work_are_said(options, error, says):
    with pytest.raises(error, match=says):
        Reasoner(**{"vlm": TINY, **options})


@pytest.mark.parametrize("kind", ["bfloat16", "one image", "no texts", "views"])
def test_runs_that_cannot_work_are_said(kind, blurred, tmp_path):
    from rali_zoo.views import View

    if kind == "bfloat16":
        with pytest.raises(ConfigError, match="bf16-mixed"):
            Tuning(precision="bfloat16")
    elif kind == "one image":
        module = grpo(TINY, rewards={"thurstone_fidelity": 1.0})
        with pytest.raises(ConfigError, match="data.batch_size"):
            trainer(tmp_path).fit(module, IQADataModule(train=blurred, batch_size=1))
    elif kind == "no texts":
        with pytest.raises(ConfigError, match="data.descriptions"):
            trainer(tmp_path).fit(Reasoner(TINY), data(blurred))
    else:
        module = data(blurred, train_view=View("random_crop", size=20, crops=2))
        with pytest.raises(ConfigError, match="crops=1"):
            trainer(tmp_path).fit(grpo(TINY), module)


def test_weights_of_another_vocabulary_are_refused(cold):
    state = load_checkpoint(str(cold[0])).extra_state()
    with pytest.raises(CheckpointError, match="tokenizer"):
        Reasoner(TINY).network.load_extra_state({**state, "words": "other"})
