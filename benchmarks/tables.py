"""Write the tables of README and docs from the committed results; ``--check`` fails when they are stale.

A table stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``, in any page, several if wanted.

python benchmarks/tables.py [--check]
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import analysis_tables
import beyond_tables
import board_tables
import miniature_tables
import scale_out
import speed_results
from blocks import provenance

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def quickstart() -> str:
    """What the quick start, and the same network as plain regression, gave on their test sets."""
    content = json.loads((RESULTS / "quickstart_rali.json").read_text())
    other = json.loads((RESULTS / "quickstart_regression.json").read_text())["datasets"]
    lines = ["| test set | n | failed | SRCC | PLCC | RMSE | regression: SRCC | PLCC | RMSE |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for i, (name, row) in enumerate(content["datasets"].items()):
        place = "in-domain" if i == 0 else "cross-domain"
        label = f"`{name}` ({place}, **synthetic labels**)"
        numbers = " | ".join(f"{r[k]:.3f}" for r in (row, other[name]) for k in ("srcc", "plcc", "rmse"))
        lines.append(f"| {label} | {row['n']} | {row['failed']} | {numbers} |")
    seconds = content["fit_seconds"]
    lines += [
        "",
        f"One run each, seed {content['seed']}; RALI took {seconds / 60:.1f} minutes, data included. ",
    ]
    lines[-1] += provenance(content) + "."
    return "\n".join(lines)


def biq2021() -> str:
    """RALI, regression and classical regressors on real photographs."""
    content = json.loads((RESULTS / "biq2021_mobilenetv2.json").read_text())
    measured, seeds = content["measured"], content["seeds"]
    lines = ["| model | SRCC | PLCC | 95 % interval of SRCC |", "|---|---|---|---|"]
    for name in ("RALI", "Regression"):
        mean = measured[f"{name}, mean of seeds"]
        rows = [measured[f"{name}, seed {s}"] for s in seeds]
        spans = "; ".join(f"{r['srcc_low']:.3f}–{r['srcc_high']:.3f}" for r in rows)
        label = f"{name}, mean of {len(seeds)} seeds"
        lines.append(
            f"| {label} | {mean['srcc']:.3f} ± {mean['srcc_sd']:.3f} | {mean['plcc']:.3f} | {spans} |"
        )
    for name, row in measured.items():
        if "seed" not in name:
            span = f"{row['srcc_low']:.3f}–{row['srcc_high']:.3f}"
            lines.append(f"| {name} | {row['srcc']:.3f} | {row['plcc']:.3f} | {span} |")
    for name, value in content["reported_by_authors_on_their_whole_test_split"].items():
        lines.append(
            f"| {name} (reported by the data set's authors, whole test split) | {value:.3f} | – | – |"
        )
    pairs = [content["paired"][f"RALI - Regression, seed {s}"] for s in seeds]
    told = "; ".join(
        f"{p['srcc_difference']:+.3f} [{p['low']:+.3f}, {p['high']:+.3f}], p = {p['p']:.2f}" for p in pairs
    )
    lines += ["", f"RALI minus regression, paired bootstrap, by seed: {told}. {provenance(content)}."]
    return "\n".join(lines)


def reasoner() -> str:
    """The shipped tiny reasoner, and what the chain of the quick start gives; answers read greedily."""
    runs = [
        json.loads((RESULTS / f"{name}.json").read_text())
        for name in ("release_tiny_reasoner", "reasoner_cold_start_tiny", "reasoner_grpo_tiny")
    ]
    lines = [
        "| test set | n | shipped: SRCC | PLCC | quick start, cold start: SRCC | PLCC | after GRPO: SRCC "
        "| PLCC | unreadable answers of all |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for name, row in runs[0]["datasets"].items():
        rows = [run["datasets"][name] for run in runs]
        numbers = " | ".join(f"{r[k]:.3f}" for r in rows for k in ("srcc", "plcc"))
        failed = sum(r["failed"] for r in rows)
        lines.append(f"| `{name}` (**synthetic labels**) | {row['n']} | {numbers} | {failed} |")
    minutes = [f"{run['fit_seconds'] / 60:.1f}" for run in runs]
    lines += [
        "",
        f"One run each, seed {runs[0]['seed']}; minutes: {minutes[0]} on eyes trained before, {minutes[1]}, "
        f"{minutes[2]}. {provenance(runs[0])}.",
    ]
    return "\n".join(lines)


def rl_study() -> str:
    """What reinforcement adds to a cold start on noisy labels, against supervised controls."""
    content = json.loads((RESULTS / "rl_study.json").read_text())
    seeds, mean = content["by_seed"], content["mean"]
    lab, real = "synthetic:lab", "biq2021"
    lines = [
        "| model | `synthetic:lab`: SRCC | 95 % intervals, by seed | type named rightly | distinct texts "
        "| `biq2021`: SRCC |",
        "|---|---|---|---|---|---|",
    ]
    for arm, row in mean[lab].items():
        spans = "; ".join(
            f"{s['measured'][lab][arm]['srcc_low']:.2f}–{s['measured'][lab][arm]['srcc_high']:.2f}"
            for s in seeds.values()
        )
        shares = " | ".join(
            f"{row[k]['mean']:.0%}" for k in ("distortion_type_accuracy", "distinct_texts_share")
        )
        far = f"{mean[real][arm]['srcc']['mean']:.3f} ± {mean[real][arm]['srcc']['sd']:.3f}"
        near = f"{row['srcc']['mean']:.3f} ± {row['srcc']['sd']:.3f}"
        lines.append(f"| {arm} | {near} | {spans} | {shares} | {far} |")
    told = []
    for pair in next(iter(seeds.values()))["paired"][lab]:
        found = [s["paired"][lab][pair] for s in seeds.values()]
        each = ", ".join(f"{p['difference']:+.3f} (p = {p['p']:.2g})" for p in found)
        told.append(f"{pair}: {each}")
    lines += ["", f"Paired bootstrap on `{lab}`, by seed. {'; '.join(told)}. {provenance(content)}."]
    return "\n".join(lines)


TABLES = {
    "quickstart": quickstart,
    "reasoner": reasoner,
    "rl_study": rl_study,
    "biq2021": biq2021,
    "comparison": board_tables.comparison,
    "speed": lambda: speed_results.markdown(speed_results.read()),
    "scale_out": lambda: scale_out.block(speed_results.read()),
    "ract_study": miniature_tables.ract_study,
    "ract_pairs": miniature_tables.ract_pairs,
    "ract_gaps": miniature_tables.ract_gaps,
    "miniature_claims": miniature_tables.miniature_claims,
    **analysis_tables.TABLES,
    **beyond_tables.TABLES,
}
_BLOCK = re.compile(r"(<!-- ([a-z0-9_]+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def render(text: str, page: str = "README.md") -> str:
    """A page with every table between its markers made anew."""

    def fill(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise SystemExit(f"{page} asks for a table {match[2]!r}; there are {', '.join(TABLES)}")
        return f"{match[1]}{TABLES[match[2]]()}\n{match[3]}"

    return _BLOCK.sub(fill, text)


def pages() -> list[Path]:
    """README and all pages of the documentation.

    Raises:
        SystemExit: a table stands nowhere.
    """
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    asked = {match[2] for page in found for match in _BLOCK.finditer(page.read_text())}
    if missing := sorted(set(TABLES) - asked):
        raise SystemExit(f"no page has the markers <!-- {missing[0]} --> … <!-- /{missing[0]} -->")
    return found


def main() -> None:
    """Write or check."""
    for path in pages():
        old = path.read_text()
        new = render(old, path.name)
        if new == old:
            continue
        if "--check" in sys.argv[1:]:
            raise SystemExit(f"{path.relative_to(ROOT)} is stale: run python benchmarks/tables.py")
        path.write_text(new)


if __name__ == "__main__":
    main()
