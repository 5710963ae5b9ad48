"""Rewards against numbers worked out by hand, by SciPy and by TRL."""

import functools
import math
import pickle
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import norm

from rali_zoo.errors import ConfigError, UnknownNameError
from rali_zoo.rl.rewards import (
    REWARDS,
    RewardSet,
    Rollouts,
    create_reward,
    gaussian,
    soft_overlong,
    thurstone,
    within,
)
from rali_zoo.rl.trl import as_trl_rewards

NAN = float("nan")


def score_text(score: float | str, think: str = "soft edges") -> str:
    return f'<think>{think}</think><answer>{{"rating": {score}}}</answer>'


def class_text(name: str | None, level: str | None) -> str:
    quoted = [f'"{v}"' if v else "null" for v in (name, level)]
    return (
        f'<think>grain</think><answer>{{"distortion_class": {quoted[0]}, "severity": {quoted[1]}}}</answer>'
    )


def one(name: str, rollouts: Rollouts, **options: float | str) -> list[float]:
    return create_reward(name, options)(rollouts).tolist()


def test_score_rewards() -> None:
    pred = torch.tensor([3.0, 3.3, 3.5, NAN, 3.0])
    mos = torch.tensor([3.0, 3.0, 3.0, 3.0, NAN])
    assert torch.equal(within(pred, mos, 0.35)[:4], torch.tensor([1.0, 1.0, 0.0, 0.0]))
    bell = gaussian(pred, mos, 0.5)
    assert bell[:4].tolist() == pytest.approx(
        [norm.pdf(d / 0.5) / norm.pdf(0) for d in (0, 0.3, 0.5)] + [0.0]
    )
    assert within(pred, mos, 0.35)[4].isnan() and bell[4].isnan()


def test_a_band_ends_where_decimal_numbers_say() -> None:
    """3.75 - 3.40 is below 0.35 in float32; labels come as float32 out of a batch."""
    pred, mos = torch.tensor([3.75, 3.74, 1.35, 4.35]), torch.tensor([3.40, 3.40, 1.0, 4.0])
    assert within(pred, mos, 0.35).tolist() == [0, 1, 0, 0]


def test_score_rewards_leave_the_other_task_alone() -> None:
    rollouts = Rollouts(
        [score_text(3.1), "nonsense", score_text(3.1)], ["score", "score", "degradation"], mos=[3, 3, 3]
    )
    for name in ("score_within", "score_gaussian"):
        values = one(name, rollouts)
        assert values[0] > 0.9 and values[1] == 0 and math.isnan(values[2])


def test_thurstone_is_the_formula_of_the_paper() -> None:
    q = [[3.0, 3.4, 3.2], [2.0, 3.3, 2.5], [4.0, 4.0, 4.2]]
    mos, gamma = [3.0, 2.0, 2.0], 1e-3
    mean = [sum(r) / 3 for r in q]
    var = [sum((v - m) ** 2 for v in r) / 2 for r, m in zip(q, mean, strict=True)]
    expected = []
    for i in range(3):
        row = []
        for k in range(3):
            total = 0.0
            for j in {0, 1, 2} - {i}:
                p = norm.cdf((q[i][k] - mean[j]) / math.sqrt(var[i] + var[j] + gamma))
                t = 1.0 if mos[i] > mos[j] else 0.5 if mos[i] == mos[j] else 0.0
                total += math.sqrt(p * t) + math.sqrt((1 - p) * (1 - t))
            row.append(total / 2)
        expected.append(row)
    values = thurstone(torch.tensor(q), torch.tensor(mos), gamma)
    assert torch.allclose(values, torch.tensor(expected), atol=1e-6)


def test_thurstone_with_unparseable_rollouts() -> None:
    q, mos = torch.tensor([[4.0, NAN], [2.0, 2.2], [NAN, NAN]]), torch.tensor([4.0, 2.0, 3.0])
    values = thurstone(q, mos, 1e-6)
    assert values[0, 1] == 0 and values[2].tolist() == [0, 0]
    # the image that nobody could read is no opponent
    assert torch.equal(values[:2], thurstone(q[:2], mos[:2], 1e-6))
    assert values[0, 0] == pytest.approx(1) and values[1].tolist() == pytest.approx([1, 1])
    alone = thurstone(torch.tensor([[3.0, NAN]]), torch.tensor([3.0]), 1e-6)
    assert alone.isnan().all()


