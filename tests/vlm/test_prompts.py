"""Questions: image first, vocabularies that agree with the data, completions that refuse nonsense."""

import pytest

from rali_zoo.data.synthetic.distortions import DISTORTIONS
from rali_zoo.errors import ConfigError, UnknownNameError
from rali_zoo.vlm.prompts import PROMPTS, messages, prompt, vocabulary, write_completion


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_the_image_stands_before_a_question_without_holes(name: str) -> None:
    turns = messages(prompt(name), image="photo.jpg", completion="<think>x</think>")
    user = next(t for t in turns if t["role"] == "user")
    assert [block["type"] for block in user["content"]] == ["image", "text"]
    assert user["content"][0]["image"] == "photo.jpg"
    question = str(user["content"][1]["text"])
    assert question and "{classes}" not in question and "{levels}" not in question
    assert (turns[0]["role"] == "system") == bool(prompt(name).system)
    assert turns[-1] == {"role": "assistant", "content": [{"type": "text", "text": "<think>x</think>"}]}
    assert messages(prompt(name))[-1]["content"][0] == {"type": "image"}


def test_prompts_name_their_answer() -> None:
    assert '"rating"' in prompt("score").text()
    text = prompt("degradation").text()
    assert all(word in text for word in ("noise, blur, jpeg, darken", "catastrophic", "distortion_class"))
    with pytest.raises(UnknownNameError, match="Did you mean 'score'"):
        prompt("scores")


def test_synthetic_vocabularies_cover_the_synthetic_data() -> None:
    types, families = vocabulary("synthetic"), vocabulary("synthetic-families")
    for name, distortion in DISTORTIONS.items():
        assert types.read_class(name) == name.replace("_", " ")
        assert families.read_class(name) == distortion.family
    assert types.read_class("pristine") == families.read_class("pristine") == "null"
    assert types.read_class("fog") is None and types.read_class(None) is None


@pytest.mark.parametrize(
    ("said", "level"),
    [
        ("slight", 1),
        ("Catastrophic", 5),
        (3, 3),
        ("4", 4),
        ("null", 0),
        (0, 0),
        (6, None),
        ("awful", None),
        (None, None),
    ],
)
def test_levels_by_word_and_number(said: int | str | None, level: int | None) -> None:
    assert vocabulary("q-insight").read_level(said) == level


def test_q_insight_accepts_the_names_of_the_compression_class() -> None:
    words = vocabulary("q-insight")
    assert [words.read_class(c) for c in ("JPEG compression", "compression", "Gaussian_noise")] == [
        "jpeg",
        "jpeg",
        "noise",
    ]


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"score": 3.0, "distortion": "noise"},
        {"score": 0.5},
        {"score": float("nan")},
        {"distortion": "noise", "level": 2},
        {"distortion": "noise", "level": 6, "words": vocabulary("q-insight")},
    ],
)
def test_completions_refuse_what_they_cannot_say(bad: dict) -> None:
    with pytest.raises(ConfigError):
        write_completion("seen", **bad)


def test_completions_refuse_tags_and_unknown_classes() -> None:
    with pytest.raises(ConfigError, match="tags"):
        write_completion("a </think> b", score=3)
    with pytest.raises(UnknownNameError, match="darken"):
        write_completion("seen", distortion="darkne", level=2, words=vocabulary("q-insight"))


def test_number_style() -> None:
    assert write_completion("a", score=3.456, style="number") == "<think>a</think><answer>3.46</answer>"


def test_trl_takes_our_messages_as_they_are() -> None:
    trl = pytest.importorskip("trl.data_utils")
    ours = messages(prompt("score"))
    assert trl.is_conversational({"prompt": ours})
    filled = trl.prepare_multimodal_messages(ours, images=["image"])
    assert filled == messages(prompt("score"), image="image")


def test_a_question_may_say_what_an_image_was_generated_from() -> None:
    asked = prompt("score-generated")
    about = asked.of('a "red"\n cat {classes}')
    assert 'from the text "a "red" cat {classes}"' in about.text() and about.text().endswith(asked.question)
    assert asked.of("").text() == prompt("score").text() == prompt("score").of("a cat").text()
    assert len(asked.of("x" * 10_000).text()) < 1000
    assert about.of("a dog") == about and hash(about) != hash(asked.of("a dog"))
