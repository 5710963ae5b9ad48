"""A contact sheet: one HTML file that opens from disk, with thumbnails in order, scores and explanations.

Nothing is fetched and no script runs (a content security policy in the file says so to the browser): thumbnails are
in the file. Every name and text is escaped.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from rali_zoo.data.images import load_image
from rali_zoo.data.video import Clip, is_video, sample_frames
from rali_zoo.errors import ConfigError, ImageDecodeError
from rali_zoo.models.maps import overlay, where
from rali_zoo.outputs import printable, write_new
from rali_zoo.scoring.selection import ScoredImage, Section
from rali_zoo.types import MOS_RANGE, Score

if TYPE_CHECKING:
    from PIL import Image

#: Images on a sheet; more make a file that browsers open slowly.
MOST = 2000
_SIDE = 320  # of a thumbnail, in pixels

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Contact sheet</title>
<style>
:root { color-scheme: light dark; --page: #fff; --text: #1b1f24; --quiet: #59636e; --line: #d1d9e0; --fill: #f2f4f7;
  --bad: #b3261e; --mark: #2f6feb; }
@media (prefers-color-scheme: dark) { :root { --page: #0f1318; --text: #e6e9ed; --quiet: #9aa5b1; --line: #313a45;
  --fill: #1a2027; --bad: #ff9a90; --mark: #7aa7ff; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 16px clamp(12px, 3vw, 40px) 48px; background: var(--page); color: var(--text);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 24px; margin: 8px 0 0; } h2 { font-size: 18px; margin: 32px 0 0; overflow-wrap: anywhere; }
p { margin: 4px 0 12px; } a { color: inherit; } code { overflow-wrap: anywhere; }
.quiet, figcaption small, summary { color: var(--quiet); font-size: 13px; }
.grid { display: grid; gap: 14px; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 200px), 1fr)); }
.group { display: grid; gap: 14px; grid-column: 1 / -1; border: 1px solid var(--line); border-radius: 10px;
  padding: 10px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 200px), 1fr)); }
.group > p { grid-column: 1 / -1; margin: 0; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
figure img { display: block; width: 100%; height: 180px; object-fit: contain; background: var(--fill); }
.none { display: grid; place-items: center; height: 180px; background: var(--fill); color: var(--quiet);
  padding: 8px; text-align: center; }
figcaption { padding: 8px 10px 10px; }
.name { overflow-wrap: anywhere; font-size: 14px; }
.score { font-size: 20px; font-weight: 650; font-variant-numeric: tabular-nums; }
.bar { height: 5px; border-radius: 3px; background: var(--line); margin: 4px 0 6px; overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--mark); }
figure:has(details[open]) { grid-column: 1 / -1; }
details img { height: auto; max-height: 420px; } details { margin-top: 6px; } summary { cursor: pointer; }
details ul { margin: 4px 0 0; padding-left: 18px; font-size: 13px; } details p { font-size: 13px; margin: 4px 0; }
.error { color: var(--bad); overflow-wrap: anywhere; }
@media (max-width: 520px) { .grid, .group { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 10px; }
  figure img, .none { height: 120px; } }
</style></head><body>
"""


def write_sheet(
    path: Path,
    found: Sequence[Section],
    failed: Sequence[Score],
    model: str,
    caution: str,
    ends: tuple[float, float] | None = MOS_RANGE,
    overwrite: bool = False,
    workers: int = 2,
) -> None:
    """Write a contact sheet.

    Args:
        path: of the file, which ends in ``.html``.
        found: its parts, of :func:`~rali_zoo.scoring.selection.sections`.
        failed: images without a score, listed at the end with their reasons.
        model: reference of the scorer.
        caution: what its scores are not.
        ends: range of the scores; ``None`` where it is open.
        overwrite: whether a file of that name is replaced.
        workers: threads that decode.

    Raises:
        ConfigError: more than :data:`MOST` images.
        OutputError: a file of that name that is there already, or that cannot be written.
    """
    rows = [row for section in found for row in section.rows]
    check_sheet(path, len(rows))
    scale = "in units of the metric" if ends is None else f"from {ends[0]:g} (bad) to {ends[1]:g} (excellent)"
    parts = [
        _HEAD,
        f"<h1>Contact sheet</h1><p class='quiet'>Scores of <code>{_text(model)}</code>, {scale}. {_text(caution)}</p>",
    ]
    folder = path.parent.resolve()
    with ThreadPoolExecutor(workers) as pool:
        small = pool.map(_thumbnail, rows)
        for section in found:
            low, middle, high = section.scores
            parts.append(
                f"<h2>{_text(section.title)}</h2><p class='quiet'>of {section.images} with a score; a tenth is "
                f"below {low:.2f}, half below {middle:.2f}, a tenth above {high:.2f}</p><div class='grid'>"
            )
            for group in section.groups:
                figures = "".join(_figure(row, next(small), folder, ends) for row in group)
                together = f"<p class='quiet'>{len(group)} near-duplicates, best first</p>"
                parts.append(f"<div class='group'>{together}{figures}</div>" if len(group) > 1 else figures)
            parts.append("</div>")
    if failed:
        rows_ = "".join(
            f"<li><code>{_text(score.path)}</code>: {_text(score.error or '')}</li>" for score in failed
        )
        parts.append(f"<h2>Without a score: {len(failed)}</h2><ul class='error'>{rows_}</ul>")
    parts.append("</body></html>\n")
    write_new(path, "".join(parts).encode(), overwrite)


