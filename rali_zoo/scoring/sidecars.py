"""Star ratings for photo managers, as XMP sidecars beside the images; the images themselves are only read.

A sidecar is a small RDF/XML file (ISO 16684-1) whose property ``xmp:Rating`` holds 1 to 5 stars. darktable and
digiKam look for ``IMG.jpg.xmp``, Adobe's programs for ``IMG.xmp``. One that another program has written is kept as
it is, but for the rating, which is put in only where there is none yet and where the file, read back, holds
whatever it held before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple
from xml.etree import ElementTree

from rali_zoo.outputs import OutputError, explained, write_new
from rali_zoo.paths import atomic_path
from rali_zoo.scoring.selection import ScoredImage

#: How a sidecar is named: ``IMG.jpg.xmp`` (darktable, digiKam, Immich) or ``IMG.xmp`` (Lightroom, Bridge).
Naming = Literal["darktable", "adobe"]
#: Place in [0, 1] up to which an image gets so many stars: the worst tenth one, the next fifth two, and mirrored.
STARS = ((0.1, 1), (0.3, 2), (0.7, 3), (0.9, 4), (1.0, 5))

_XMP = "http://ns.adobe.com/xap/1.0/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_RATING = f"{{{_XMP}}}Rating"
_TEMPLATE = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="rali_zoo">
 <rdf:RDF xmlns:rdf="{rdf}">
  <rdf:Description rdf:about="" xmlns:xmp="{xmp}" xmp:Rating="{stars}"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""
_LARGEST = 16_000_000  # bytes of somebody else's sidecar; an edit history may be long
_DESCRIPTION = re.compile(rb"<([A-Za-z_][\w.-]*:)?Description\b")
_OURS = re.compile(
    re.escape(_TEMPLATE.format(rdf=_RDF, xmp=_XMP, stars="@")).replace("@", "([1-5])").encode()
)


class Rated(NamedTuple):
    """What became of one image's sidecar.

    Attributes:
        path: of the image.
        stars: that it was to get; 0 where it has no score.
        outcome: ``written`` (new, or one of ours anew), ``merged`` into somebody else's, ``kept`` (has this rating
            already) or ``refused``.
        reason: why it was refused; empty otherwise.
    """

    path: str
    stars: int
    outcome: Literal["written", "merged", "kept", "refused"]
    reason: str = ""


class _Refused(Exception):
    """A sidecar that is left as it is, and why."""


def stars(quantile: float) -> int:
    """1 to 5 stars for a place among the images compared, in [0, 1]."""
    return next(number for end, number in STARS if quantile <= end)


def sidecar(path: str, naming: Naming) -> Path:
    """Where the sidecar of an image lies."""
    return Path(f"{path}.xmp") if naming == "darktable" else Path(path).with_suffix(".xmp")


def write_ratings(rows: Iterable[ScoredImage], naming: Naming) -> list[Rated]:
    """Give each image a sidecar with its stars, by its quantile.

    Args:
        rows: of :func:`~rali_zoo.scoring.selection.rank`.
        naming: of the sidecars.

    Returns:
        One outcome a row, in order; a sidecar that cannot be written is one of them.
    """
    found: list[Rated] = []
    taken: dict[Path, str] = {}
    for row in rows:
        path, number = row.item.path, 0 if row.quantile is None else stars(row.quantile)
        try:
            if row.quantile is None:
                raise _Refused("no score")
            if row.item.shard:
                raise _Refused("a member of a shard has no folder of its own")
            target = sidecar(path, naming)
            if target == Path(path):
                raise _Refused("the image itself has the name of a sidecar")
            if (other := taken.setdefault(target, path)) != path:
                raise _Refused(
                    f"{other} has the same sidecar, {target.name}; --xmp darktable keeps them apart"
                )
            found.append(Rated(path, number, _write(target, number)))
        except (_Refused, OutputError) as error:
            found.append(Rated(path, number, "refused", str(error)))
    return found


def _write(target: Path, number: int) -> Literal["written", "merged", "kept"]:
    new = _TEMPLATE.format(rdf=_RDF, xmp=_XMP, stars=number).encode()
    with explained(target):
        if not os.path.lexists(target):
            write_new(target, new)  # which fails where the name was taken meanwhile
            return "written"
        if target.is_symlink() or not target.is_file():
            raise _Refused(f"{target.name} is a link or no regular file")
        if target.stat().st_size > _LARGEST:
            raise _Refused(f"{target.name} has more than {_LARGEST // 1_000_000} MB")
        there = target.read_bytes()
        ours = _OURS.fullmatch(there)
        if there == new:
            return "kept"
        merged = new if ours else _merged(there, number, target.name)
        if merged == there:
            return "kept"
        mode = target.stat().st_mode
        with atomic_path(target) as made:
            made.write_bytes(merged)
            if target.read_bytes() != there:
                raise _Refused(f"{target.name} was changed just now by another program")
        os.chmod(target, mode & 0o7777)
        return "written" if ours else "merged"


def _merged(there: bytes, number: int, name: str) -> bytes:
    """Somebody else's sidecar with the rating added; the same bytes where it has this rating already.

    Raises:
        _Refused: it cannot be read, has another rating, or would not hold the same as before.
    """
    before = _parsed(there, name)
    ratings = [e.get(_RATING, e.text if e.tag == _RATING else None) for e in before.iter()]
    rated = {text.strip() for text in ratings if text is not None}
    if rated == {str(number)}:
        return there
    if rated:
        raise _Refused(f"{name} has a rating already ({', '.join(sorted(rated))}), and is kept")
    descriptions = [e for e in before.iter() if e.tag == f"{{{_RDF}}}Description"]
    match = _DESCRIPTION.search(there)
    if not descriptions or match is None:
        raise _Refused(f"{name} has no rdf:Description, so it is no sidecar of a kind that is known")
    # A prefix of our own: whatever xmp stands for in this file is left alone.
    added = f' xmlns:rz-xmp="{_XMP}" rz-xmp:Rating="{number}"'.encode()
    merged = there[: match.end()] + added + there[match.end() :]
    after = _parsed(merged, name)
    put = [e for e in after.iter() if e.attrib.pop(_RATING, None) is not None]
    same = ElementTree.tostring(after) == ElementTree.tostring(before)
    if len(put) != 1 or put[0].tag != f"{{{_RDF}}}Description" or not same:
        raise _Refused(f"{name} cannot be changed without changing more than the rating")
    return merged


def _parsed(data: bytes, name: str) -> ElementTree.Element:
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data or data[:2] in (b"\xfe\xff", b"\xff\xfe"):
        raise _Refused(f"{name} has a document type or is not UTF-8, which no photo manager writes")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise _Refused(f"{name} is no XML that can be read ({error})") from None
