"""Which weights of a reasoner learn, and what it imitates."""

from __future__ import annotations

import pytest
import torch
from reasoner_toys import SHORT, TINY, data, trainer
from vlm_families import build

from rali_zoo.errors import ConfigError
from rali_zoo.trainers import Reasoner
from rali_zoo.trainers.reasoner import Schedule
from rali_zoo.vlm.questions import Tasks
from rali_zoo.vlm.tuning import Tuning


@pytest.mark.parametrize(
    ("kind", "where"),
    [("tiny", {"vision_tower", "multi_modal_projector"}), ("qwen2_5_vl", {"visual"})],
)
@pytest.mark.parametrize("answers", ["text", "text-and-score"])
def test_vision_encoder_alone_learns(kind, where, answers, blurred, texts, tmp_path):
    torch.manual_seed(0)
    vlm = TINY if kind == "tiny" else build(kind, tmp_path / kind)
    tuning = Tuning(freeze_vision=False, freeze_language=True, gradient_checkpointing=True)
    module = Reasoner(vlm, tuning=tuning, answers=answers, grpo=SHORT, schedule=Schedule(lr=1e-2))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.warns(UserWarning, match="a completion to imitate has"):
        trainer(tmp_path, max_steps=2).fit(module, data(blurred, descriptions=texts))
    moved = {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}
    assert {part for name in moved for part in where if f".{part}." in name} == where
    assert all(any(f".{part}." in name for part in where) for name in moved)
    assert module.policy.model.language_model.layers[0].self_attn.q_proj.weight.grad is None


def test_adapter_of_the_vision_encoder_alone_is_in_it(tmp_path):
    tuning = Tuning(method="lora", rank=2, freeze_vision=False, freeze_language=True)
    module = Reasoner(build("qwen2_5_vl", tmp_path / "qwen"), tuning=tuning)
    learning = {name for name, p in module.named_parameters() if p.requires_grad}
    assert learning and all(".visual." in name and "lora" in name for name in learning)
    assert any(".merger." in name for name in learning)
    with pytest.raises(ConfigError, match="method=full"):  # its encoder is made of convolutions
        Reasoner(TINY, tuning=tuning)


def test_nothing_left_to_learn_is_refused():
    with pytest.raises(ConfigError, match="freeze_vision=false"):
        Tuning(freeze_language=True)


def test_text_alone_stops_before_the_score():
    batch = {
        "id": ["a"], "dataset": ["d"], "mos": torch.tensor([float("nan")]), "text": ["Blurred edges."],
        "distortion": ["gaussian_blur"], "level": ["3"],
    }  # fmt: skip
    tasks = Tasks("score-short", None, 0.0, "text")
    (question,) = tasks.ask(batch, 0)
    assert question.asked.task == "score"
    assert tasks.answer(question) == "<think>Blurred edges.</think>"
    with pytest.raises(ConfigError, match="no MOS"):
        Tasks("score-short", None, 0.0).ask(batch, 0)
    alone = Tasks("score-short", None, 0.0, "score")
    (question,) = alone.ask({**batch, "mos": torch.tensor([3.0]), "text": [""]}, 0)
    assert alone.answer(question) == '<think></think><answer>{"rating": 3.00}</answer>'
    (tagged,) = tasks.ask({**batch, "text": ["<think>x"]}, 0)
    with pytest.raises(ConfigError, match="tags"):
        tasks.answer(tagged)


def test_text_alone_teaches_no_end():
    """The completion ends with the tag: what a model writes next is no part of the loss."""
    vlm = Reasoner(TINY).vlm
    ids, mask = vlm.write(["<think>Blurred.</think>"], ended=False)
    ended, longer = vlm.write(["<think>Blurred.</think>"])
    assert mask.sum() + 1 == longer.sum() and ended[0, -1] in vlm.end and ids[0, -1] not in vlm.end
    assert vlm.read(ids, mask) == ["<think>Blurred.</think>"]
    with pytest.raises(ConfigError, match="objective=sft"):
        Reasoner(TINY, objective="grpo", answers="text")
    with pytest.raises(ConfigError, match="answers=score"):
        Reasoner(TINY, objective="grpo", answers="score")
