"""Fenced blocks of the project's markdown pages, and what their first line asks a test to do with them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL = ("sh", "bash", "console")

_FENCE = re.compile(r"^(`{3,})(.*?)\n(.*?)^\1`*[ \t]*$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')
#: Words that stand for something of the reader's.
_PLACEHOLDER = re.compile(r"\b(DIR|REF|NAME|FOLDER|PATH|FILE|ORG|REPO|REV|YOUR-MODEL|EXPENSIVE|CHEAP)\b|…")
_ASSIGNMENT = re.compile(r"^[A-Z_]+=\S*$")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: its file, relative to the repository.
        line: where it begins.
        language: first word after the fence.
        mode: ``run``, ``no-run`` or nothing.
        reason: what stands after ``no-run``.
        title: the file that it is, if any.
    """

    page: str
    line: int
    language: str
    mode: str
    reason: str
    title: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        info = match[2].strip()
        title = _TITLE.search(info)
        words = _TITLE.sub("", info).split()
        mode = words[1] if len(words) > 1 else ""
        found.append(
            Block(
                page=path.relative_to(ROOT).as_posix(),
                line=text[: match.start()].count("\n") + 1,
                language=words[0] if words else "",
                mode=mode,
                reason=" ".join(words[2:]),
                title=title[1] if title else "",
                text=match[3],
            )
        )
    return found


def commands(block: Block) -> list[list[str]]:
    """The commands of a shell block, one list of words each; comments, variables and pipes are left out."""
    text = block.text
    if block.language == "console":
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        for word in [*lexer, "&&"]:
            if set(word) <= set("&|;"):
                while words and _ASSIGNMENT.match(words[0]):
                    words = words[1:]
                if words:
                    found.append(words)
                words = []
                if word == "|":  # what reads a pipe is somebody else's
                    break
            else:
                words.append(word)
    return found


def ours(words: list[str]) -> list[str] | None:
    """What follows ``rali-zoo`` or ``python -m rali_zoo``; nothing for other commands."""
    if words[0] == "rali-zoo":
        return words[1:]
    if words[:3] == ["python", "-m", "rali_zoo"]:
        return words[3:]
    return None


def has_placeholder(words: list[str]) -> bool:
    return any(_PLACEHOLDER.search(word) for word in words)
