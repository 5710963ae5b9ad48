"""Collapse is noticed, health is not mistaken for it, and texts alone are judged without leaks."""

import random
import warnings

import numpy as np
import pytest

from rali_zoo.errors import ConfigError
from rali_zoo.metrics import srcc
from rali_zoo.rl.monitor import CHECKS, CollapseMonitor, CollapseWarning, Limits, text_only_srcc
from rali_zoo.rl.rewards import Rollouts

WORDS = ("soft", "sharp", "noisy", "dark", "bright", "pale", "blocky", "crisp", "grainy", "flat")


def completion(think: str, score: float | str) -> str:
    return f'<think>{think}</think><answer>{{"rating": {score}}}</answer>'


def healthy(n: int = 16, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [completion(" ".join(rng.sample(WORDS, 4)), round(rng.uniform(1, 5), 2)) for _ in range(n)]


def feed(monitor: CollapseMonitor, texts: list[str], **other: list) -> list[str]:
    n = len(texts)
    return monitor.update(
        Rollouts(texts, task=other.get("task", ["score"] * n)),
        rewards=other.get("rewards", [float(i % 4) for i in range(n)]),
        group_size=4,
        truncated=other.get("truncated", [False] * n),
        entropy=other.get("entropy", [1.0] * n),
    )


def test_a_healthy_run_is_left_alone() -> None:
    monitor = CollapseMonitor(window=32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(6):
            assert feed(monitor, healthy(seed=seed)) == []
    values = monitor.values()
    assert values["distinct_texts"] > 0.9 and values["commonest_text"] < 0.1
    assert values["parse_failures"] == values["truncated"] == values["zero_variance"] == 0
    assert values["entropy"] == 1 and values["distinct_scores"] > 20


SICK = {
    "texts-collapsed": {"texts": [completion(f"overall good {i}", 1 + i / 10) for i in range(32)]},
    "scores-collapsed": {"texts": [t.split("<answer>")[0] + "<answer>3</answer>" for t in healthy(32)]},
    "parse-failures": {"texts": healthy(24) + [t.split("<answer>")[0] for t in healthy(8)]},
    "truncated": {"texts": healthy(32), "truncated": [i % 4 == 0 for i in range(32)]},
    "no-signal": {"texts": healthy(32), "rewards": [1.0] * 28 + [0.0, 1.0, 1.0, 1.0]},
    "entropy-floor": {"texts": healthy(32), "entropy": [0.01] * 32},
}


@pytest.mark.parametrize("name", list(CHECKS))
def test_each_failure_is_named_once_and_alone(name: str) -> None:
    monitor = CollapseMonitor(window=32, limits=Limits(distinct_texts=0.1))
    sick = SICK[name]
    with pytest.warns(CollapseWarning, match=f"^{name}: ") as caught:
        assert feed(monitor, **sick) == [name]
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert feed(monitor, **sick) == []
    assert monitor.failed == [name]


def test_checks_wait_for_a_full_window_and_forget_the_past() -> None:
    monitor = CollapseMonitor(window=32, limits=Limits(distinct_texts=0.1))
    same = [completion("good", 1 + i / 10) for i in range(16)]
    assert feed(monitor, same) == []
    assert monitor.values()["commonest_text"] == 1
    assert feed(monitor, healthy(32)) == []
    assert monitor.values()["distinct_texts"] > 0.9


def test_the_window_of_groups_is_that_of_completions() -> None:
    monitor = CollapseMonitor(window=32, limits=Limits(zero_variance=2.0))
    feed(monitor, healthy(32), rewards=[1.0] * 32)
    assert monitor.values()["zero_variance"] == 1
    feed(monitor, healthy(32))
    assert monitor.values()["zero_variance"] == 0


def test_ungraded_rewards_and_the_other_task() -> None:
    monitor = CollapseMonitor(window=32)
    text = '<think>grain</think><answer>{"distortion_class": null, "severity": null}</answer>'
    feed(monitor, [text] * 4, task=["degradation"] * 4, rewards=[float("nan")] * 4)
    values = monitor.values()
    assert values["parse_failures"] == 0 and values["zero_variance"] == 1 and "distinct_scores" not in values
    feed(monitor, [text] * 4)  # a class is no answer to a question about the score
    assert monitor.values()["parse_failures"] == 0.5


def test_updates_that_do_not_fit_are_refused() -> None:
    monitor = CollapseMonitor(window=32)
    with pytest.raises(ConfigError, match="do not fit together"):
        feed(monitor, healthy(6))
    with pytest.raises(ConfigError, match="at least 8"):
        CollapseMonitor(window=4)


def described(n: int = 120, noise: float = 0.0) -> tuple[list[str], np.ndarray]:
    """Texts whose words fix the MOS up to noise; the number in the text is a lie."""
    rng = np.random.default_rng(0)
    worth = dict(zip(WORDS, np.linspace(-1, 1, len(WORDS)), strict=True))
    texts, mos = [], []
    for _ in range(n):
        words = rng.choice(WORDS, 3, replace=False)
        texts.append(completion(" and ".join(words) + f", so {rng.uniform(1, 5):.2f}", 3))
        mos.append(3 + sum(worth[w] for w in words) / 2 + noise * rng.standard_normal())
    return texts, np.array(mos)


@pytest.mark.parametrize("encoder", ["tfidf", "rali:hash?dim=256"])
def test_a_score_that_the_words_carry_is_found(encoder: str) -> None:
    texts, mos = described()
    result = text_only_srcc(texts, mos, encoder=encoder)
    assert result.srcc > 0.9 and result.n == 120 and result.reason == ""
    assert result.srcc == srcc(result.predictions, mos)
    shuffled = text_only_srcc(texts, np.random.default_rng(1).permutation(mos), encoder=encoder)
    assert abs(shuffled.srcc) < 0.3


def test_a_number_in_the_text_is_not_read() -> None:
    mos = np.random.default_rng(0).uniform(1, 5, 60)
    result = text_only_srcc([f"the score is {m:.2f} of 5" for m in mos], mos)
    assert result.distinct == 1
    assert np.isnan(result.srcc) and "all 60 predictions are 0" in result.reason


def test_texts_of_one_image_stay_in_one_fold() -> None:
    """Words that name the image and nothing else tell nothing, unless a fold has seen the same image."""
    rng = np.random.default_rng(0)
    names = [f"{'xyzw'[i // 10 % 4]}{'abcdefghij'[i % 10]}" for i in range(40)]
    mos = dict(zip(names, rng.uniform(1, 5, 40), strict=True))
    texts = [f"{a} {b}" for name in names for a, b in ([name, "q"], [name, "r"])]
    groups = [name for name in names for _ in range(2)]
    target = [mos[g] for g in groups]
    assert text_only_srcc(texts, target).srcc > 0.5
    together = text_only_srcc(texts, target, groups)
    assert np.isnan(together.srcc) or abs(together.srcc) < 0.4


def test_texts_without_words_and_bad_calls() -> None:
    empty = text_only_srcc(["<think></think>", "3.2"] * 10, list(range(20)))
    assert np.isnan(empty.srcc) and empty.n == 20
    with pytest.raises(ConfigError, match="2 texts, 3 MOS"):
        text_only_srcc(["a", "b"], [1, 2, 3])
    with pytest.raises(ConfigError, match="do not make 5 folds"):
        text_only_srcc(["a", "b"], [1, 2])
