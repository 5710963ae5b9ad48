"""``rali-zoo route``: what it is worth to send the least certain images to an expensive scorer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.errors import ConfigError
from rali_zoo.report import provenance, write_json

if TYPE_CHECKING:
    from rali_zoo.analysis.routing import Route


def command(
    cheap: str,
    expensive: str,
    data: str,
    second: str | None = None,
    output: Path | None = None,
    plot: Path | None = None,
    shares: list[float] | None = None,
    limit: int | None = None,
    batch_size: int = 16,
    root: str = "data",
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Measure SRCC against the share of images that go to the expensive scorer, least certain first.

    Args:
        cheap: reference of the scorer that judges every image.
        expensive: reference of the scorer that judges the routed ones.
        data: reference of a data set; its validation rows bring both to one scale, its test rows are scored.
        second: reference of another cheap scorer, for a cheap one without a std: images that
            the two disagree about are routed.
        output: json file for the curve.
        plot: image of the curve, .svg or .png; needs the extra 'analysis'.
        shares: in [0, 1]; 0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75 and 1 by default.
        limit: images of each split, drawn with the seed; all by default.
        batch_size: images a forward pass.
        root: folder that holds the data sets' folders.
        device: where to compute, e.g. cuda; the CPU by default.
        seed: of the choice of images, the resamples and the control.
    """
    if any(not 0 <= share <= 1 for share in shares or ()):
        raise ConfigError(f"--shares {shares}: each lies between 0 and 1, e.g. [0, 0.1, 1]")
    from rali_zoo.analysis import plots
    from rali_zoo.analysis.routing import SHARES, route
    from rali_zoo.data.tables import load_table
    from rali_zoo.zoo import load_model

    if plot is not None:
        plots.require()
    table = load_table(data, root)
    val, test = (table.sample(role, limit, seed, rated=True) for role in ("val", "test"))
    scorers = [load_model(ref, device) for ref in (cheap, expensive, second) if ref is not None]
    result = route(
        scorers[0], scorers[1], val, test, scorers[2] if second else None, shares or SHARES, batch_size, seed
    )
    given = {"cheap": cheap, "expensive": expensive, "second": second, "data": data, "limit": limit}
    content = given | {"synthetic": table.card.synthetic, **result}
    show(result, f"{data}{' (synthetic labels)' if table.card.synthetic else ''}")
    if output is not None:
        write_json(output, content | provenance(given, seed))
        print(f"written: {output}")
    if plot is not None:
        plots.curve(result, plot, f"{cheap} to {expensive} on {data}")
        print(f"written: {plot}")


def show(found: Route, data: str) -> None:
    """Print a curve over a data set as a table, one row a share."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{escape(data)}, {found['n']} images; by {found['uncertainty']}")
    for heading in ("routed", "SRCC", "95 %", "at random", "gain", "95 %", "oracle", "ms an image"):
        table.add_column(heading, justify="right")
    seconds = found["seconds"]
    always = seconds["cheap"] + seconds.get("second", 0.0)
    for p in found["points"]:
        table.add_row(
            f"{p.share:.0%}",
            f"{p.srcc:.3f}",
            f"{p.low:.3f} to {p.high:.3f}",
            f"{p.random:.3f}",
            f"{p.gain:+.3f}",
            f"{p.gain_low:+.3f} to {p.gain_high:+.3f}",
            f"{p.oracle:.3f}",
            f"{1000 * (always + p.share * seconds['expensive']):.1f}",
        )
    Console().print(table)
    print(f"SRCC of uncertainty and error of the cheap scorer: {found['error_srcc']:.3f}")
