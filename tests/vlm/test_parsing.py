"""Reading answers: what is accepted, what is refused, and that nothing is ever guessed or raised."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rali_zoo.vlm.parsing import PROBLEMS, parse
from rali_zoo.vlm.prompts import VOCABULARIES, vocabulary, write_completion

GOOD = '<think>\nSoft edges.\n</think>\n<answer>\n{"rating": 3.42}\n</answer>'


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        '<think>Soft edges.</think><answer>{"rating": 3.42}</answer>',
        '  <think> Soft edges.\n\n</think> \n\n <answer>{"rating":3.42}</answer> \n',
        "<THINK>Soft edges.</THINK><Answer>{'rating': 3.42}</Answer>",
        '<think>Soft edges.</think><answer>```json\n{\n  "rating": 3.42\n}\n```</answer>',
        "<think>Soft edges.</think><answer>{rating: 3.42}</answer>",
        '<think>Soft edges.</think><answer>{"rating": "3.42"}</answer>',
        '<think>Soft edges.</think><answer>{"rating": 3.42,}</answer>',
        '<think>Soft edges.</think><answer>{"score": 3.42/5}</answer>',
        "<think>Soft edges.</think><answer>3.42</answer>",
        "<think>Soft edges.</think><answer> 3.42 / 5. </answer>",
        "<think>Soft edges.</think><answer>Rating: 3.42</answer>",
        '<think>Soft edges.</think><answer>{"rating": 3.42} as explained</answer>',
    ],
)
def test_all_spellings_of_a_good_answer(text: str) -> None:
    parsed = parse(text)
    assert (parsed.think, parsed.score) == ("Soft edges.", 3.42)
    assert (parsed.format_grade, parsed.problems) == (1.0, ())


@pytest.mark.parametrize(
    ("text", "score", "grade", "problems"),
    [
        ('<answer>{"rating": 3.42}</answer>', 3.42, 0.75, ("think-missing",)),
        ("3.42", 3.42, 0.25, ("think-missing", "answer-missing")),
        (GOOD + " I hope it helps", 3.42, 0.75, ("text-outside",)),
        ("Sure! " + GOOD, 3.42, 0.75, ("text-outside",)),
        ("<think></think><answer>2</answer>", 2.0, 0.75, ("think-empty",)),
        ("soft</think><answer>2</answer>", 2.0, 0.75, ("think-not-opened",)),
        ("<think>soft<answer>2</answer>", 2.0, 0.75, ("think-not-closed",)),
        ("<think>soft</think><answer>2", 2.0, 0.5, ("answer-not-closed",)),
        ("<think>soft</think>{'rating': 2}", 2.0, 0.5, ("answer-missing",)),
        ("<think>soft</think>", None, 0.25, ("answer-missing", "unparseable")),
        (
            "<think>s</think><answer>2</answer><answer>4</answer>",
            None,
            0.25,
            ("answer-repeated", "unparseable"),
        ),
        ("<think>s</think><answer>9.5</answer>", None, 0.75, ("score-out-of-range", "unparseable")),
        ("<think>s</think><answer>0.99</answer>", None, 0.75, ("score-out-of-range", "unparseable")),
        (
            "<think>s</think><answer>{'rating': 65}</answer>",
            None,
            0.75,
            ("score-out-of-range", "unparseable"),
        ),
        (
            "<think>s</think><answer>{'rating': NaN}</answer>",
            None,
            0.75,
            ("score-unparseable", "unparseable"),
        ),
        (
            "<think>s</think><answer>{'rating': 3,45}</answer>",
            None,
            0.75,
            ("score-unparseable", "unparseable"),
        ),
        (
            "<think>s</think><answer>{'rating': 3-4}</answer>",
            None,
            0.75,
            ("score-unparseable", "unparseable"),
        ),
        (
            "<think>s</think><answer>{'rating': x.xx}</answer>",
            None,
            0.75,
            ("score-unparseable", "unparseable"),
        ),
        ("<think>s</think><answer>about 3 or 4</answer>", None, 0.75, ("unparseable",)),
        ("<think>s</think><answer>3 of 4</answer>", None, 0.75, ("unparseable",)),
        (
            "<think>s</think><answer>{'rating': 2} {'rating': 4}</answer>",
            None,
            0.75,
            ("score-conflict", "unparseable"),
        ),
        ("", None, 0.0, ("think-missing", "answer-missing", "unparseable")),
    ],
)
def test_defects_are_named_and_graded(text: str, score: float | None, grade: float, problems: tuple) -> None:
    parsed = parse(text)
    assert (parsed.score, parsed.format_grade, parsed.problems) == (score, grade, problems)


def test_an_answer_spoken_of_while_thinking_is_not_the_answer() -> None:
    text = "<think>I could put <answer>5</answer> here.</think><answer>2</answer>"
    assert parse(text).score == 2


@pytest.mark.parametrize(
    ("answer", "distortion", "level"),
    [
        ('{"distortion_class": "noise", "severity": "slight"}', "noise", "slight"),
        ('{"distortion_class": null, "severity": null}', "null", "null"),
        ('{"distortion_class": "null", "severity": "null"}', "null", "null"),
        ("{'distortion_class': None, 'severity': None}", "null", "null"),
        ('{"distortion_class": "JPEG  Compression", "severity": "Serious."}', "jpeg compression", "serious"),
        ('{"distortion": "motion_blur", "level": 3}', "motion blur", 3),
        ('{"distortion": "motion blur", "severity": "level 3"}', "motion blur", 3),
        ("distortion_class: blur\nseverity: obvious", "blur", "obvious"),
        ('{"distortion_class": "noise"}', "noise", None),
        ('{"distortion_class": ""}', None, None),
    ],
)
def test_classes_and_levels(answer: str, distortion: str | None, level: int | str | None) -> None:
    parsed = parse(f"<think>grain</think><answer>{answer}</answer>")
    assert (parsed.distortion, parsed.level) == (distortion, level)
    assert parsed.format_grade == (1.0 if distortion else 0.75)


FRAGMENTS = st.sampled_from(
    [
        "<think>",
        "</think>",
        "< answer >",
        "<answer>",
        "</answer>",
        '{"rating": ',
        "'",
        '"',
        "{",
        "}",
        "```json",
        "/5",
    ]
    + ["rating:", "severity=", ",", "3.42", "1e999", "9" * 400, "٣", "null", "\n", ":", "\ud800", "<", "-"]
)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(), st.lists(FRAGMENTS).map("".join), st.lists(FRAGMENTS | st.text(max_size=5)).map("".join)
    )
)
def test_no_text_raises_or_leaves_the_ranges(text: str) -> None:
    parsed = parse(text)
    assert parsed.score is None or 1 <= parsed.score <= 5
    assert 0 <= parsed.format_grade <= 1
    assert set(parsed.problems) <= set(PROBLEMS)
    assert (parsed.format_grade == 1) == (not parsed.problems)
    if parsed.score is None and parsed.distortion is None:
        assert "unparseable" in parsed.problems


THOUGHTS = st.text(min_size=1).filter(lambda t: t.strip() and "<" not in t)
SPACE = st.text(alphabet=" \n\t", max_size=3)


@settings(deadline=None)
@given(THOUGHTS, st.integers(100, 500), SPACE, SPACE)
def test_scores_round_trip(think: str, hundredths: int, space: str, more: str) -> None:
    written = write_completion(think, score=hundredths / 100)
    parsed = parse(space + written.replace("<answer>", f"<answer>{more}") + more)
    assert (parsed.think, parsed.score, parsed.problems) == (think.strip(), hundredths / 100, ())


@pytest.mark.parametrize("name", sorted(VOCABULARIES))
def test_classes_and_levels_round_trip(name: str) -> None:
    words = vocabulary(name)
    for distortion in words.classes:
        for level in range(1, 6):
            text = write_completion("seen", distortion=distortion, level=level, words=words)
            parsed = parse(text)
            assert parsed.problems == ()
            assert words.read_class(parsed.distortion) == distortion
            assert words.read_level(parsed.level) == (0 if distortion == "null" else level)


def test_long_hostile_text_is_read_in_linear_time() -> None:
    for piece in ("<think>", "<answer>", "{'a':", "'" * 3, ",1", "a" * 7, " " * 9, "=1"):
        assert parse("<answer>" + piece * 20_000).score is None


def test_a_json_library_reads_what_is_written() -> None:
    text = write_completion("seen", score=4.5)
    assert json.loads(text.split("<answer>")[1].split("</answer>")[0]) == {"rating": 4.5}
