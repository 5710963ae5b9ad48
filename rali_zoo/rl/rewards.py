"""What a completion is worth. Nothing here knows a model, Lightning or TRL.

A reward is a row of :data:`REWARDS`: a factory (a class or a function) that takes the reward's own options as keyword
arguments and returns a function of :class:`Rollouts` to (N,) numbers, NaN where the reward does not apply to a
completion (a class reward on a question about the score). An unparseable answer to a question that was asked is
worth 0, not NaN: failing to answer must not pay. :class:`RewardSet` weighs several; :mod:`rali_zoo.rl.trl` hands
the same ones to TRL. How to add one: docs/add_a_reward.md.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rali_zoo.errors import ConfigError, UnknownNameError
from rali_zoo.registry import Table
from rali_zoo.vlm.parsing import NO_DISTORTION, Parsed, parse
from rali_zoo.vlm.prompts import Vocabulary, vocabulary

NAN = float("nan")
Option = float | int | str | bool


@dataclass(frozen=True)
class Rollouts:
    """N completions and what is known of their images; columns that no reward needs may be ``None``.

    Attributes:
        texts: the completions, decoded, without special tokens.
        task: ``score`` or ``degradation``: what was asked.
        dataset: reference of the data set.
        id: the image's name inside it; rollouts of one image share it.
        mos: in [1, 5], NaN or ``None`` where unknown.
        distortion: true class, several joined by ``;``; empty or ``None`` where unknown.
        level: true severity 1 to 5, one for all classes or one each joined by ``;``; 0 where unknown.
        length: tokens of each completion.
        limit: of length, at which generation stops, in tokens.
        vocabulary: name of the classes and severities that the question about the degradation offers.
        parsed: the texts, read; filled in here.
    """

    texts: Sequence[str]
    task: Sequence[str] | None = None
    dataset: Sequence[str] | None = None
    id: Sequence[str] | None = None
    mos: Sequence[float | None] | Tensor | None = None
    distortion: Sequence[str | None] | None = None
    level: Sequence[int | str | None] | None = None
    length: Sequence[int] | Tensor | None = None
    limit: int | None = None
    vocabulary: str = "q-insight"
    parsed: tuple[Parsed, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("task", "dataset", "id", "mos", "distortion", "level", "length"):
            column = getattr(self, name)
            if column is not None and len(column) != len(self.texts):
                raise ConfigError(f"rollouts: {name} has {len(column)} rows, texts has {len(self.texts)}")
        unknown = sorted(set(self.task or ()) - {"score", "degradation"})
        if unknown:
            raise UnknownNameError("task of a rollout", str(unknown[0]), ("score", "degradation"))
        object.__setattr__(self, "parsed", tuple(parse(text) for text in self.texts))

    def column(self, name: str) -> list:
        """A column as a list; raises :class:`ConfigError` where it is absent."""
        values = getattr(self, name)
        if values is None:
            raise ConfigError(f"a reward needs the column {name!r} of the rollouts, and it is absent")
        return values.tolist() if isinstance(values, Tensor) else list(values)

    def mos_of_task(self) -> Tensor:
        """(N,) MOS; NaN where the question was not about the score."""
        rows = zip(self.column("task"), self.column("mos"), strict=True)
        return torch.tensor([NAN if m is None or t != "score" else float(m) for t, m in rows])

    def scores(self) -> Tensor:
        """(N,) scores as read from the texts; NaN where none can be read."""
        return torch.tensor([NAN if p.score is None else p.score for p in self.parsed])

    def images(self) -> dict[tuple[str, str], list[int]]:
        """Positions by image, (dataset, id)."""
        found: dict[tuple[str, str], list[int]] = {}
        for position, key in enumerate(zip(self.column("dataset"), self.column("id"), strict=True)):
            found.setdefault((str(key[0]), str(key[1])), []).append(position)
        return found


# ---- on tensors --------------------------------------------------------------------------------------------


def within(pred: Tensor, mos: Tensor, epsilon: float) -> Tensor:
    """(N,) 1 where abs(pred - mos) < epsilon, else 0 (Q-Insight's score reward); NaN where the MOS is NaN.

    Compared as the decimal numbers that both are written as: binary noise of float32 (3.75 against 3.40 is nearer than
    0.35 in it) decides nothing.
    """
    distance = (pred.double() - mos.double()).abs().round(decimals=5)
    return torch.where(mos.isnan(), NAN, (distance < epsilon).float())


def gaussian(pred: Tensor, mos: Tensor, sigma: float) -> Tensor:
    """(N,) exp(-(pred - mos)^2 / (2 sigma^2)) in [0, 1], 0 where pred is NaN; NaN where the MOS is NaN.

    Unlike :func:`within` a near miss earns more than a far one, so that fewer groups earn equal rewards.
    """
    bell = torch.exp(-((pred - mos) ** 2) / (2 * sigma**2))
    return torch.where(mos.isnan(), NAN, bell.nan_to_num(0.0))


def thurstone(pred: Tensor, mos: Tensor, gamma: float) -> Tensor:
    """Fidelity of each rollout's comparisons with the other images (VisualQuality-R1's reward).

    p = Phi((q_ik - mean_j) / sqrt(var_i + var_j + gamma)) is the probability that image i, by its k-th
    rollout, is better than image j; the reward is the mean over j of sqrt(p t) + sqrt((1 - p)(1 - t)),
    with t = 1, 0.5 or 0 by the order of the MOS. Means and (unbiased) variances are those of the parseable
    rollouts.

    Args:
        pred: (B, K) scores, NaN where unparseable; all of one data set.
        mos: (B,) finite.
        gamma: positive, added to the variances; the released code's is 1e-6.

    Returns:
        (B, K) in [0, 1]: 0 for an unparseable rollout, NaN where no other image can be compared with.
    """
    pred, mos = pred.double(), mos.double()
    count = (~pred.isnan()).sum(dim=1)
    mean = pred.nanmean(dim=1)
    var = ((pred - mean[:, None]) ** 2).nansum(dim=1) / (count - 1).clamp_min(1)
    std = (var[:, None] + var[None, :] + gamma).sqrt()
    p = torch.special.ndtr((pred[:, :, None] - mean[None, None, :]) / std[:, None, :])
    t = ((torch.sign(mos[:, None] - mos[None, :]) + 1) / 2)[:, None, :]
    fidelity = (p * t).sqrt() + ((1 - p) * (1 - t)).sqrt()
    others = (count > 0)[None, :] & ~torch.eye(len(mos), dtype=torch.bool, device=mos.device)
    total = torch.where(others[:, None, :], fidelity, 0.0).sum(dim=2)
    reward = total / others.sum(dim=1, keepdim=True)  # 0 / 0 = NaN: nothing to compare with
    unparsed = pred.isnan() & (len(mos) > 1)
    return torch.where(unparsed, 0.0, reward).float()


def soft_overlong(length: Tensor, max_length: int, cache: int) -> Tensor:
    """(N,) 0 up to ``max_length - cache`` tokens, then down to -1 at ``max_length`` (DAPO, equation 13)."""
    return ((max_length - cache - length.float()) / cache).clamp(-1, 0)


# ---- rewards -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Format:
    """Form, in [0, 1] in quarters; answering another question than asked costs one.

    See :class:`~rali_zoo.vlm.parsing.Parsed`.
    """

    def __call__(self, rollouts: Rollouts) -> Tensor:
        """(N,) grades."""
        grades = []
        for parsed, task in zip(rollouts.parsed, rollouts.column("task"), strict=True):
            score, distortion = parsed.score is not None, parsed.distortion is not None
            beside = distortion and not score if task == "score" else score and not distortion
            grades.append(parsed.format_grade - (0.25 if beside else 0.0))
        return torch.tensor(grades).clamp_min(0)


@dataclass(frozen=True)
class ScoreWithin:
    """1 where the score is nearer than epsilon to the MOS, else 0.

    See :func:`within`.

    Attributes:
        epsilon: half width of the band in MOS units (Q-Insight: 0.35).
    """

    epsilon: float = 0.35

    def __post_init__(self) -> None:
        _above_0(self)

    def __call__(self, rollouts: Rollouts) -> Tensor:
        """(N,) in {0, 1}."""
        return within(rollouts.scores(), rollouts.mos_of_task(), self.epsilon)


@dataclass(frozen=True)
class ScoreGaussian:
    """A bell of width sigma around the MOS, in [0, 1].

    See :func:`gaussian`.

    Attributes:
        sigma: width of the bell in MOS units.
    """

    sigma: float = 0.5

    def __post_init__(self) -> None:
        _above_0(self)

    def __call__(self, rollouts: Rollouts) -> Tensor:
        """(N,) in [0, 1]."""
        return gaussian(rollouts.scores(), rollouts.mos_of_task(), self.sigma)


@dataclass(frozen=True)
class ThurstoneFidelity:
    """Ranking against the batch's other images of the same data set, in [0, 1].

    See :func:`thurstone`. NaN for the only image of its data set in a batch: give the DataModule a sampler that
    keeps a batch inside one data set. MOS scales of different data sets need no alignment.

    Attributes:
        gamma: added to the variances (VisualQuality-R1's released code: 1e-6).
    """

    gamma: float = 1e-6

    def __post_init__(self) -> None:
        _above_0(self)

    def __call__(self, rollouts: Rollouts) -> Tensor:
        """(N,) in [0, 1], NaN without another image."""
        mos, scores = rollouts.mos_of_task(), rollouts.scores()
        reward = torch.full((len(rollouts.texts),), NAN)
        sets: dict[str, list[list[int]]] = {}
        for (name, _), rows in rollouts.images().items():
            asked = [r for r in rows if not mos[r].isnan()]
            if asked:
                sets.setdefault(name, []).append(asked)
        for groups in sets.values():
            # groups are equal in size in training; a batch whose tail was cut is padded with unparseable rollouts
            width = max(map(len, groups))
            padded = [torch.cat([scores[g], scores.new_full((width - len(g),), NAN)]) for g in groups]
            values = thurstone(torch.stack(padded), torch.stack([mos[g[0]] for g in groups]), self.gamma)
            for group, row in zip(groups, values, strict=True):
                reward[group] = row[: len(group)]
        return reward


def _truth(distortion: object, level: object, words: Vocabulary) -> dict[str, set[int]]:
    """True classes of the vocabulary with their levels; empty where nothing is known."""
    names = [part.strip() for part in str(distortion or "").split(";") if part.strip()]
    parts = [part.strip() for part in str("" if level is None else level).split(";")]
    levels = parts if len(parts) == len(names) else parts[:1] * len(names)
    truth: dict[str, set[int]] = {}
    for name, text in zip(names, levels, strict=True):
        known = words.read_class(name)
        if known is not None:
            number = re.fullmatch(r"([0-9]+)(?:\.0+)?", text)
            truth.setdefault(known, set()).add(int(number[1]) if number else 0)
    return truth


@dataclass(frozen=True)
class DegradationClass:
    """1 where the named class is one of the image's, else 0; NaN where the class is unknown."""

    def __call__(self, rollouts: Rollouts) -> Tensor:
        """(N,) in {0, 1}."""
        return _degradation(rollouts, with_level=False)


@dataclass(frozen=True)
class DegradationLevel:
    """1 only where class and severity are right, as in Q-Insight; NaN where the level is unknown."""

    def __call__(self, rollouts: Rollouts) -> Tensor:
        """(N,) in {0, 1}."""
        return _degradation(rollouts, with_level=True)


def _degradation(rollouts: Rollouts, with_level: bool) -> Tensor:
    words, rewards = vocabulary(rollouts.vocabulary), []
    columns = (rollouts.column(name) for name in ("task", "distortion", "level"))
    for parsed, task, distortion, level in zip(rollouts.parsed, *columns, strict=True):
        truth = _truth(distortion, level, words) if task == "degradation" else {}
        known = any(name == NO_DISTORTION or max(levels) > 0 for name, levels in truth.items())
        if not truth or (with_level and not known):
            rewards.append(NAN)
            continue
        named = words.read_class(parsed.distortion)
        right = named in truth
        if with_level and named is not None and right:
            answered = words.read_level(parsed.level)
            clean = named == NO_DISTORTION
            right = answered in (0, None) if clean else bool(answered) and answered in truth[named]
        rewards.append(float(right))
    return torch.tensor(rewards)


@dataclass(frozen=True)
class LengthGuard:
    """0, falling to -1 over the last cache tokens before the limit of length.

    See :func:`soft_overlong`.

    Attributes:
        cache: tokens, at least 1; of a limit that is smaller, all.
    """

    cache: int = 64

    def __post_init__(self) -> None:
        _above_0(self)

    def __call__(self, rollouts: Rollouts) -> Tensor:
        """(N,) in [-1, 0]; raises :class:`ConfigError` for rollouts without a limit."""
        if rollouts.limit is None:
            raise ConfigError("length_guard needs the limit of length: Rollouts(limit=…)")
        length = torch.tensor(rollouts.column("length"))
        return soft_overlong(length, rollouts.limit, min(self.cache, rollouts.limit))


def plain_thought(parsed: Parsed) -> str:
    """The reasoning without numbers, case and white space: what must differ between different images."""
    return " ".join(re.sub(r"[0-9]+(?:[.,][0-9]+)*", " ", parsed.think).lower().split())


@dataclass(frozen=True)
class DiversityGuard:
    """1 / (images of the batch that were described in these words), in (0, 1]; NaN for a lone image.

    Rollouts of one image may agree: a sure model repeats itself. One sentence for all images may not, and
    earns 1 / B for each. Numbers do not make a text different.
    """

    def __call__(self, rollouts: Rollouts) -> Tensor:
        """(N,) in (0, 1]."""
        images = list(rollouts.images().values())
        if len(images) < 2:
            return torch.full((len(rollouts.texts),), NAN)
        thoughts = [plain_thought(p) for p in rollouts.parsed]
        described: dict[str, set[int]] = {}
        for number, rows in enumerate(images):
            for row in rows:
                described.setdefault(thoughts[row], set()).add(number)
        return torch.tensor([1 / len(described[thought]) for thought in thoughts])


def _above_0(reward: object) -> None:
    for name, value in vars(reward).items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{name}={value} must be a number above 0")


Reward = Callable[[Rollouts], Tensor]

#: Name to factory; packages add rows with the entry-point group ``rali_zoo.rewards``.
REWARDS = Table(
    "reward",
    "rali_zoo.rewards",
    {
        "format": "rali_zoo.rl.rewards:Format",
        "score_within": "rali_zoo.rl.rewards:ScoreWithin",
        "score_gaussian": "rali_zoo.rl.rewards:ScoreGaussian",
        "thurstone_fidelity": "rali_zoo.rl.rewards:ThurstoneFidelity",
        "degradation_class": "rali_zoo.rl.rewards:DegradationClass",
        "degradation_level": "rali_zoo.rl.rewards:DegradationLevel",
        "length_guard": "rali_zoo.rl.rewards:LengthGuard",
        "diversity_guard": "rali_zoo.rl.rewards:DiversityGuard",
    },
)

#: Q-Insight: format + score, or format + 0.25 class + 0.75 level.
Q_INSIGHT = {"format": 1.0, "score_within": 1.0, "degradation_class": 0.25, "degradation_level": 0.75}
#: Where the options are that 0.1.0 kept for all rewards together; two more now follow from limit and question.
_OF_0_1 = {
    "epsilon": ("score_within", "epsilon"),
    "sigma": ("score_gaussian", "sigma"),
    "gamma": ("thurstone_fidelity", "gamma"),
    "length_cache": ("length_guard", "cache"),
    "max_length": None,
    "vocabulary": None,
}


def options_of(name: str) -> dict[str, inspect.Parameter]:
    """The options that a reward takes, with their types and defaults; raises :class:`UnknownNameError`."""
    return dict(inspect.signature(REWARDS[name]).parameters)


def create_reward(name: str, options: Mapping[str, Option]) -> Reward:
    """A reward with its options.

    Raises:
        UnknownNameError: no such reward, or no such option of it.
        ConfigError: a value that it refuses.
    """
    known = options_of(name)
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of the reward {name}", option, known)
    try:
        return REWARDS[name](**options)  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"reward {name}: {error}") from error


