"""Watching for collapse: the reward can rise while the texts die.

In our trials without a KL term every description became the same sentence while SRCC improved, so no
correlation alone may judge a run. :class:`CollapseMonitor` looks at the newest completions and warns by
name, once; :func:`text_only_srcc` asks whether the words alone predict the score.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rali_zoo.errors import ConfigError
from rali_zoo.metrics import explain_undefined, srcc
from rali_zoo.rl.rewards import Rollouts, plain_thought

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_WORD = r"[^\W\d_]+"


class CollapseWarning(UserWarning):
    """A named check of :class:`CollapseMonitor` failed; the name stands first in the message."""


@dataclass(frozen=True)
class Limits:
    """When a check fails. All are over the window of the newest completions.

    The defaults are meant to be quiet in a healthy run: in our trials of a model of 0.8 M parameters healthy
    texts were 15 % distinct and collapsed ones under 1 %, with 2 distinct scores.

    Attributes:
        distinct_texts: least share of distinct reasonings, numbers aside (``texts-collapsed``).
        distinct_scores: least number of distinct scores among parsed ones (``scores-collapsed``).
        parse_failures: greatest share of unparseable answers (``parse-failures``).
        truncated: greatest share cut at the length limit (``truncated``).
        zero_variance: greatest share of groups with equal rewards (``no-signal``).
        entropy: least mean entropy of a token in nats (``entropy-floor``).
    """

    distinct_texts: float = 0.05
    distinct_scores: int = 4
    parse_failures: float = 0.2
    truncated: float = 0.2
    zero_variance: float = 0.8
    entropy: float = 0.02

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not math.isfinite(value):
                raise ConfigError(f"limits.{name}={value} is no finite number")


@dataclass(frozen=True)
class _Check:
    """One row of the table of checks: a value, whether it is too low or too high, and what to do."""

    value: str
    limit: str
    below: bool
    advice: str


CHECKS = {
    "texts-collapsed": _Check(
        "distinct_texts", "distinct_texts", True,
        "all images get the same words: raise grpo.beta, add diversity_guard, freeze the vision encoder",
    ),
    "scores-collapsed": _Check(
        "distinct_scores", "distinct_scores", True,
        "almost all images get the same score: raise grpo.beta or reward with score_gaussian or "
        "thurstone_fidelity",
    ),
    "parse-failures": _Check(
        "parse_failures", "parse_failures", False,
        "answers cannot be parsed: look at a few texts; a supervised warm start teaches the form",
    ),
    "truncated": _Check(
        "truncated", "truncated", False,
        "completions are cut before their answer: raise the length limit or add length_guard",
    ),
    "no-signal": _Check(
        "zero_variance", "zero_variance", False,
        "rollouts of an image earn equal rewards, so nothing is learned: raise the temperature or the "
        "number of rollouts, or use a continuous reward",
    ),
    "entropy-floor": _Check(
        "entropy", "entropy", True,
        "sampling is nearly deterministic: raise grpo.beta or the temperature",
    ),
}  # fmt: skip


class CollapseMonitor:
    """Checks over the newest completions of this process.

    Values are there from the first update; checks begin when the window is full, because the share of
    distinct texts falls with the number looked at and can only be compared at equal numbers.

    Args:
        window: completions that are looked at.
        limits: when a check fails.

    Attributes:
        failed: names of the checks that failed so far, in order.
    """

    def __init__(self, window: int = 256, limits: Limits | None = None) -> None:
        if window < 8:
            raise ConfigError(
                f"monitor: window={window} is too small to show anything; at least 8 completions"
            )
        self.window = window
        self.limits = limits or Limits()
        self.failed: list[str] = []
        self._texts: deque[str] = deque(maxlen=window)
        self._scores: deque[float | None] = deque(maxlen=window)
        self._parsed: deque[bool] = deque(maxlen=window)
        self._truncated: deque[bool] = deque(maxlen=window)
        self._equal: deque[bool] = deque(maxlen=window)
        self._entropy: deque[float] = deque(maxlen=window)

    def update(
        self,
        rollouts: Rollouts,
        rewards: Sequence[float],
        group_size: int,
        truncated: Sequence[bool],
        entropy: Sequence[float],
    ) -> list[str]:
        """Take in N completions and warn of every check that fails for the first time.

        Args:
            rollouts: the completions; of the columns only ``task`` is read.
            rewards: N totals, the rollouts of an image side by side; NaN where nothing could be graded.
            group_size: rollouts an image.
            truncated: N, whether generation ended at the length limit.
            entropy: N, mean entropy of a completion's tokens in nats.

        Returns:
            Names of the checks that failed for the first time.
        """
        n = len(rollouts.texts)
        if not n == len(rewards) == len(truncated) == len(entropy) or n % group_size:
            raise ConfigError(
                f"monitor: {n} texts, {len(rewards)} rewards, {len(truncated)} truncated, {len(entropy)} "
                f"entropies in groups of {group_size} do not fit together"
            )
        for parsed, task in zip(rollouts.parsed, rollouts.column("task"), strict=True):
            self._texts.append(plain_thought(parsed))
            answer = parsed.score if task == "score" else parsed.distortion
            self._parsed.append(answer is not None)
            if task == "score" and parsed.score is not None:
                self._scores.append(parsed.score)
        self._truncated.extend(map(bool, truncated))
        self._entropy.extend(float(e) for e in entropy)
        for start in range(0, n, group_size):
            group = [float(r) for r in rewards[start : start + group_size] if not math.isnan(r)]
            self._equal.extend([not group or max(group) - min(group) < 1e-6] * group_size)
        return self._warn()

    def values(self) -> dict[str, float]:
        """What the checks look at, for logging; those of which nothing is known yet are left out.

        ``distinct_texts``, ``parse_failures``, ``truncated`` and ``zero_variance`` are shares in [0, 1],
        ``distinct_scores`` a number, ``entropy`` in nats, ``commonest_text`` the share of the most frequent
        one.
        """
        found: dict[str, float] = {}
        if self._texts:
            counted = Counter(self._texts)
            found["distinct_texts"] = len(counted) / len(self._texts)
            found["commonest_text"] = max(counted.values()) / len(self._texts)
            found["parse_failures"] = 1 - sum(self._parsed) / len(self._parsed)
            found["truncated"] = sum(self._truncated) / len(self._truncated)
            found["zero_variance"] = sum(self._equal) / len(self._equal)
            found["entropy"] = sum(self._entropy) / len(self._entropy)
        if self._scores:
            found["distinct_scores"] = float(len(set(self._scores)))
        return found

    def _warn(self) -> list[str]:
        if len(self._texts) < self.window:
            return []
        values, new = self.values(), []
        # few scores have few distinct values: wait until there are enough
        if len(self._scores) < self.window // 2:
            values.pop("distinct_scores", None)
        for name, check in CHECKS.items():
            value, limit = values.get(check.value), getattr(self.limits, check.limit)
            if value is None or name in self.failed or not (value < limit if check.below else value > limit):
                continue
            self.failed.append(name)
            new.append(name)
            warnings.warn(
                f"{name}: {check.value} is {value:.3g} over the last {self.window} completions, the limit is "
                f"{limit:g}; {check.advice} (this warning comes once)",
                CollapseWarning,
                stacklevel=3,
            )
        return new


@dataclass(frozen=True)
class TextOnly:
    """How much of the score can be predicted from the words.

    Attributes:
        srcc: of the MOS and the predictions, in [-1, 1]; NaN where it is not defined.
        n: texts.
        distinct: distinct texts, numbers aside.
        reason: why ``srcc`` is NaN; empty where it is a number.
        predictions: (n,) out of fold, as differences from the mean MOS of the other folds.
    """

    srcc: float
    n: int
    distinct: int
    reason: str
    predictions: NDArray[np.float64] = field(repr=False)


def text_only_srcc(
    texts: Sequence[str],
    mos: Sequence[float],
    groups: Sequence[str] | None = None,
    encoder: str = "tfidf",
    folds: int = 5,
    seed: int = 0,
) -> TextOnly:
    """Is the score recoverable from the text alone? Cross-validated ridge regression of the MOS on the
    reasoning.

    Numbers are taken out first, so that a score that leaks into the reasoning does not count. Predictions are
    centred on each training fold: otherwise texts without information would seem to rank backwards, because the
    mean of the other folds is low where a fold is high.

    Args:
        texts: n completions, or plain descriptions without tags.
        mos: n human scores, finite; or the model's own scores, which asks for self-consistency instead.
        groups: n names; texts of one name (several of one image) stay in one fold. Each text its own if
            ``None``.
        encoder: ``tfidf`` (words and word pairs, fitted on the training folds) or a text encoder's reference.
        folds: parts of the cross-validation.
        seed: of the folds.

    Raises:
        ConfigError: other lengths than n, or fewer names than folds.
        UriError: an encoder that is no reference.
    """
    import numpy as np

    names = list(groups) if groups is not None else [str(i) for i in range(len(texts))]
    if not len(texts) == len(mos) == len(names):
        raise ConfigError(f"text_only_srcc: {len(texts)} texts, {len(mos)} MOS, {len(names)} groups")
    if folds < 2 or len(set(names)) < folds:
        raise ConfigError(
            f"text_only_srcc: {len(set(names))} images do not make {folds} folds; give more texts"
        )
    words, target = _words(texts), np.asarray(mos, dtype=np.float64)
    predictions = _out_of_fold(words, target, names, encoder, folds, seed)
    reason = explain_undefined(predictions, target) or ""
    return TextOnly(srcc(predictions, target), len(words), len(set(words)), reason, predictions)


def _words(texts: Sequence[str]) -> list[str]:
    """Reasonings without numbers; a text without any tag is taken whole."""
    from rali_zoo.vlm.parsing import TAG

    wrapped = [text if TAG.search(text) else f"<think>{text}</think>" for text in texts]
    return [plain_thought(p) for p in Rollouts(wrapped).parsed]


def _out_of_fold(
    words: list[str], target: NDArray[np.float64], names: list[str], encoder: str, folds: int, seed: int
) -> NDArray[np.float64]:
    """(n,) predictions of each text by a ridge that saw no text of its group, less the training mean."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold

    vectors = None
    if encoder != "tfidf":
        from rali_zoo.text import create_text_encoder

        vectors = create_text_encoder(encoder).encode(words).cpu().double().numpy()
    predictions = np.zeros(len(words))
    for train, test in GroupKFold(folds, shuffle=True, random_state=seed).split(words, groups=names):
        mean = target[train].mean()
        if vectors is not None:
            known, asked = vectors[train], vectors[test]
        elif any(re.search(_WORD, words[i]) for i in train):
            tfidf = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=_WORD)
            known = tfidf.fit_transform([words[i] for i in train])
            asked = tfidf.transform([words[i] for i in test])
        else:  # not one word: nothing can be predicted, the predictions stay 0
            continue
        ridge = RidgeCV(alphas=np.logspace(-2, 3, 6)).fit(known, target[train] - mean)
        predictions[test] = ridge.predict(asked)
    # what rounding errors leave of equal predictions must not rank; + 0.0 makes -0 a 0
    return predictions.round(9) + 0.0
