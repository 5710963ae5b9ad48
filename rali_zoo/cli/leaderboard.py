"""``rali-zoo leaderboard``: tables and page from the results files, or what of them is stale."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.errors import RaliZooError
from rali_zoo.paths import atomic_path

if TYPE_CHECKING:
    from rali_zoo.bench.leaderboard import Board


class StaleError(RaliZooError):
    """Generated files that the results files would give otherwise."""


def command(
    results: Path = Path("results"),
    output: Path = Path("leaderboard"),
    reported: Path | None = None,
    images: bool = True,
    check: bool = False,
) -> None:
    """Make leaderboard.md, leaderboard.csv and the page from results files.

    Args:
        results: folder of results, MODEL/REVISION/DATASET.json and datasets/DATASET.json; every file is
            checked as by rali-zoo check-results.
        output: folder for leaderboard.md, leaderboard.csv and page/index.html.
        reported: yaml file of numbers that authors report; reported.yaml of the output folder, if there.
        images: put the images of gMAD pairs of synthetic data sets on the page.
        check: write nothing; fail with a list of the files that the results would give otherwise.
    """
    from rali_zoo.bench.leaderboard import leaderboard
    from rali_zoo.bench.page import write_page
    from rali_zoo.bench.reported import read_reported

    default = output / "reported.yaml"
    source = reported if reported is not None else default if default.exists() else None
    board = leaderboard(results, read_reported(source) if source else ())
    if check:
        wrong = stale(board, output)
        if wrong:
            raise StaleError("stale; run rali-zoo leaderboard and commit:\n  " + "\n  ".join(wrong))
        print(f"{output}: leaderboard.md, leaderboard.csv and the page, where there is one, are up to date")
        return
    for name, content in tables(board).items():
        with atomic_path(output / name) as temporary:
            temporary.write_bytes(content)
    shown = write_page(board, output / "page", images)
    print(
        f"{len(board.rows)} models on {len(board.columns)} data sets: {output / 'leaderboard.md'}, "
        f"{output / 'leaderboard.csv'}, {output / 'page' / 'index.html'} ({shown} gMAD images)"
    )


def tables(board: Board) -> dict[str, bytes]:
    """The Markdown and CSV files by name."""
    from rali_zoo.bench.markdown import markdown, table_csv

    return {
        "leaderboard.md": markdown(board).encode("utf-8"),
        "leaderboard.csv": table_csv(board).encode("utf-8"),
    }


def stale(board: Board, output: Path) -> list[str]:
    """A line for every table that is missing or differs, and for every file of a page that differs."""
    from rali_zoo.bench.page import page_files

    needed = tables(board)
    page = {f"page/{name}": content for name, content in page_files(board).items()}
    lines = []
    for name, content in {**needed, **page}.items():
        path = output / name
        if not path.is_file():  # a page may be left out of a repository: it is made again in a moment
            lines += [f"{path}: missing"] if name in needed else []
        elif (found := path.read_bytes()) != content:
            lines.append(f"{path}: differs{_where(found, content)}")
    return lines


def _where(found: bytes, expected: bytes) -> str:
    a, b = found.splitlines(), expected.splitlines()
    first = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return f" from line {first + 1} ({len(a)} lines, {len(b)} expected)"
