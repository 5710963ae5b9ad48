"""A description with tags inside is left out: it could not be imitated between tags."""

from __future__ import annotations

from rali_zoo.cli.describe import _read
from rali_zoo.vlm.parsing import parse


def test_tags_inside_a_description_are_an_error():
    answer = '<answer>{"rating": 2.00}</answer>'
    text, score, error = _read(parse(f"<think>Strong noise.</think>{answer}"), False)
    assert (text, score, error) == ("Strong noise.", 2.0, "")
    _, _, error = _read(parse(f"<think>Strong <think>noise.</think>{answer}"), False)
    assert "think-has-tags" in error
