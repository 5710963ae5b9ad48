"""``rali-zoo score``: photos and folders of photos to a table or a CSV file."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.cli import run_function
from rali_zoo.errors import ConfigError
from rali_zoo.paths import atomic_path

if TYPE_CHECKING:
    from rali_zoo.types import Score

#: What a folder is searched for; a file that is named is scored whatever its suffix.
SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".dib",
        ".webp",
        ".tif",
        ".tiff",
        ".gif",
        ".jp2",
        ".j2k",
        ".avif",
        ".heic",
        ".heif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
    ]
)
COLUMNS = ("path", "score", "std", "error", "model")


def find_pictures(paths: Sequence[str]) -> list[str]:
    """Files as they are named; folders searched, subfolders too, in the order of their names.

    Raises:
        ConfigError: a path that does not exist, or nothing found at all.
    """
    found: list[str] = []
    for text in paths:
        path = Path(text)
        if path.is_dir():
            found += [str(p) for p in _walk(path)]
        elif path.is_file() or path.is_symlink():
            found.append(text)
        else:
            raise ConfigError(f"{text} does not exist; give pictures or folders of pictures")
    if not found:
        raise ConfigError(f"no picture below {', '.join(paths)}; looked for {' '.join(sorted(SUFFIXES))}")
    return list(dict.fromkeys(found))


def _walk(folder: Path) -> Iterator[Path]:
    # Links to folders are not followed, so a link that points upwards does no harm.
    for child in sorted(folder.iterdir()):
        if child.suffix.lower() in SUFFIXES:
            yield child  # a folder named x.jpg too: it becomes an error row instead of vanishing
        elif child.is_dir() and not child.is_symlink():
            yield from _walk(child)


def write_csv(scores: Sequence[Score], path: Path) -> None:
    """One row a picture, errors included; the file is whole or absent."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for s in scores:
            values = ["" if v is None else f"{v:.6f}" for v in (s.score, s.std)]
            writer.writerow([s.path, *values, s.error or "", s.model])


def print_table(scores: Sequence[Score], explain: bool) -> None:
    """A table of scores on the terminal, with explanations below if asked for."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("picture", title="Quality, 1 (bad) to 5 (excellent)", title_justify="left")
    for heading in ("score", "± spread"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("error", style="red")
    for s in scores:
        values = ["" if v is None else f"{v:.2f}" for v in (s.score, s.std)]
        table.add_row(escape(s.path), *values, escape(s.error or ""))
    console = Console()
    console.print(table)
    if explain:
        for s in scores:
            console.print(s.explain(), markup=False, highlight=False)


def score_command(
    paths: list[str],
    model: str,
    output: Path | None = None,
    batch_size: int = 16,
    workers: int = 2,
    device: str | None = None,
    explain: bool = False,
) -> None:
    """Score pictures with a model and show, or write, one row for each.

    Args:
        paths: pictures, and folders that are searched for pictures.
        model: ckpt:PATH, local-dir:PATH, hf-hub:ORG/REPO[@REV], or a name of 'rali-zoo list models'.
        output: CSV file for the columns path, score, std, error, model.
        batch_size: pictures a forward pass.
        workers: threads that decode.
        device: where to compute, e.g. cuda; the CPU by default.
        explain: also show the prototypes and descriptions behind each score.
    """
    from rich.console import Console
    from rich.progress import Progress

    from rali_zoo.zoo import load_model

    pictures = find_pictures(paths)
    scorer = load_model(model, device)
    # The bar goes to stderr, so that the table can be piped.
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("scoring", total=len(pictures))
        scores = scorer.score(pictures, batch_size, lambda done: bar.update(task, completed=done), workers)
    failed = sum(s.error is not None for s in scores)
    if output is not None:
        write_csv(scores, output)
        print(f"{len(scores)} rows ({failed} with an error) written to {output}")
    if output is None or explain:
        print_table(scores, explain)
    if failed:
        print(f"{failed} of {len(scores)} pictures have no score; their error says why", file=sys.stderr)


def main(words: Sequence[str]) -> None:
    """Run the command; ``words`` are its name and what follows it."""
    run_function(score_command, words, positional=("paths",))
