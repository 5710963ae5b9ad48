"""What MkDocs does with the pages of this project (``hooks`` in mkdocs.yml).

Three things, so that a page reads the same in a checkout and on the site, and no number is copied by hand:

- a line ``<!-- site: NAME -->`` is replaced by what :data:`PARTS` makes of the registry, the command table
  or the committed results, and ``<!-- site: api PART … -->`` by the reference of parts of the package;
- a link to a file of the repository outside docs/ (``../configs/x.yaml``) leads to a copy in the site;
- roles of docstrings (``:class:`X```) become links of the API reference.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT))

_MARK = re.compile(r"^<!-- site: ([\w-]+)( [\w ]+)? -->$", re.MULTILINE)
_LINK = re.compile(r"\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")
_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):<code>~?!?([^<]*)</code>")
#: Where copies of the repository's files lie in the site, and the page of the leaderboard among them.
_COPIES = "files"
_BOARD = f"{_COPIES}/benchmarks/page"

#: Shipped model to the results file of its training run.
RUNS = {
    "rali-tiny-synthetic": "quickstart_rali.json",
    "regression-tiny-synthetic": "release_tiny_vision.json",
    "reasoner-tiny-synthetic": "release_tiny_reasoner.json",
}


def data_cards() -> str:
    """Every data set of the registry: facts, terms of use, where to get it, folder layout."""
    from rali_zoo.data.registry import list_cards

    return "\n".join(_data_card(card) for card in list_cards())


def _data_card(card: Any) -> str:
    low, high = card.mos_range
    better = "higher is better" if card.higher_is_better else "lower is better (DMOS; turned on reading)"
    task = "no-reference" if card.task == "NR" else "full-reference"
    rows = [
        ("reference", f"`{card.name}`"),
        (
            "kind",
            f"{card.domain}, {task}"
            + (" — **synthetic labels**" if card.synthetic else "")
            + (f" — **{card.question}**, never pooled with quality" if card.question != "quality" else ""),
        ),
        ("scored images", f"{card.n_images:,}"),
        ("scores as published", f"{low:g} to {high:g}, {better}; in this package MOS in [1, 5]"),
        ("splits", ", ".join(card.protocols) + f" (default: {card.default_protocol})"),
        ("contents kept apart", "yes" if card.content_disjoint else "no need: each image is its own"),
        ("licence", card.licence),
        ("paper", card.citation or "–"),
        ("get it", f"<{card.url}>" if card.url.startswith("http") else card.url),
        *([("note", card.note)] if card.note else []),
    ]
    table = "\n".join(f"| {name} | {str(value).replace('|', '/')} |" for name, value in rows)
    return f"## {card.title}\n\n| | |\n|---|---|\n{table}\n\n```text\n{card.layout.rstrip()}\n```\n"


def model_numbers(name: str) -> str:
    """What a shipped model gave on test images, from the committed results."""
    content = json.loads((RESULTS / RUNS[name]).read_text())
    lines = ["| test set | n | failed | SRCC | PLCC | KRCC | RMSE |", "|---|---|---|---|---|---|---|"]
    for ref, row in content["datasets"].items():
        label = f"`{ref}`" + (" (**synthetic labels**)" if row["synthetic"] else "")
        numbers = " | ".join(f"{row[k]:.3f}" for k in ("srcc", "plcc", "krcc", "rmse"))
        lines.append(f"| {label} | {row['n']} | {row['failed']} | {numbers} |")
    cell = _cell(name)
    srcc, n = cell["statistics"]["srcc"], cell["n"]
    kinds = cell["statistics"]["by_distortion"]
    weak = sorted((k for k in kinds if kinds[k]["srcc"] is not None), key=lambda k: kinds[k]["srcc"])[:4]
    worst = ", ".join(f"{k.replace('_', ' ')} ({kinds[k]['srcc']:.2f}, n = {kinds[k]['n']})" for k in weak)
    parameters = cell["model"]["parameters"]["used"] / 1e6
    return (
        "\n".join(lines)
        + f"\n\nOne training run, seed {content['seed']}, {content['fit_seconds'] / 60:.0f} minutes on two "
        f"CPU cores; {parameters:.2f} M parameters. The shipped file in the quick suite (n = {n}): SRCC "
        f"{srcc['value']:.3f}, 95 % interval {srcc['low']:.3f} to {srcc['high']:.3f} over contents. It ranks "
        f"these distortions worst: {worst}."
    )


def _cell(name: str) -> dict[str, Any]:
    (found,) = (p for p in (RESULTS / name).glob("*/synthetic-lab*.json") if ".cost." not in p.name)
    return json.loads(found.read_text())


def commands() -> str:
    """The command table."""
    from rali_zoo.cli.main import COMMANDS

    rows = "\n".join(f"| `rali-zoo {name}` | {line} |" for name, (_, line) in COMMANDS.items())
    return f"| command | what it does |\n|---|---|\n{rows}"


def api(parts: str) -> str:
    """Directives of mkdocstrings for every public module of some parts of the package."""
    lines = []
    for part in parts.split():
        place = ROOT / "rali_zoo" / part
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        for file in files:
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            if file.stem == "__init__":  # what it passes on is shown where it is defined
                lines.append(f"::: {name}\n    options:\n      members: {_defined(file)}\n")
            elif not file.stem.startswith("_"):
                lines.append(f"::: {name}\n")
    return "\n".join(lines)


def _defined(file: Path) -> str:
    """Names that a module defines itself, as mkdocstrings takes them."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names = [n.name for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]
    return json.dumps(names) if names else "false"


