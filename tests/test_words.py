"""The field's words: what readers meet in code, messages and pages is what papers of the field say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: what is not said → what is
WORDS = {
    r"pictures?": "image",
    r"eyes": "vision encoder",
    r"verdicts?": "answer, rating or outcome",
    r"describers?": "captioner",
    r"contenders?": "entry",
    r"text towers?": "text encoder",
    r"read-?outs?": "linear probe",
    r"rulers?": "reference model",
    r"dealt": "split, sharded",
    r"lonely|let_go|pour(?:ed|s)?": "singleton, reshard, load weights",
    r"spread_\w+|their spread|its spread|predicted spread": "std",
}
_FOUND = re.compile(rf"\b({'|'.join(WORDS)})\b", re.IGNORECASE)
#: Texts that the shipped reasoner was trained on and asked with, word by word.
TRAINED = ("rali_zoo/data/captioners.py", "rali_zoo/data/phrases.py", "rali_zoo/vlm/prompts.py")
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
CODE = sorted(p for p in (ROOT / "rali_zoo").rglob("*.py") if str(p.relative_to(ROOT)) not in TRAINED)


def private(text: str) -> list[str]:
    """Lines with a private word; a quotation of a shipped model may hold one, and so may the title of a paper."""
    text = re.sub(r'citation=(?:\s*"[^"]*")+', "", text)
    quoted = re.sub(r'"[^"\n]*\n?[^"\n]*"', "", text) if "shipped tiny reasoner" in text else text
    return [line for line in quoted.splitlines() if _FOUND.search(line)]


@pytest.mark.parametrize("path", [*PAGES, *CODE], ids=lambda p: str(p.relative_to(ROOT)))
def test_a_reader_of_the_field_meets_its_words(path: Path) -> None:
    found = private(path.read_text(encoding="utf-8"))
    assert not found, "\n".join(found) + f"\nsay: {WORDS}"


def test_the_rule_can_fail() -> None:
    assert private("the picture\nan image\nwith its eyes") == ["the picture", "with its eyes"]
