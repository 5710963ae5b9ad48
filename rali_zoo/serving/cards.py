"""What the app shows of a score, as HTML. Everything that comes from a file or a model is escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

from rali_zoo.models.maps import where
from rali_zoo.serving.engine import Answer

#: In the colours of gradio's theme, which knows light and dark.
CSS = """
.gradio-container { max-width: 1080px !important; margin: 0 auto !important; }
.html-container:has(> .prose > .rz) { padding: 0 !important; }
.rz { --rz-quiet: color-mix(in srgb, var(--body-text-color) 68%, transparent);
  color: var(--body-text-color); font-size: 15px; line-height: 1.45; }
.rz h1 { font-size: 26px; font-weight: 650; margin: 8px 0 2px; color: var(--body-text-color); }
.rz p { margin: 4px 0; }
.rz .quiet { color: var(--rz-quiet); font-size: 14px; }
.rz code { background: none; padding: 0; font-size: 0.95em; }
.rz .caution { border-left: 4px solid #c77700; background: var(--background-fill-secondary);
  padding: 8px 12px; border-radius: 4px; margin-top: 10px; }
.rz .cards { display: grid; gap: 14px; }
.rz .card { display: grid; grid-template-columns: 220px minmax(0, 1fr); gap: 18px; padding: 14px;
  border: 1px solid var(--border-color-primary); border-radius: 8px; }
.rz .pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 14px; margin-top: 12px; }
.rz .pair .card { grid-template-columns: minmax(0, 1fr); align-content: start; }
.rz .card img { width: 100%; max-height: 240px; object-fit: contain; border-radius: 4px;
  background: var(--background-fill-secondary); }
.rz .none { display: grid; place-items: center; min-height: 90px; border-radius: 4px; padding: 8px;
  background: var(--background-fill-secondary); color: var(--rz-quiet); text-align: center; }
