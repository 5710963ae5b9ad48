"""``rali-zoo domain-gap``: how far apart data sets lie for models and texts, before and after."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rali_zoo.cli import run_function
from rali_zoo.errors import ConfigError
from rali_zoo.paths import atomic_path

if TYPE_CHECKING:
    import pandas as pd

Split = Literal["train", "val", "test", "all"]


def gap_command(
    data: list[str],
    models: dict[str, str] | None = None,
    texts: dict[str, str] | None = None,
    results: dict[str, str] | None = None,
    output: Path | None = None,
    split: Split = "test",
    limit: int = 300,
    text_encoder: str = "st:all-MiniLM-L6-v2",
    permutations: int = 500,
    batch_size: int = 16,
    root: str = "data",
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Measure the gap between data sets: covariance CKA, MMD and a classifier, and SRCC on one scale.

    Args:
        data: references of two or more data sets.
        models: a name of your choice to a trained model, e.g. --models.before=ckpt:A --models.after=ckpt:B;
            of a reasoner the vectors before its language model are looked at, of a scorer its embedding.
        texts: a name to description tables, joined by commas.
        results: a name to the results.json of a run that was tested on the data sets.
        output: json file for all numbers.
        split: rows to look at.
        limit: images of each data set.
        text_encoder: for texts.
        permutations: of the test of MMD.
        batch_size: images a forward pass.
        root: folder that holds the data sets' folders.
        device: where to compute, e.g. cuda; the CPU by default.
        seed: of the choice of images, permutations and folds.
    """
    from rali_zoo.analysis import domains

    if not (models or texts or results):
        raise ConfigError(
            "nothing to measure: give --models.NAME=REF, --texts.NAME=TABLE or --results.NAME=FILE"
        )
    frames = domains.sample(data, split, limit, root, seed)
    spaces = _spaces(models or {}, texts or {}, frames, text_encoder, batch_size, device)
    content: dict[str, Any] = {
        "data": data,
        "split": split,
        "images": {ref: len(frame) for ref, frame in frames.items()},
        "spaces": [
            {"space": kind, "name": name, "of": of, **domains.gaps(space, permutations, seed)}
            for kind, name, of, space in spaces
        ],
        "change": _changes(spaces),
        "scores": {name: _scores(path, data) for name, path in (results or {}).items()},
    }
    _show(content)
    if output is not None:
        with atomic_path(output) as path:
            path.write_text(json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")
        print(f"written: {output}")


def _plain(value: Any) -> Any:
    """As JSON can hold it: what is not defined is null."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _spaces(
    models: Mapping[str, str],
    texts: Mapping[str, str],
    frames: Mapping[str, pd.DataFrame],
    text_encoder: str,
    batch_size: int,
    device: str | None,
) -> list[tuple[str, str, str, Any]]:
    """(kind, name, of which images, embeddings) of everything that was asked for."""
    import pandas as pd

    from rali_zoo.analysis.domains import image_space, text_space
    from rali_zoo.data.descriptions import read_descriptions
    from rali_zoo.models.vlm import VLMNetwork
    from rali_zoo.zoo import load_ours

    found = []
    for name, ref in models.items():
        module = load_ours(ref, device).network
        kind = "vision" if isinstance(module, VLMNetwork) else "student"
        found.append((kind, name, "the sample", image_space(module, frames, batch_size)))
    for name, tables in texts.items():
        table = pd.concat([read_descriptions(path.strip()) for path in tables.split(",")], ignore_index=True)
        space, of = text_space(table, frames, text_encoder)
        found.append(("text", name, of, space))
    return found


def _changes(spaces: Sequence[tuple[str, str, str, Any]]) -> list[dict[str, Any]]:
    """CKA of every two spaces of a kind on the same images, by data set."""
    from itertools import combinations

    from rali_zoo.analysis.domains import change

    return [
        {"space": kind, "from": a, "to": b, "cka": change(x, y)}
        for (kind, a, of, x), (other, b, also, y) in combinations(spaces, 2)
        if kind == other and of == also == "the sample"
    ]


def _scores(path: str, data: Sequence[str]) -> dict[str, Any]:
    """SRCC by data set and pooled, from the predictions beside a results.json."""
    import pandas as pd

    from rali_zoo.analysis.domains import agreement

    try:
        listed = json.loads(Path(path).read_text())["datasets"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"--results {path} is no results.json of fit or test ({error})") from None
    lacking = [ref for ref in data if "predictions" not in listed.get(ref, {})]
    if lacking:
        raise ConfigError(f"{path} was not tested on {', '.join(lacking)}, but on {', '.join(listed)}")
    return agreement({r: pd.read_parquet(Path(path).parent / listed[r]["predictions"]) for r in data})


def _show(content: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if content["spaces"]:
        table = Table(title="Gaps between data sets")
        for heading in ("space", "name", "data sets"):
            table.add_column(heading, overflow="fold")
        for heading in ("CKA", "MMD²", "p", "classifier"):
            table.add_column(heading, justify="right")
        for space in content["spaces"]:
            for row in space["pairs"]:
                numbers = (
                    f"{row['cka']:.3f}",
                    f"{row['mmd2']:.4f}",
                    f"{row['p']:.3f}",
                    f"{row['classifier']:.3f}",
                )
                names = (space["space"], space["name"], f"{row['a']} | {row['b']}")
                table.add_row(*map(escape, names), *numbers)
            table.add_row(space["space"], escape(space["name"]), f"all (chance {space['chance']:.2f})",
                          "", "", "", f"{space['classifier']:.3f}", end_section=True)  # fmt: skip
        Console().print(table)
    for row in content["change"]:
        told = ", ".join(f"{ref} {value:.3f}" for ref, value in row["cka"].items())
        print(f"{row['space']}, {row['from']} to {row['to']}: CKA {told}")
    for name, row in content["scores"].items():
        told = ", ".join(f"{ref} {value:.3f}" for ref, value in row["each"].items())
        print(f"{name}: SRCC {told}; mean {row['mean']:.3f}, pooled {row['pooled']:.3f}")


def main(words: Sequence[str]) -> None:
    """Run the command; ``words`` are its name and what follows it."""
    run_function(gap_command, words)