def _whole(path: str) -> Callable[[], str]:
    """A file of the repository without its title; its links are those of the repository's root."""

    def read() -> str:
        text = (ROOT / path).read_text(encoding="utf-8").partition("\n")[2]
        folder = posixpath.dirname(path)
        return re.sub(r"\]\((?!http|#|mailto)([^)]+)\)", lambda m: f"]({_from_docs(folder, m[1])})", text)

    return read


def _from_docs(folder: str, link: str) -> str:
    return posixpath.relpath(posixpath.normpath(posixpath.join(folder, link)), "docs")


PARTS: dict[str, Callable[[], str]] = {
    "data-cards": data_cards,
    "commands": commands,
    "changelog": _whole("CHANGELOG.md"),
    "contributing": _whole("CONTRIBUTING.md"),
    "leaderboard": _whole("benchmarks/leaderboard.md"),
    "board-page": lambda: f"[Open the page of the board]({_BOARD}/index.html).",
    **{name: (lambda name=name: model_numbers(name)) for name in RUNS},
}


def fill(markdown: str) -> str:
    """A page with its parts in place; an unknown part raises :class:`KeyError`."""
    return _MARK.sub(lambda m: api(m[2]) if m[1] == "api" else PARTS[m[1]](), markdown)


def repository_files(markdown: str, page: str) -> dict[str, str]:
    """Links of a page that leave docs/ for a file of the repository.

    Args:
        markdown: of the page.
        page: its path below docs/.

    Returns:
        The link as it stands to the file's path below the root.
    """
    found = {}
    for match in _LINK.finditer(markdown):
        target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), match[1]))
        if not target.startswith(("docs/", "../")) and (ROOT / target).is_file():
            found[match[1]] = target
    return found


def board_page() -> dict[str, bytes]:
    """Files of the leaderboard's page, without images: those of data sets are not ours to publish."""
    from rali_zoo.bench.leaderboard import leaderboard
    from rali_zoo.bench.page import page_files
    from rali_zoo.bench.reported import read_reported

    board = leaderboard(RESULTS, read_reported(ROOT / "benchmarks" / "reported.yaml"))
    return {**page_files(board), "images.js": b"window.IMAGES = {};\n"}


# ---- called by MkDocs ----


def on_files(files: Any, config: Any) -> Any:
    """Add copies of the repository's files that pages link to, and the page of the leaderboard."""
    from mkdocs.structure.files import File

    wanted: set[str] = set()
    for file in list(files.documentation_pages()):
        wanted |= set(repository_files(fill(file.content_string), file.src_uri).values())
    for target in sorted(wanted):
        # A markdown file would become a page that no menu shows.
        name = f"{_COPIES}/{target}" + (".txt" if target.endswith((".md", ".yml")) else "")
        files.append(File.generated(config, name, abs_src_path=str(ROOT / target)))
    for name, content in board_page().items():
        files.append(File.generated(config, f"{_BOARD}/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put the parts in place and turn links to the repository into links to the copies."""
    text = fill(markdown)
    here = posixpath.dirname(page.file.src_uri)
    for link, target in repository_files(text, page.file.src_uri).items():
        name = f"{_COPIES}/{target}" + (".txt" if target.endswith((".md", ".yml")) else "")
        text = text.replace(f"]({link}", f"]({posixpath.relpath(name, here or '.')}")
    return text


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Roles of docstrings as links where the reference has a target, as code where it has none."""

    def link(match: re.Match[str]) -> str:
        shown = match[1].rpartition(".")[2] if "~" in match[0] else match[1]
        return f'<autoref identifier="{match[1]}" optional><code>{shown}</code></autoref>'

    return _ROLE.sub(link, html)


def _local_shim(output: str, depth: int) -> str:
    """Our copy of the script that lets search work from disk, in the place of the one on the network."""
    return output.replace("https://unpkg.com/iframe-worker/shim", "../" * depth + "vendor/iframe-worker.js")


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Fetch nothing from the network."""
    return _local_shim(output, page.file.dest_uri.count("/"))


def on_post_template(output: str, template_name: str, config: Any) -> str:
    """The same for pages that are no pages, such as 404.html."""
    return _local_shim(output, 0)
