"""What the model is asked and how a right answer is written. No torch.

The image stands before the question, in training and in inference alike: the released demo of Q-Insight
turns the order round after training, and a model then answers a prompt that it never saw. The wording is
ours; the keys of the JSON answers are Q-Insight's, so that its weights and ours are read by the same parser.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal, TypedDict

from rali_zoo.errors import ConfigError, UnknownNameError
from rali_zoo.vlm.parsing import NO_DISTORTION, TAG, normal_class

Task = Literal["score", "degradation"]
AnswerStyle = Literal["json", "number"]


class Message(TypedDict):
    """One turn of a conversation in the chat format of transformers."""

    role: Literal["system", "user", "assistant"]
    content: list[dict[str, object]]


@dataclass(frozen=True)
class Vocabulary:
    """The classes and severities an answer may name.

    Attributes:
        classes: lower case, single spaces; the last one is :data:`NO_DISTORTION`.
        levels: words for levels 1 (faintest) to 5.
        aliases: other spellings of classes.
    """

    classes: tuple[str, ...]
    levels: tuple[str, ...]
    aliases: dict[str, str] = field(default_factory=dict)

    def read_class(self, text: str | None) -> str | None:
        """The class that a text names; ``None`` where it names none of this vocabulary."""
        if text is None:
            return None
        plain = normal_class(text)
        plain = self.aliases.get(plain, plain)
        return plain if plain in self.classes else None

    def read_level(self, value: int | str | None) -> int | None:
        """The level 1 to 5 that a number or word means, 0 for none; ``None`` where it means nothing."""
        if isinstance(value, int):
            return value if 0 <= value <= len(self.levels) else None
        if value is None:
            return None
        plain = normal_class(value)
        if plain == NO_DISTORTION:
            return 0
        if plain in self.levels:
            return self.levels.index(plain) + 1
        return int(plain) if plain in {str(n) for n in range(len(self.levels) + 1)} else None


_LEVELS = ("slight", "moderate", "obvious", "serious", "catastrophic")


def _q_insight() -> Vocabulary:
    aliases = {
        "compression": "jpeg", "jpeg compression": "jpeg", "compression artifacts": "jpeg",
        "blurring": "blur", "gaussian blur": "blur", "lens blur": "blur", "motion blur": "blur",
        "white noise": "noise", "gaussian noise": "noise", "impulse noise": "noise",
        "darkness": "darken", "darkening": "darken", "dark": "darken",
    }  # fmt: skip
    return Vocabulary(("noise", "blur", "jpeg", "darken", NO_DISTORTION), _LEVELS, aliases)


def _synthetic() -> Vocabulary:
    from rali_zoo.data.synthetic.distortions import DISTORTIONS

    return Vocabulary((*(name.replace("_", " ") for name in DISTORTIONS), NO_DISTORTION), _LEVELS)


def _synthetic_families() -> Vocabulary:
    from rali_zoo.data.synthetic.distortions import DISTORTIONS

    families = dict.fromkeys(d.family for d in DISTORTIONS.values())
    aliases = {name.replace("_", " "): str(d.family) for name, d in DISTORTIONS.items()}
    return Vocabulary((*families, NO_DISTORTION), _LEVELS, aliases)


#: Name to what builds the vocabulary; ``q-insight`` is the paper's: four distortions, five levels.
VOCABULARIES = {
    "q-insight": _q_insight,
    "synthetic": _synthetic,
    "synthetic-families": _synthetic_families,
}


@cache
def vocabulary(name: str) -> Vocabulary:
    """A vocabulary by name; raises :class:`UnknownNameError`."""
    if name not in VOCABULARIES:
        raise UnknownNameError("vocabulary", name, VOCABULARIES)
    return VOCABULARIES[name]()


@dataclass(frozen=True)
class Prompt:
    """A question about an image.

    Attributes:
        task: what the answer is graded on.
        system: the system turn; empty for none.
        question: the user's turn after the image; ``{classes}`` and ``{levels}`` stand for the vocabulary.
        style: whether the answer is JSON or a bare number.
        vocabulary: name of the classes and severities; empty for the score task.
        origin: said first of a generated image, ``{prompt}`` standing for what it was generated from; empty for
            questions that do not mention it.
    """

    task: Task
    system: str
    question: str
    style: AnswerStyle = "json"
    vocabulary: str = ""
    origin: str = ""

    def of(self, generated_from: str) -> Prompt:
        """The question about an image that was generated from a text; of any other image if that is empty."""
        if not self.origin:
            return self
        said = " ".join(generated_from.split())[:_LONGEST]
        told = self.origin.replace("{prompt}", said) if said else ""
        return replace(self, question=told + self.question, origin="")

    def text(self) -> str:
        """The question with its vocabulary filled in."""
        if not self.vocabulary:
            return self.question
        words = vocabulary(self.vocabulary)
        classes = ", ".join(words.classes[:-1])
        return self.question.replace("{classes}", classes).replace("{levels}", ", ".join(words.levels))


_SYSTEM = (
    "You judge the technical quality of photographs. Look first and write down what you see between <think> "
    "and </think>. Then give your verdict between <answer> and </answer>, and write nothing after it."
)
_SCORE = (
    "How good is the quality of this picture as a whole? Consider sharpness, noise, compression, exposure, "
    "colour and composition. Rate it from 1.00 (very bad) to 5.00 (excellent) with two decimals. "
)
_ORIGIN = 'This picture was generated from the text "{prompt}". '
_LONGEST = 500  # characters of such a text that are repeated
_DEGRADATION = (
    "Which distortion damages this picture most, and how badly? The distortion is one of: {classes}; or null "
    "where the picture is clean. The severity is one of: {levels}; or null. "
    'Answer in JSON: {"distortion_class": …, "severity": …}.'
)

#: Name to prompt. Those that end in ``-short`` suit models of a few million parameters, for which every token
#: of a prompt is costly and no instruction is understood anyway.
PROMPTS = {
    "score": Prompt("score", _SYSTEM, _SCORE + 'Answer in JSON: {"rating": x.xx}.'),
    "score-number": Prompt("score", _SYSTEM, _SCORE + "Answer with the number alone.", "number"),
    "score-short": Prompt("score", "", "Rate the quality."),
    "score-generated": Prompt("score", _SYSTEM, _SCORE + 'Answer in JSON: {"rating": x.xx}.', origin=_ORIGIN),
    "score-generated-short": Prompt("score", "", "Rate the quality.", origin='Made from "{prompt}". '),
    "degradation": Prompt("degradation", _SYSTEM, _DEGRADATION, vocabulary="q-insight"),
    "degradation-synthetic": Prompt("degradation", _SYSTEM, _DEGRADATION, vocabulary="synthetic"),
    "degradation-families": Prompt("degradation", _SYSTEM, _DEGRADATION, vocabulary="synthetic-families"),
    "degradation-short": Prompt("degradation", "", "Name the distortion.", vocabulary="synthetic"),
}


def prompt(name: str) -> Prompt:
    """A prompt by name; raises :class:`UnknownNameError`."""
    if name not in PROMPTS:
        raise UnknownNameError("prompt", name, PROMPTS)
    return PROMPTS[name]


def score_prompt(name: str) -> Prompt:
    """The question of the score task with a name; raises :class:`ConfigError` for one of another task."""
    asked = prompt(name)
    if asked.task != "score":
        raise ConfigError(f"prompt={name!r} asks about the degradation; give one of the score task")
    return asked


def messages(asked: Prompt, image: object = None, completion: str | None = None) -> list[Message]:
    """The conversation for ``processor.apply_chat_template``: image first, then the question.

    Args:
        asked: the prompt.
        image: a PIL image, path or URL; ``None`` leaves a placeholder for images that the processor gets
            apart (also what TRL's ``prepare_multimodal_messages`` fills).
        completion: the assistant's turn, for supervised training; ``None`` where it is to be generated.
    """
    shown: dict[str, object] = {"type": "image"} if image is None else {"type": "image", "image": image}
    turns: list[Message] = []
    if asked.system:
        turns.append({"role": "system", "content": [{"type": "text", "text": asked.system}]})
    turns.append({"role": "user", "content": [shown, {"type": "text", "text": asked.text()}]})
    if completion is not None:
        turns.append({"role": "assistant", "content": [{"type": "text", "text": completion}]})
    return turns


def write_completion(
    think: str,
    score: float | None = None,
    distortion: str | None = None,
    level: int = 0,
    words: Vocabulary | None = None,
    style: AnswerStyle = "json",
) -> str:
    """The completion a model should write, for supervised training.

    Args:
        think: the description; must not contain the tags.
        score: in [1, 5]; written with two decimals. Give either this or a distortion.
        distortion: a class of the vocabulary, or one of its aliases.
        level: 1 to 5; ignored for :data:`NO_DISTORTION`.
        words: the vocabulary; needed for a distortion.
        style: how a score is written.

    Raises:
        ConfigError: neither or both of score and distortion, a score outside [1, 5], a class or level that
            the vocabulary does not know, or tags in ``think``.
    """
    if TAG.search(think):
        raise ConfigError("think contains <think> or <answer> tags; give the plain description")
    if (score is None) == (distortion is None):
        raise ConfigError("give either a score or a distortion, not both and not neither")
    if score is not None:
        if not 1 <= score <= 5:
            raise ConfigError(f"score {score} is not in [1, 5]; map it to that scale first")
        answer = f"{score:.2f}" if style == "number" else f'{{"rating": {score:.2f}}}'
    else:
        answer = _degradation_answer(str(distortion), level, words)
    return f"<think>{think.strip()}</think><answer>{answer}</answer>"


def _degradation_answer(distortion: str, level: int, words: Vocabulary | None) -> str:
    if words is None:
        raise ConfigError("a distortion needs its vocabulary: words=vocabulary('q-insight')")
    name = words.read_class(distortion)
    if name is None:
        raise UnknownNameError("class of the vocabulary", distortion, words.classes)
    if name == NO_DISTORTION:
        return json.dumps({"distortion_class": None, "severity": None})
    if not 1 <= level <= len(words.levels):
        raise ConfigError(f"level {level} of {name!r}: levels are 1 to {len(words.levels)}")
    return json.dumps({"distortion_class": name, "severity": words.levels[level - 1]})