def check_sheet(path: Path, images: int) -> None:
    """Refuse a sheet of another suffix, or of more images than a browser shows; raises :class:`ConfigError`."""
    if path.suffix != ".html":
        raise ConfigError(f"--sheet {path}: the file ends in .html")
    if images > MOST:
        raise ConfigError(
            f"--sheet shows {MOST} images at most, and these are {images}: add --worst 200 or --best 200"
        )


def _thumbnail(row: ScoredImage) -> tuple[bytes, bytes] | str:
    """A small JPEG, and another with the map on it where there is one; or why there is none."""
    try:
        source = row.item.source()
        image: Image.Image = (
            next(iter(sample_frames(source, Clip(frames=1))))
            if is_video(row.item.path)
            else load_image(source)
        )
    except ImageDecodeError as error:
        return str(error)
    image.thumbnail((_SIDE, _SIDE))
    drawn = b"" if row.score.map is None else _jpeg(overlay(image, row.score))
    return _jpeg(image), drawn


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()


def _embedded(data: bytes, alt: str) -> str:
    return f"<img loading='lazy' alt='{alt}' src='data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}'>"


def _figure(
    row: ScoredImage,
    small: tuple[bytes, bytes] | str,
    folder: Path,
    ends: tuple[float, float] | None,
) -> str:
    name = _text(os.path.basename(row.item.path))
    drawn = ""
    if isinstance(small, str):
        image = f"<div class='none'>{_text(small)}</div>"
    else:
        image = _embedded(small[0], name)
        if small[1]:
            shown = _embedded(small[1], f"map of {name}")
            drawn = f"<details><summary>Where</summary><p>{_text(where(row.score))}</p>{shown}</details>"
    if not row.item.shard:
        image = f"<a href='{_link(row.item.path, folder)}'>{image}</a>"
    bar = ""
    if ends is not None:
        bar = f"<div class='bar'><i style='width:{100 * (row.value - ends[0]) / (ends[1] - ends[0]):.1f}%'></i></div>"
    std = "" if row.score.std is None else f" <small>± {row.score.std:.2f}</small>"
    place = "" if row.quantile is None else f"<small> · better than {row.quantile:.0%}</small>"
    said = f"<div><small>{_text(row.score.words)}</small></div>" if row.score.words else ""
    return (
        f"<figure>{image}<figcaption><span class='score'>{row.value:.2f}</span>{std}{place}{bar}"
        f"<div class='name' title='{_text(row.item.path)}'>{name}</div>{said}{_explanation(row.score)}{drawn}"
        "</figcaption></figure>"
    )


def _explanation(score: Score) -> str:
    if score.text:
        return f"<details><summary>Why</summary><p>{_text(score.text)}</p></details>"
    if not score.explanation:
        return ""
    rows = "".join(
        f"<li>{weight:.0%} like {value:.2f}: {_text(' | '.join(texts) or 'no description was kept')}</li>"
        for weight, value, texts in score.explanation
    )
    return f"<details><summary>Why</summary><ul>{rows}</ul></details>"


def _link(path: str, folder: Path) -> str:
    """To an image, from the folder of the sheet, so that both can be moved together."""
    return html.escape(quote(os.fsencode(os.path.relpath(path, folder))), quote=True)


def _text(text: str) -> str:
    """Escaped; bytes that are no UTF-8, and what is not printable, as ``\\xNN``."""
    return html.escape("\n".join(printable(line) for line in text.split("\n")), quote=True)