.rz .name { font-weight: 600; overflow-wrap: anywhere; }
.rz .number { font-size: 30px; font-weight: 650; font-variant-numeric: tabular-nums; margin-right: 6px; }
.rz .error { color: #b91c1c; overflow-wrap: anywhere; }
.dark .rz .error { color: #fca5a5; }
.rz .scale { position: relative; height: 12px; border-radius: 6px; margin: 8px 0 2px;
  background: var(--border-color-primary); }
.rz .band { position: absolute; top: 0; height: 100%; border-radius: 6px; opacity: 0.4; background: #3b82f6; }
.rz .mark { position: absolute; top: -4px; width: 5px; height: 20px; margin-left: -2px; border-radius: 2px;
  background: #3b82f6; outline: 2px solid var(--background-fill-primary); }
.rz .ends { display: flex; justify-content: space-between; font-size: 13px;
  color: var(--rz-quiet); }
.rz details { margin-top: 8px; }
.rz .card .map img { max-height: 420px; }
.rz summary { cursor: pointer; font-size: 14px; color: var(--rz-quiet); }
.rz .reason { display: grid; grid-template-columns: 52px minmax(0, 1fr); gap: 10px; margin-top: 8px;
  font-size: 14px; }
.rz .reason b { text-align: right; font-variant-numeric: tabular-nums; }
.rz .reason ul { margin: 2px 0 0; padding-left: 18px; list-style: disc; }
.rz .difference { font-size: 17px; margin: 4px 0; overflow-wrap: anywhere; }
@media (max-width: 640px) {
  .rz .card, .rz .pair { grid-template-columns: minmax(0, 1fr); }
}
"""

Range = tuple[float, float] | None


def header(model: str, ends: Range, caution: str) -> str:
    """The top of the page."""
    scale = "The model's own scale; higher is better." if ends is None else f"{_low(ends)}, {_high(ends)}."
    return (
        f'<div class="rz"><h1>Image quality</h1><p class="quiet">Model <code>{_text(model)}</code> · {scale} '
        "±, where a model gives one, is its own std, not calibrated. "
        "Images go to no other service.</p>"
        f'<p class="caution">{_text(caution)}</p></div>'
    )


def cards(answers: Sequence[Answer], ends: Range, note: str = "") -> str:
    """One card an image, in order, below a note."""
    if not answers:
        return ""
    unfold = len(answers) <= 3
    shown = "".join(card(answer, ends, unfold) for answer in answers)
    said = f'<p class="quiet">{_text(note)}</p>' if note else ""
    return f'<div class="rz">{said}<div class="cards">{shown}</div></div>'


def card(answer: Answer, ends: Range, unfold: bool) -> str:
    """One image with its score, or with the reason why there is none."""
    score = answer.score
    image = '<div class="none">no preview</div>'
    if answer.preview:
        image = _image(answer.preview, score.path)
    size = f'<div class="quiet">{answer.width} × {answer.height} pixels</div>' if answer.width else ""
    name = f'<div class="name">{_text(score.path)}</div>{size}'
    if score.score is None:
        said = f'<p class="error">No score: {_text(score.error or "")}</p>'
    else:
        std = "" if score.std is None else f'<span class="quiet">± {score.std:.2f}</span>'
        said = f'<div><span class="number">{score.score:.2f}</span>{std}</div>'
        said += f'<p class="caution">{_text(score.warning)}</p>' if score.warning else ""
        said += _scale(score.score, score.std, ends) + _words(score.words)
        said += _explanation(answer, unfold) + _map(answer, unfold)
    return f'<div class="card"><div>{image}</div><div>{name}{said}</div></div>'


def comparison(first: Answer, second: Answer, ends: Range) -> str:
    """Two images side by side, and what the model says of the difference."""
    pair = "".join(card(answer, ends, unfold=True) for answer in (first, second))
    difference = f'<p class="difference">{_difference(first, second)}</p>'
    return f'<div class="rz">{difference}<div class="pair">{pair}</div></div>'


def _difference(first: Answer, second: Answer) -> str:
    a, b = first.score, second.score
    if a.score is None or b.score is None:
        return "One of the two has no score."
    difference = abs(a.score - b.score)
    better, worse = (a, b) if a.score >= b.score else (b, a)
    if difference < 0.005:
        return "Both have the same score."
    said = f"<b>{_text(better.path)}</b> scores {difference:.2f} higher than <b>{_text(worse.path)}</b>"
    stds = [s.std for s in (a, b) if s.std is not None]
    if not stds:
        return f"{said}. This model does not say how sure it is."
    if difference < max(stds):
        return f"{said}, which is less than its std ({max(stds):.2f}): they are not clearly told apart."
    return f"{said}, which is more than the std of either."


def _words(words: str) -> str:
    """What was measured on the image, which is no part of the score."""
    return f'<p class="quiet">Measured on it: {_text(words)}.</p>' if words else ""


def _explanation(answer: Answer, unfold: bool) -> str:
    explanation = answer.score.explanation
    if answer.score.text:
        opened = " open" if unfold else ""
        text = _text(answer.score.text)
        return f"<details{opened}><summary>Why: what the model wrote</summary><p>{text}</p></details>"
    if not explanation:
        return '<p class="quiet">This model keeps no prototypes: it gives no explanation of its own.</p>'
    rows = ""
    for weight, value, texts in explanation:
        listed = "".join(f"<li>{_text(text)}</li>" for text in texts) or "<li>no description was kept</li>"
        rows += (
            f'<div class="reason"><b>{weight:.0%}</b><div>like a prototype of score {value:.2f}; '
            f"training images near it:<ul>{listed}</ul></div></div>"
        )
    opened = " open" if unfold else ""
    return f"<details{opened}><summary>Why: the heaviest prototypes</summary>{rows}</details>"


def _map(answer: Answer, unfold: bool) -> str:
    """Where quality is low, beside why."""
    if not answer.overlay:
        return ""
    opened = " open" if unfold else ""
    said = f'<p class="quiet">{_text(where(answer.score))}. Orange: worse than its middle; blue: better.</p>'
    shown = _image(answer.overlay, f"map of {answer.score.path}")
    return f'<details class="map"{opened}><summary>Where: scores of regions</summary>{said}{shown}</details>'


def _image(data: bytes, alt: str) -> str:
    return f'<img alt="{_text(alt)}" src="data:image/jpeg;base64,{base64.b64encode(data).decode("ascii")}">'


def _scale(score: float, std: float | None, ends: Range) -> str:
    if ends is None:
        return ""

    def place(value: float) -> float:
        return 100 * (min(max(value, ends[0]), ends[1]) - ends[0]) / (ends[1] - ends[0])

    band = ""
    if std is not None:
        left, right = place(score - std), place(score + std)
        band = f'<div class="band" style="left:{left:.1f}%;width:{right - left:.1f}%"></div>'
    return (
        f'<div class="scale">{band}<div class="mark" style="left:{place(score):.1f}%"></div></div>'
        f'<div class="ends"><span>{_low(ends)}</span><span>{_high(ends)}</span></div>'
    )


def _low(ends: tuple[float, float]) -> str:
    return f"{ends[0]:g} bad" if ends == (1.0, 5.0) else f"{ends[0]:g} (low)"


def _high(ends: tuple[float, float]) -> str:
    return f"{ends[1]:g} excellent" if ends == (1.0, 5.0) else f"{ends[1]:g} (high)"


def _text(text: str) -> str:
    """Escaped, also for the templates that gradio may see in HTML."""
    return html.escape(text).translate({ord(c): f"&#{ord(c)};" for c in "${}`"})