def test_thurstone_never_compares_across_data_sets_or_tasks() -> None:
    texts = [score_text(v) for v in (4, 4.2, 2, 2.2, 1, 1.2, 5, 5)]
    rollouts = Rollouts(
        texts,
        task=["score"] * 6 + ["degradation"] * 2,
        dataset=["koniq10k"] * 4 + ["spaq"] * 2 + ["koniq10k"] * 2,
        id=list("aabbaacc"),
        mos=[4, 4, 2, 2, 5, 5, 1, 1],
    )
    values = one("thurstone_fidelity", rollouts)
    assert values[:4] == pytest.approx([1, 1, 1, 1], abs=1e-4)
    assert all(math.isnan(v) for v in values[4:])


def test_groups_that_are_not_side_by_side_give_the_same() -> None:
    texts, ids, mos = [score_text(v) for v in (4, 3, 2, 2.9, 3)], list("aabbb"), [4.0, 4.0, 2.0, 2.0, 2.0]
    order = [2, 0, 4, 1, 3]

    def values(rows: list[int]) -> list[float]:
        n = len(rows)
        return one(
            "thurstone_fidelity",
            Rollouts(
                [texts[r] for r in rows],
                ["score"] * n,
                ["d"] * n,
                [ids[r] for r in rows],
                [mos[r] for r in rows],
            ),
        )

    straight, mixed = values([0, 1, 2, 3, 4]), values(order)
    assert [straight[r] for r in order] == mixed and len(set(straight)) > 2


@pytest.mark.parametrize(
    ("text", "truth", "level", "expected"),
    [
        (class_text("noise", "slight"), "noise", 1, (1, 1)),
        (class_text("noise", "serious"), "noise", 1, (1, 0)),
        (class_text("blur", "slight"), "noise", 1, (0, 0)),
        (class_text("JPEG compression", "obvious"), "jpeg", 3, (1, 1)),
        (class_text(None, None), "pristine", 0, (1, 1)),
        (class_text(None, None), "noise", 2, (0, 0)),
        (class_text("noise", "slight"), "pristine", 0, (0, 0)),
        (class_text("null", "slight"), "null", 0, (1, 0)),
        (class_text("noise", None), "noise", 2, (1, 0)),
        ("nonsense", "noise", 2, (0, 0)),
        (class_text("noise", "slight"), "", 0, (NAN, NAN)),
        (class_text("noise", "slight"), "fog", 1, (NAN, NAN)),
        (class_text("noise", "slight"), "noise", 0, (1, NAN)),
        (class_text("noise", "slight"), "noise", None, (1, NAN)),
        (class_text("blur", "moderate"), "gaussian_blur;white_noise", "2;4", (1, 1)),
        (class_text("noise", "moderate"), "gaussian_blur;white_noise", "2;4", (1, 0)),
        (class_text("noise", "serious"), "gaussian_blur;white_noise", 4.0, (1, 1)),
    ],
)
def test_degradation(text: str, truth: str, level: int | str | None, expected: tuple[float, float]) -> None:
    rollouts = Rollouts([text], ["degradation"], distortion=[truth], level=[level])
    given = one("degradation_class", rollouts) + one("degradation_level", rollouts)
    assert given == pytest.approx(expected, nan_ok=True)
    asked_for_score = Rollouts([text], ["score"], distortion=[truth], level=[level])
    assert math.isnan(one("degradation_class", asked_for_score)[0])


def test_format_pays_for_the_question_that_was_asked() -> None:
    texts = [score_text(3), class_text("noise", "slight"), score_text(3), class_text(None, None), "", "3"]
    tasks = ["score", "score", "degradation", "degradation", "score", "score"]
    assert one("format", Rollouts(texts, tasks)) == [1.0, 0.75, 0.75, 1.0, 0.0, 0.25]


def test_length_guard_is_trls() -> None:
    trl = pytest.importorskip("trl.rewards")
    lengths = list(range(1, 130))
    theirs = trl.get_soft_overlong_punishment(100, 20)([[0] * n for n in lengths])
    assert soft_overlong(torch.tensor(lengths), 100, 20).tolist() == pytest.approx(theirs)


