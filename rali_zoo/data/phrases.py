"""The words of the captioners: what a distortion looks like, and how a measurement is called."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Phrase:
    """How one distortion is written about.

    Attributes:
        nouns: what it is.
        where: where in an image it shows.
        effects: what it does, in the -ing form.
    """

    nouns: tuple[str, ...]
    where: tuple[str, ...]
    effects: tuple[str, ...]


#: By level: an adjective for the noun, an adverb for the effect.
SEVERITY: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {
    1: (("barely visible", "very faint", "hardly noticeable"), ("barely", "scarcely", "only just")),
    2: (("slight", "mild", "light"), ("slightly", "gently", "a little")),
    3: (("noticeable", "moderate", "clearly visible"), ("visibly", "noticeably", "clearly")),
    4: (("strong", "heavy", "pronounced"), ("strongly", "heavily", "badly")),
    5: (("severe", "extreme", "overwhelming"), ("completely", "massively", "utterly")),
}
#: (root of the sum of squared levels up to which it holds, rating); the last one has no limit.
RATINGS = (
    (0.0, "excellent"), (1.0, "very good"), (1.6, "good"), (2.1, "fairly good"), (2.6, "acceptable"),
    (3.1, "fair"), (3.7, "mediocre"), (4.1, "poor"), (4.6, "rather bad"), (5.05, "very poor"), (99.0, "bad"),
)  # fmt: skip

_EVERYWHERE = ("across the whole frame", "all over the picture")
_EDGES = ("along edges", "at contours")
_FLAT = ("in smooth areas", "in flat regions")
DISTORTIONS: dict[str, Phrase] = {
    "gaussian_blur": Phrase(("blur", "soft focus"), (*_EVERYWHERE, *_EDGES), ("washing out fine detail",)),
    "lens_blur": Phrase(("defocus blur", "out-of-focus blur"), _EVERYWHERE, ("turning points into discs",)),
    "motion_blur": Phrase(("motion blur", "camera shake"), ("along one direction",), ("smearing edges",)),
    "color_diffusion": Phrase(
        ("colour bleeding", "diffused colour"), _EDGES, ("washing colour over contours",)
    ),
    "color_shift": Phrase(
        ("colour fringing", "misplaced colour"), _EDGES, ("pulling colour off its objects",)
    ),
    "color_quantization": Phrase(
        ("palette reduction", "colour posterisation"), _FLAT, ("banding gradients",)
    ),
    "color_saturation_1": Phrase(("loss of colour", "desaturation"), _EVERYWHERE, ("making colours pale",)),
    "color_saturation_2": Phrase(
        ("oversaturation", "garish colour"), _EVERYWHERE, ("making colours glaring",)
    ),
    "jpeg2000": Phrase(("JPEG2000 artefacts", "wavelet ringing"), _EDGES, ("smearing texture into ripples",)),
    "jpeg": Phrase(
        ("JPEG blocking", "JPEG compression artefacts"), _FLAT, ("breaking the image into blocks",)
    ),
    "white_noise": Phrase(("white noise", "random grain"), _EVERYWHERE, ("covering fine detail",)),
    "white_noise_color": Phrase(("coloured noise", "chroma speckle"), _FLAT, ("speckling surfaces",)),
    "impulse_noise": Phrase(
        ("salt-and-pepper noise", "impulse noise"), _EVERYWHERE, ("strewing stray dots",)
    ),
    "multiplicative_noise": Phrase(
        ("speckle noise", "multiplicative grain"), ("in bright areas",), ("roughening lit surfaces",)
    ),
    "denoise": Phrase(("denoising smear", "oil-paint look"), ("in fine texture",), ("erasing texture",)),
    "brighten": Phrase(("over-brightening", "excess brightness"), ("in shadows",), ("lifting dark tones",)),
    "darken": Phrase(("darkening", "underexposure"), ("in shadows",), ("hiding dark detail",)),
    "mean_shift": Phrase(
        ("shift of brightness", "brightness offset"), _EVERYWHERE, ("offsetting all tones",)
    ),
    "jitter": Phrase(("pixel jitter", "scrambled pixels"), _EDGES, ("fraying contours",)),
    "non_eccentricity_patch": Phrase(
        ("misplaced patches", "displaced tiles"), ("here and there",), ("tearing the structure",)
    ),
    "pixelate": Phrase(("pixelation", "coarse square pixels"), _EVERYWHERE, ("turning edges into stairs",)),
    "quantization": Phrase(("tone quantisation", "false contouring"), _FLAT, ("leaving steps in gradients",)),
    "color_block": Phrase(
        ("coloured squares", "blocks of false colour"), ("here and there",), ("hiding content",)
    ),
    "high_sharpen": Phrase(("oversharpening", "sharpening halos"), _EDGES, ("exaggerating edges",)),
    "contrast_change": Phrase(("contrast distortion", "contrast shift"), _EVERYWHERE, ("distorting tones",)),
    "sensor_noise": Phrase(
        ("sensor noise", "high-ISO grain"), ("in the shadows",), ("masking dark texture",)
    ),
    "white_balance": Phrase(("colour cast", "white-balance error"), _EVERYWHERE, ("tinting neutral areas",)),
    "overexposure": Phrase(
        ("overexposure", "blown highlights"), ("in bright areas",), ("burning out detail",)
    ),
}


def distortion_phrase(name: str) -> Phrase:
    """The phrase of a distortion; one that is not in the table is called by its name."""
    plain = name.replace("_", " ").strip()
    return DISTORTIONS.get(
        name, Phrase((plain, f"{plain} artefacts"), _EVERYWHERE, ("disturbing the image",))
    )


#: Measurement to (thresholds, words from low to high). The thresholds are constants, the same for every
#: data set, so that a word means the same everywhere; they were set once, near even quantiles of photographs
#: and of synthetic images, and never look at a score.
GRADES: dict[str, tuple[tuple[float, ...], tuple[tuple[str, ...], ...]]] = {
    "best_acuity": (
        (0.15, 0.25, 0.35, 0.45, 0.55, 0.65),
        (
            ("totally blurred", "hopelessly unsharp"), ("very blurry", "strongly out of focus"),
            ("blurry", "unsharp"), ("soft", "slightly unsharp"), ("fairly sharp", "reasonably crisp"),
            ("sharp", "crisp"), ("razor-sharp", "harshly sharp"),
        ),
    ),
    "edge_strength": (
        (0.05, 0.1, 0.17, 0.25, 0.36, 0.5, 0.75),
        (
            ("vanishing", "invisible"), ("very weak", "very faint"), ("weak", "faint"), ("subdued", "mellow"),
            ("clear", "defined"), ("strong", "well-defined"), ("very strong", "bold"),
            ("glaring", "overshooting"),
        ),
    ),
    "detail": (
        (0.01, 0.04, 0.1, 0.2, 0.4, 0.65),
        (
            ("no fine detail at all", "detail entirely lost"), ("hardly any detail", "almost no texture"),
            ("little detail", "sparse texture"), ("some detail", "moderate texture"),
            ("good detail", "plenty of texture"), ("rich detail", "dense texture"),
            ("detail everywhere", "extremely busy texture"),
        ),
    ),
    "noise": (
        (0.0005, 0.0025, 0.007, 0.018, 0.04, 0.08),
        (
            ("smoothed flat without any grain", "waxy smooth surfaces"), ("no noise", "clean surfaces"),
            ("practically no noise", "very fine grain"), ("faint noise", "light grain"),
            ("visible noise", "clear grain"), ("strong noise", "heavy grain"),
            ("extreme noise", "buried in grain"),
        ),
    ),
    "blockiness": (
        (0.1, 0.2, 0.33, 0.5, 0.75),
        (
            ("no blocking", "free of block artefacts"), ("hardly any blocking", "traces of compression"),
            ("slight blocking", "mild compression"), ("some blocking", "visible compression"),
            ("clear block artefacts", "strong compression"),
            ("severe blocking", "ruined by compression blocks"),
        ),
    ),
    "contrast": (
        (0.05, 0.09, 0.13, 0.17, 0.21, 0.26, 0.32),
        (
            ("almost no", "nearly zero"), ("very low", "very flat"), ("low", "flat"),
            ("modest", "restrained"),
            ("medium", "balanced"), ("good", "healthy"), ("high", "punchy"), ("excessive", "harsh"),
        ),
    ),
    "colourfulness": (
        (0.03, 0.07, 0.11, 0.16, 0.23, 0.32, 0.45),
        (
            ("no", "grey"), ("washed-out", "almost grey"), ("pale", "dull"), ("muted", "quiet"),
            ("natural", "moderate"), ("lively", "rich"), ("vivid", "strong"), ("garish", "oversaturated"),
        ),
    ),
    "brightness": (
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.62, 0.78),
        (
            ("nearly black", "extremely dark"), ("very dark", "very low"), ("dark", "low"),
            ("rather dark", "dim"), ("balanced", "correct"), ("bright", "generous"),
            ("very bright", "excessive"), ("extremely bright", "nearly white"),
        ),
    ),
}  # fmt: skip

#: (measurement, lower limit, words): said only when the limit is passed; the first that holds for a
#: measurement is used. A minus sign before the name turns the measurement round.
REMARKS: tuple[tuple[str, float, tuple[str, ...]], ...] = (
    ("impulses", 0.06, ("many stray bright and dark dots", "littered with stray pixels")),
    ("impulses", 0.02, ("a few stray dots", "isolated stray pixels")),
    ("chroma_noise", 0.05, ("strong coloured speckle", "heavy chroma noise")),
    ("chroma_noise", 0.015, ("some coloured speckle", "light chroma noise")),
    ("crushed", 0.3, ("shadows swallowed by black", "large parts pure black")),
    ("crushed", 0.06, ("crushed shadows", "shadows without detail")),
    ("blown", 0.2, ("large areas blown to white", "highlights burnt out")),
    ("blown", 0.03, ("clipped highlights", "some highlights without detail")),
    ("flatness", 0.6, ("flat patches as if posterised or pixelated", "stepped, poster-like areas")),
    ("flatness", 0.35, ("some flat patches", "slightly stepped tones")),
    ("direction", 0.6, ("detail smeared along one direction", "streaks in one direction")),
    ("direction", 0.42, ("a hint of directional smear", "detail leaning one way")),
    (
        "focus_gap",
        0.08,
        ("the centre sharper than the surroundings", "a subject in focus before a soft background"),
    ),
    ("-focus_gap", 0.08, ("the border sharper than the centre", "focus behind the subject")),
    ("warmth", 0.3, ("a strong warm cast", "a deep orange tint")),
    ("warmth", 0.15, ("a warm tone", "a slight yellow cast")),
    ("-warmth", 0.2, ("a strong blue cast", "a cold blue tint")),
    ("-warmth", 0.08, ("a cool tone", "a slight blue cast")),
    ("tint", 0.08, ("a green cast", "a greenish tint")),
    ("-tint", 0.08, ("a magenta cast", "a pinkish tint")),
)


def graded(name: str, value: float) -> tuple[str, ...]:
    """The words for a measurement."""
    limits, words = GRADES[name]
    return words[bisect_right(limits, value)]


def remarks(values: dict[str, float]) -> list[tuple[str, ...]]:
    """The remarks that hold for an image, most striking kind first."""
    said: dict[str, tuple[str, ...]] = {}
    for name, limit, words in REMARKS:
        value = -values[name[1:]] if name.startswith("-") else values[name]
        if value > limit:
            said.setdefault(name, words)
    return list(said.values())


_WORDS = ("bad", "poor", "fair", "good", "excellent")


def mos_grade(mos: float) -> str:
    """A score in [1, 5] in one of 13 grades, a third of a point apart."""
    step = round((min(max(mos, 1.0), 5.0) - 1) * 3)
    word, rest = divmod(step, 3)
    if rest == 0:
        return _WORDS[word]
    near = _WORDS[word + rest - 1]
    return f"between {_WORDS[word]} and {_WORDS[word + 1]}, nearer {near}"


@lru_cache(maxsize=1)
def _nouns() -> tuple[re.Pattern[str], dict[str, str]]:
    kinds = {noun.lower(): kind for kind, phrase in DISTORTIONS.items() for noun in phrase.nouns}
    # the longest first: "motion blur" is not "blur"
    longest = sorted(kinds, key=len, reverse=True)
    return re.compile("|".join(rf"\b{re.escape(noun)}\b" for noun in longest)), kinds


def distortion_in(text: str) -> str | None:
    """The distortion that a text of the captioner ``labels``' kind names first; ``pristine`` or ``None``.

    Args:
        text: a description, by the captioner or by a model that learned from it.
    """
    pattern, kinds = _nouns()
    found = pattern.search(text.lower())
    if found:
        return kinds[found[0]]
    return "pristine" if re.search(r"no distortion|undistorted", text.lower()) else None