def _by_reward(
    given: Mapping[str, Option | Mapping[str, Option]], weights: Mapping[str, float]
) -> dict[str, dict[str, Option]]:
    """Options by reward; the flat ones of 0.1.0 go to theirs, as far as it has a weight."""
    found: dict[str, dict[str, Option]] = {}
    for name, value in given.items():
        if isinstance(value, Mapping):
            if name not in weights:
                raise UnknownNameError("reward with a weight", name, weights)
            found.setdefault(name, {}).update(value)
        elif name not in _OF_0_1:
            raise ConfigError(f"reward_options.{name}={value!r}: give {{REWARD: {{{name}: {value!r}}}}}")
        elif (place := _OF_0_1[name]) is not None and place[0] in weights:
            found.setdefault(place[0], {})[place[1]] = value
    return found


@dataclass(frozen=True)
class Graded:
    """The rewards of N completions.

    Attributes:
        names: of the R rewards, in the order of the columns.
        matrix: (N, R) unweighted; NaN where a reward does not apply.
        total: (N,) weighted sum of those that apply; NaN where none does.
    """

    names: tuple[str, ...]
    matrix: Tensor
    total: Tensor

    def logs(self) -> dict[str, float]:
        """Mean, standard deviation and share of completions that it applies to, of each reward and the total.

        A reward that applied nowhere logs only ``…/applies`` = 0. The deviation is that of the N values
        (unbiased), 0 for fewer than two.
        """
        values: dict[str, float] = {}
        for name, column in zip((*self.names, "total"), (*self.matrix.T, self.total), strict=True):
            known = column[~column.isnan()]
            values[f"reward/{name}/applies"] = len(known) / max(len(column), 1)
            if len(known):
                values[f"reward/{name}/mean"] = float(known.mean())
                values[f"reward/{name}/std"] = float(known.std()) if len(known) > 1 else 0.0
        return values