def test_diversity_counts_images_not_rollouts_and_ignores_numbers() -> None:
    texts = [
        score_text(3, "Soft 3.1"), score_text(3, "soft 2,9"),  # one image, one wording
        score_text(4, "soft"), score_text(4, "crisp"),
        score_text(4, "noisy"), score_text(4, "SOFT\n4"),
    ]  # fmt: skip
    rollouts = Rollouts(texts, dataset=["d"] * 6, id=list("aabbcc"))
    assert one("diversity_guard", rollouts) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1, 1, 1 / 3])
    assert math.isnan(one("diversity_guard", Rollouts(texts[:2], dataset=["d"] * 2, id=["a"] * 2))[0])


def multi_task() -> Rollouts:
    return Rollouts(
        [score_text(3.1), score_text(4.9), class_text("noise", "slight"), "?"],
        task=["score", "score", "degradation", "degradation"],
        mos=torch.tensor([3.0, 3.0, NAN, NAN]),
        distortion=[None, None, "noise", "noise"],
        level=[None, None, 2, 2],
    )


def test_a_set_adds_what_applies_and_logs_each_on_its_own() -> None:
    graded = RewardSet()(multi_task())
    assert graded.names == ("format", "score_within", "degradation_class", "degradation_level")
    expected = [[1, 1, NAN, NAN], [1, 0, NAN, NAN], [1, NAN, 1, 0], [0, NAN, 0, 0]]
    assert torch.equal(graded.matrix.isnan(), torch.tensor(expected).isnan())
    assert torch.equal(graded.matrix.nan_to_num(-1), torch.tensor(expected).nan_to_num(-1))
    assert graded.total.tolist() == [2, 1, 1.25, 0]
    logs = graded.logs()
    assert logs["reward/score_within/applies"] == 0.5 and logs["reward/score_within/mean"] == 0.5
    assert logs["reward/score_within/std"] == pytest.approx(math.sqrt(0.5))
    assert logs["reward/format/mean"] == 0.75 and logs["reward/total/applies"] == 1


def test_a_completion_that_nothing_applies_to_has_no_total() -> None:
    graded = RewardSet({"score_within": 1.0})(multi_task())
    assert graded.total[:2].tolist() == [1, 0] and graded.total[2:].isnan().all()
    silent = RewardSet({"degradation_class": 1.0})(
        Rollouts(["3"], ["score"], mos=[3.0], distortion=[""], level=[0])
    ).logs()
    assert silent["reward/degradation_class/applies"] == 0
    assert "reward/degradation_class/mean" not in silent


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'score_within'"):
        RewardSet({"scor_within": 1})
    with pytest.raises(UnknownNameError, match="q-insight"):
        RewardSet()(Rollouts(["3"], ["score"], mos=[3], distortion=[""], level=[0], vocabulary="qinsight"))
    with pytest.raises(ConfigError, match="at least one weight"):
        RewardSet({})
    with pytest.raises(ConfigError, match="column 'mos'"):
        RewardSet({"score_within": 1})(Rollouts(["3"], ["score"]))
    with pytest.raises(ConfigError, match="mos has 2 rows"):
        Rollouts(["3"], mos=[1, 2])
    with pytest.raises(UnknownNameError, match="'degradation'"):
        Rollouts(["3"], ["degredation"])
    for name, bad in [
        ("score_within", {"epsilon": 0}),
        ("score_gaussian", {"sigma": -1}),
        ("thurstone_fidelity", {"gamma": NAN}),
        ("length_guard", {"cache": 0}),
        ("score_within", {"epsilon": "wide"}),
    ]:
        with pytest.raises(ConfigError, match=name):
            RewardSet({name: 1}, {name: bad})
    with pytest.raises(UnknownNameError, match="Did you mean 'epsilon'"):
        RewardSet({"score_within": 1}, {"score_within": {"epsilom": 1}})
    with pytest.raises(UnknownNameError, match="reward with a weight"):
        RewardSet({"format": 1}, {"score_within": {"epsilon": 1}})
    with pytest.raises(ConfigError, match="limit of length"):
        RewardSet({"length_guard": 1})(Rollouts(["3"], length=[1]))
    for weight in (NAN, math.inf):
        with pytest.raises(ConfigError, match="finite"):
            RewardSet({"format": weight})


