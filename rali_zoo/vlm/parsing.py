"""Reading ``<think>…</think><answer>…</answer>``: lenient about form, never guessing a value. No torch.

A value that is absent, given twice with different contents, or out of range is ``None`` with a reason in
``problems``. The published reward for such answers (Q-Insight's) demands a line break after every tag, which
its prompt never asks for; here white space means nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rali_zoo.types import MOS_RANGE

#: What an absent distortion, and its severity, is called after parsing.
NO_DISTORTION = "null"
_NOTHING = {"null", "none", "nil", "n/a", "pristine", "undistorted", "no distortion", "no distortions"}

SCORE_KEYS = ("rating", "score", "quality_score")
CLASS_KEYS = ("distortion_class", "distortion", "distortion_type")
LEVEL_KEYS = ("severity", "level", "distortion_level")

#: An opening or closing tag: group 1 is ``/`` for a closing one, group 2 its name.
TAG = re.compile(r"<[ \t]*(/?)[ \t]*(think|answer)[ \t]*>", re.IGNORECASE)
_FENCE = re.compile(r"```[A-Za-z]*")
_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_OUT_OF = r"(?:\s*(?:/|out of)\s*5(?:\.0+)?)?"
_BARE_SCORE = re.compile(
    rf"(?:(?:rating|score|quality_score)\s*[:=]\s*)?['\"]?({_NUMBER}){_OUT_OF}['\"]?\s*\.?", re.IGNORECASE
)
_SCORE = re.compile(rf"({_NUMBER}){_OUT_OF}", re.IGNORECASE)
_PAIR = re.compile(
    r"""(?<!\w)["']?(?P<key>[A-Za-z_]+)["']?\s*[:=]\s*
        (?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>(?:[^,{}\n"']|,(?=[0-9]))+))""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Parsed:
    """What one completion says.

    Attributes:
        think: the reasoning, without its tags; empty where there is none.
        answer: the text of the answer, without its tags.
        score: in [1, 5], higher is better; ``None`` where none can be read.
        distortion: lower-case class with single spaces; :data:`NO_DISTORTION` where the answer says that
            there is none; ``None`` where none can be read.
        level: a whole number, or a lower-case word, or :data:`NO_DISTORTION`; ``None`` where none can be
            read.
        format_grade: in [0, 1], a quarter each for: one closed ``<think>`` block with text in it; one closed
            ``<answer>`` block after it; a score or a class, all of it readable; nothing outside the two
            blocks.
        problems: short names of all that was wrong, in the order of reading; see :data:`PROBLEMS`.
    """

    think: str
    answer: str
    score: float | None
    distortion: str | None
    level: int | str | None
    format_grade: float
    problems: tuple[str, ...]


#: Every name that can stand in :attr:`Parsed.problems`, and what it means.
PROBLEMS = {
    "think-missing": "no <think> tag",
    "think-empty": "nothing between the think tags",
    "think-not-closed": "no </think>",
    "think-not-opened": "</think> without <think>; the text before it counts as the reasoning",
    "think-repeated": "more than one <think> block",
    "answer-missing": "no <answer> tag; what follows the reasoning counts as the answer",
    "answer-empty": "nothing between the answer tags",
    "answer-not-closed": "no </answer>",
    "answer-repeated": "several <answer> blocks; none is chosen",
    "text-outside": "text before, between or after the two blocks",
    "unparseable": "neither a score nor a class in the answer",
    "score-unparseable": "the rating is no number",
    "score-conflict": "several different ratings",
    "score-out-of-range": "the rating is not in [1, 5]",
    "distortion-conflict": "several different classes",
    "level-conflict": "several different severities",
}
_MISREAD = {p for p in PROBLEMS if p.endswith(("unparseable", "-conflict", "-out-of-range"))}


def parse(text: str) -> Parsed:
    """Read one completion; any text is taken, nothing is raised.

    Accepted: line breaks and spaces anywhere, tags in any case, a missing reasoning, code fences, JSON with
    double, single or no quotes, ``null`` quoted or not, a bare number in place of JSON, ``3.5/5``, and text
    after the JSON or after the answer (which costs a part of the format grade).
    """
    think, rest, before, problems = _split_think(text)
    answer, outside, answer_problems = _split_answer(rest)
    problems += answer_problems
    well_thought = not any(p.startswith("think") for p in problems)
    well_answered = not any(p.startswith("answer") for p in problems)
    if (before + outside).strip():
        problems.append("text-outside")
    if "answer-repeated" in problems:
        score, distortion, level = None, None, None
    else:
        score, distortion, level = _read(answer, problems)
    if score is None and distortion is None and "unparseable" not in problems:
        problems.append("unparseable")
    parts = (
        well_thought,
        well_answered,
        (score is not None or distortion is not None) and not _MISREAD & set(problems),
        well_answered and "text-outside" not in problems,
    )
    return Parsed(think, answer, score, distortion, level, sum(parts) / len(parts), tuple(problems))


def normal_class(text: str) -> str:
    """A class or severity as it is compared: lower case, single spaces, ``null`` for its synonyms."""
    plain = " ".join(text.replace("_", " ").split()).strip(" .").lower()
    return NO_DISTORTION if plain in _NOTHING else plain


def _tags(text: str, name: str) -> list[tuple[int, int, bool]]:
    """(start, end, whether it closes) of each tag of that name."""
    return [(m.start(), m.end(), bool(m[1])) for m in TAG.finditer(text) if m[2].lower() == name]


def _split_think(text: str) -> tuple[str, str, str, list[str]]:
    """Reasoning, what follows it, what precedes it, problems."""
    tags = _tags(text, "think")
    opened = [t for t in tags if not t[2]]
    closed = [t for t in tags if t[2]]
    if not tags:
        return "", text, "", ["think-missing"]
    problems = ["think-repeated"] if len(opened) > 1 or len(closed) > 1 else []
    if not opened:
        think, before = text[: closed[-1][0]], ""
        problems.append("think-not-opened")
    else:
        start, before = opened[0][1], text[: opened[0][0]]
        if not closed or closed[-1][0] < start:
            # An answer inside an unclosed reasoning still is the answer.
            first = next((t[0] for t in _tags(text, "answer") if not t[2] and t[0] >= start), len(text))
            problems.append("think-not-closed")
            think = text[start:first].strip()
            return think, text[first:], before, problems + ([] if think else ["think-empty"])
        think = text[start : closed[-1][0]]
    if not think.strip():
        problems.append("think-empty")
    return think.strip(), text[closed[-1][1] :], before, problems


def _split_answer(text: str) -> tuple[str, str, list[str]]:
    """Answer, text outside it, problems."""
    tags = _tags(text, "answer")
    opened = [t for t in tags if not t[2]]
    if not opened:
        end = tags[0][0] if tags else len(text)
        answer = text[:end].strip()
        return answer, text[tags[0][1] :] if tags else "", ["answer-missing"]
    start = opened[0]
    if len(opened) > 1:
        return text[start[1] :].strip(), text[: start[0]], ["answer-repeated"]
    stop = next((t for t in tags if t[2] and t[0] >= start[1]), None)
    if stop is None:
        return text[start[1] :].strip(), text[: start[0]], ["answer-not-closed"]
    answer = text[start[1] : stop[0]].strip()
    return answer, text[: start[0]] + text[stop[1] :], [] if answer else ["answer-empty"]


def _read(answer: str, problems: list[str]) -> tuple[float | None, str | None, int | str | None]:
    """Score, class and level of an answer; adds to the problems."""
    plain = _FENCE.sub("", answer).strip()
    bare = _BARE_SCORE.fullmatch(plain)
    if bare:
        return _in_range(bare[1], problems), None, None
    found: dict[str, list[str]] = {}
    for match in _PAIR.finditer(plain):
        value = next(v for v in (match["double"], match["single"], match["bare"]) if v is not None)
        found.setdefault(match["key"].lower(), []).append(value.strip())
    score = _only(found, SCORE_KEYS, "score-conflict", problems)
    distortion = _only(found, CLASS_KEYS, "distortion-conflict", problems)
    level = _only(found, LEVEL_KEYS, "level-conflict", problems)
    return (
        _score(score, problems) if score is not None else None,
        normal_class(distortion) or None if distortion is not None else None,
        _level(level) if level is not None else None,
    )


def _only(found: dict[str, list[str]], keys: tuple[str, ...], name: str, problems: list[str]) -> str | None:
    """The one value given under any of the keys."""
    values = [value for key in keys for value in found.get(key, [])]
    if len(set(values)) > 1:
        problems.append(name)
        return None
    return values[0] if values else None


def _score(value: str, problems: list[str]) -> float | None:
    match = _SCORE.fullmatch(value)
    if match is None:
        problems.append("score-unparseable")
        return None
    return _in_range(match[1], problems)


def _in_range(number: str, problems: list[str]) -> float | None:
    value = float(number)
    if not MOS_RANGE[0] <= value <= MOS_RANGE[1]:
        problems.append("score-out-of-range")
        return None
    return value


def _level(value: str) -> int | str | None:
    plain = normal_class(value).removeprefix("level ")
    # More digits than any scale has would only be an attack on int().
    return int(plain) if re.fullmatch(r"[0-9]{1,3}", plain) else plain or None