class RewardSet:
    """Several rewards and their weights.

    Args:
        weights: reward to weight; :data:`Q_INSIGHT` if ``None``.
        options: reward to its own options; the flat ones of 0.1.0 are understood.

    Raises:
        UnknownNameError: no such reward, option, or weight for options that are given.
        ConfigError: no reward at all, a weight that is not finite, or an option that a reward refuses.
    """

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        options: Mapping[str, Option | Mapping[str, Option]] | None = None,
    ) -> None:
        self.weights = dict(Q_INSIGHT if weights is None else weights)
        if not self.weights:
            raise ConfigError("rewards: give at least one weight, e.g. {format: 1, score_gaussian: 1}")
        for name, weight in self.weights.items():
            if not math.isfinite(weight):
                raise ConfigError(f"rewards.{name}={weight} is no finite number")
        own = _by_reward(options or {}, self.weights)
        self._rewards = {name: create_reward(name, own.get(name, {})) for name in self.weights}

    def grade(self, name: str, rollouts: Rollouts) -> Tensor:
        """(N,) one reward, float32 on the CPU, unweighted; raises :class:`ConfigError` for another shape."""
        values = self._rewards[name](rollouts).float().cpu()
        if values.shape != (len(rollouts.texts),):
            raise ConfigError(
                f"reward {name!r} gave shape {tuple(values.shape)} for {len(rollouts.texts)} texts"
            )
        return values

    def __call__(self, rollouts: Rollouts) -> Graded:
        """Grade N completions."""
        matrix = torch.stack([self.grade(name, rollouts) for name in self.weights], dim=1)
        weights = torch.tensor(list(self.weights.values()))
        total = torch.where(matrix.isnan().all(dim=1), NAN, (matrix * weights).nansum(dim=1))
        return Graded(tuple(self.weights), matrix, total)