def test_options_reach_their_reward_also_in_the_form_of_0_1_0() -> None:
    rollouts = Rollouts([score_text(3.5)], ["score"], mos=[3.0], length=[5], limit=8)
    weights = {"score_within": 1.0, "score_gaussian": 1.0, "length_guard": 1.0}
    own = {"score_within": {"epsilon": 0.6}, "score_gaussian": {"sigma": 0.5}, "length_guard": {"cache": 4}}
    old = {
        "epsilon": 0.6, "sigma": 0.5, "gamma": 1e-6, "vocabulary": "q-insight", "max_length": 8, "length_cache": 4
    }  # fmt: skip
    for options in (own, old):
        assert RewardSet(weights, options)(rollouts).matrix[0].tolist() == pytest.approx(
            [1, math.exp(-0.5), -0.25]
        )


def bonus(rollouts: Rollouts, word: str) -> torch.Tensor:
    return torch.tensor([float(word in text) for text in rollouts.texts])


def words_reward(word: str = "blur"):
    """What a package may add: a function that takes options and returns a reward."""
    return functools.partial(bonus, word=word)


def test_a_reward_of_another_package_has_options_too(monkeypatch) -> None:
    monkeypatch.setattr(REWARDS, "_rows", dict(REWARDS._rows))
    REWARDS.register("words", f"{__name__}:words_reward")
    rollouts = Rollouts(["some noise", "some blur"])
    assert RewardSet({"words": 1.0})(rollouts).total.tolist() == [0, 1]
    assert RewardSet({"words": 2.0}, {"words": {"word": "noise"}})(rollouts).total.tolist() == [2, 0]
    with pytest.raises(UnknownNameError, match="Did you mean 'word'"):
        RewardSet({"words": 1.0}, {"words": {"wrod": "noise"}})


def test_trl_functions_give_the_same_numbers() -> None:
    reward_set = RewardSet({**RewardSet().weights, "length_guard": 0.5}, {"length_guard": {"cache": 5}})
    ours = multi_task()
    ids = [[0] * n for n in (3, 7, 10, 30)]
    columns = {"task": ours.task, "distortion": ours.distortion, "level": ours.level}
    graded = reward_set(Rollouts(ours.texts, mos=ours.mos, length=[len(i) for i in ids], limit=10, **columns))
    functions = as_trl_rewards(reward_set, limit=10)
    assert [f.__name__ for f in functions] == list(graded.names)
    shapes = (
        [[{"role": "assistant", "content": t}] for t in ours.texts],
        [[{"role": "assistant", "content": [{"type": "text", "text": t}]}] for t in ours.texts],
        list(ours.texts),
    )
    for completions in shapes:
        for column, function in enumerate(functions):
            values = pickle.loads(pickle.dumps(function))(
                prompts=["?"] * 4, completions=completions, completion_ids=ids, trainer_state=None,
                mos=[3.0, 3.0, None, None], unused=[1, 2, 3, 4], **columns,
            )  # fmt: skip
            assert [NAN if v is None else v for v in values] == pytest.approx(
                graded.matrix[:, column].tolist(), nan_ok=True
            )


def test_trls_trainer_computes_our_matrix() -> None:
    trl = pytest.importorskip("trl")
    from accelerate import Accelerator

    ours, reward_set = multi_task(), RewardSet()
    functions = as_trl_rewards(reward_set)
    trainer = object.__new__(trl.GRPOTrainer)
    trainer.__dict__.update(
        accelerator=Accelerator(cpu=True), reward_funcs=functions, reward_processing_classes=[None] * 4,
        reward_func_names=[f.__name__ for f in functions], environments=None,
        state=SimpleNamespace(global_step=0), _name="t",
        args=SimpleNamespace(report_to=[]),
    )  # fmt: skip
    rows = [
        {"prompt": "?", "task": t, "mos": None if m != m else m, "distortion": d, "level": v, "image": None}
        for t, m, d, v in zip(ours.task, ours.mos.tolist(), ours.distortion, ours.level, strict=True)
    ]
    matrix = trainer._calculate_rewards(rows, ["?"] * 4, list(ours.texts), [[1]] * 4)
    expected = reward_set(ours).matrix
    assert torch.equal(matrix.isnan(), expected.isnan())
    assert torch.equal(matrix.nan_to_num(-9), expected.nan_to_num(-9))
