"""Where images come from: files, folders, globs, lists, tables and tar shards, one at a time.

Nothing is decoded here, and nothing is unpacked: an image in a tar is read from its place in the shard.
"""

from __future__ import annotations

import codecs
import csv
import fnmatch
import glob
import hashlib
import io
import json
import os
import sqlite3
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from rali_zoo.data.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from rali_zoo.errors import ConfigError, ImageDecodeError
from rali_zoo.outputs import OutputError, from_csv_cell

#: What a folder, a glob and a shard are searched for, besides files without a suffix that begin as images do;
#: a file that is named is scored whatever its suffix.
SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES
#: What systems leave beside images.
_LITTER = frozenset(
    (
        "__macosx",
        "@eadir",
        ".ds_store",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        ".appledouble",
        ".spotlight-v100",
    )
    + (
        ".trashes",
        ".fseventsd",
        "$recycle.bin",
        "@recycle",
        "#recycle",
        "system volume information",
        ".thumbnails",
    )
)
_HEADS = (
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"qoif",
    b"\0\0\0\x0cjP",
    b"\xff\x4f\xff\x51",
)
_NO_MATCH = "no image matches this pattern"
_COLUMNS = ("path", "image", "image_path", "filename", "file_name", "file", "img", "name")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Item(NamedTuple):
    """One image that is to be scored.

    Attributes:
        path: its name in the table of scores; a member of a shard is called ``SHARD.tar/MEMBER``.
        shard: the tar that holds it; empty for a file of its own.
        offset: of its first byte in the shard.
        size: in bytes, in the shard.
        error: why there is nothing to read; empty if there is.
    """

    path: str
    shard: str = ""
    offset: int = 0
    size: int = 0
    error: str = ""

    def source(self) -> str | bytes:
        """What :func:`rali_zoo.data.images.load_image` takes.

        Raises:
            ImageDecodeError: nothing to read, or a shard that has changed.
        """
        if self.error:
            raise ImageDecodeError(self.error)
        if not self.shard:
            return self.path
        try:
            with open(self.shard, "rb") as file:
                whole = 0 <= self.size <= os.fstat(file.fileno()).st_size - self.offset
                data = file.read(self.size) if whole and file.seek(self.offset) >= 0 else b""
        except OSError as error:
            raise ImageDecodeError(f"{self.shard} cannot be read: {error.strerror}") from error
        if not whole or len(data) < self.size:
            raise ImageDecodeError(f"{self.shard} ends before the image does")
        return data


class Skipped(Counter[str]):
    """How many files were come across and not taken for images, by their suffix."""

    def takes(self, name: str, head: Callable[[], bytes]) -> bool:
        """Whether a file that is come across, and was not named, is taken for an image or a video.

        Args:
            name: of the file.
            head: its first bytes; asked for where the name has no suffix.
        """
        suffix = os.path.splitext(name)[1].lower()
        if is_litter(name):
            self["litter of systems"] += 1
        elif suffix in SUFFIXES or (not suffix and _begins_as_image(head())):
            return True
        else:
            self[suffix or "no suffix"] += 1
        return False

    def __str__(self) -> str:
        if not self:
            return ""
        shown = ", ".join(f"{count} {kind}" for kind, count in self.most_common(12))
        return f"{self.total()} files skipped, which are no images by their names ({shown})"


def is_litter(name: str) -> bool:
    """Whether a file or folder is what a Mac, Windows or a storage box leaves beside images."""
    return name.startswith("._") or name.lower() in _LITTER


def _begins_as_image(head: bytes) -> bool:
    riff = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return riff or head[4:8] == b"ftyp" or head.startswith(_HEADS)


def _head(path: str) -> bytes:
    try:
        if not os.path.isfile(path):
            return b""
        with open(path, "rb") as file:
            return file.read(16)
    except OSError:
        return b""


def find_items(paths: Sequence[str], shard: str = "1/1", skipped: Skipped | None = None) -> Iterator[Item]:
    """Every image once, in an order that depends on names only.

    Args:
        paths: images; folders, searched with their subfolders in the order of names; globs (``**`` goes
            into subfolders); ``.txt`` files with one path a line; ``.csv``, ``.tsv``, ``.jsonl`` and
            ``.parquet`` tables with a column ``path`` (or ``image``, ``filename`` …); ``.tar`` shards; ``-``
            for paths from standard input. Paths inside a list are taken relative to the current folder.
        shard: ``k/n`` keeps the images whose name falls into the k-th of n equal shares, so that n jobs
            divide the work without talking to each other.
        skipped: counts what is not taken for an image.

    Raises:
        ConfigError: none of the paths exists, a list that cannot be read, or no image at all. One missing
            path among others is an :class:`Item` with an error.
    """
    mine, shares = _share(shard)
    if not any(text == "-" or os.path.lexists(text) or glob.has_magic(text) for text in paths):
        raise ConfigError(
            f"{', '.join(paths[:3])} does not exist; give images, folders of images, a glob, a .txt, .csv, .jsonl "
            "or .parquet of paths, .tar shards, or - for paths from standard input"
        )
    return _found(paths, mine, shares, Skipped() if skipped is None else skipped)


def _found(paths: Sequence[str], mine: int, shares: int, skipped: Skipped) -> Iterator[Item]:
    known, held = 0, []  # patterns without a match are rows only beside images
    for item in _distinct(_all(paths, skipped)):
        if item.error == _NO_MATCH and not known:
            held.append(item)
            continue
        known += 1
        yield from held
        held.clear()
        if _number(item.path) % shares == mine:
            yield item
    if not known:
        said = f"; {skipped}" if skipped else ""
        raise ConfigError(f"no image below {', '.join(paths)}; looked for {' '.join(sorted(SUFFIXES))}{said}")


def _number(path: str) -> int:
    """Evenly spread over names that differ in a digit, which checksums are not."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), "big")


def _share(text: str) -> tuple[int, int]:
    try:
        k, n = (int(x) for x in text.split("/"))
    except ValueError:
        k, n = 0, 0
    if not 1 <= k <= n:
        raise ConfigError(f"--shard {text!r} is K/N with K from 1 to N, e.g. 3/64")
    return k - 1, n


def _distinct(items: Iterable[Item]) -> Iterator[Item]:
    """Each path once; the names seen so far are kept on disk beyond a few MB."""
    seen = sqlite3.connect("")  # a private temporary file, which vanishes with the connection
    try:
        seen.execute("CREATE TABLE seen (path BLOB PRIMARY KEY) WITHOUT ROWID")
        for item in items:
            name = item.path.encode("utf-8", "surrogatepass")
            if seen.execute("INSERT OR IGNORE INTO seen VALUES (?)", (name,)).rowcount:
                yield item
    except sqlite3.Error as error:
        raise OutputError(f"the names of the images cannot be kept in $TMPDIR: {error}") from error
    finally:
        seen.close()


def _all(paths: Sequence[str], skipped: Skipped) -> Iterator[Item]:
    for text in paths:
        reader = _LISTS.get(os.path.splitext(text)[1].lower())
        if text == "-":
            yield from _lines(sys.stdin.buffer)
        elif os.path.isdir(text):
            yield from _walk(str(Path(text)), skipped)
        elif reader is not None and os.path.isfile(text):
            yield from reader(text, skipped)
        elif os.path.lexists(text) or not glob.has_magic(text):
            yield Item(text)  # one that is missing becomes a row with the reason
        else:
            yield from _matches(text, skipped)


def _listed(folder: str) -> list[str] | Item:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        return Item(folder, error=f"the folder cannot be listed: {error.strerror}")


def _walk(folder: str, skipped: Skipped) -> Iterator[Item]:
    """Images below a folder, however deep; links to folders are not followed."""
    waiting = [iter([folder])]  # of each level, what is left of it
    while waiting:
        place = next(waiting[-1], None)
        if place is None:
            waiting.pop()
            continue
        name = os.path.basename(place)
        below = len(waiting) > 1  # the folder that was named is searched, whatever it is called
        # A folder named x.jpg too is taken: it becomes an error row instead of vanishing.
        if below and not is_litter(name) and os.path.splitext(name)[1].lower() in SUFFIXES:
            yield Item(place)
        elif os.path.isdir(place) and not (below and (is_litter(name) or os.path.islink(place))):
            names = _listed(place)
            if isinstance(names, Item):
                yield names
            else:
                waiting.append(iter([os.path.join(place, n) for n in names]))
        elif skipped.takes(name, lambda place=place: _head(place)):  # type: ignore[misc]
            yield Item(place)


def _matches(pattern: str, skipped: Skipped) -> Iterator[Item]:
    """Images and lists that match, in the order of their names."""
    found = sorted(
        {place for place in _expand(pattern) if not os.path.isdir(place) or _suffix(place) in SUFFIXES}
    )
    taken = 0
    for place in found:
        reader = _LISTS.get(_suffix(place))
        if reader is not None and os.path.isfile(place):
            yield from reader(place, skipped)
        elif skipped.takes(os.path.basename(place), lambda place=place: _head(place)):  # type: ignore[misc]
            yield Item(place)
        else:
            continue
        taken += 1
    if not taken:
        yield Item(pattern, error=_NO_MATCH)


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _expand(pattern: str) -> Iterator[str]:
    """What matches; unlike :mod:`glob`, ``**`` follows no links, which may lead round in circles."""
    parts = Path(pattern).parts
    parts = (*parts, "*") if parts[-1] == "**" else parts
    waiting: list[tuple[str, int]] = [("", 0)]
    while waiting:
        place, at = waiting.pop()
        if at == len(parts):
            yield place
            continue
        part = parts[at]
        if not glob.has_magic(part):
            if os.path.lexists(os.path.join(place, part)):
                waiting.append((os.path.join(place, part), at + 1))
            continue
        names = _listed(place or ".")
        names = [] if isinstance(names, Item) else [n for n in names if part[0] == "." or n[0] != "."]
        if part == "**":
            waiting.append((place, at + 1))
            folders = (os.path.join(place, n) for n in names if not is_litter(n))
            waiting += [(f, at) for f in folders if os.path.isdir(f) and not os.path.islink(f)]
        else:
            matching = (os.path.join(place, n) for n in names if fnmatch.fnmatchcase(n, part))
            waiting += [(m, at + 1) for m in matching if not _leads_upwards(m)]


def _leads_upwards(path: str) -> bool:
    """Whether a link leads to a folder that it lies in."""
    if not os.path.islink(path):
        return False
    here, there = os.path.realpath(os.path.dirname(path)), os.path.realpath(path)
    return os.path.isdir(there) and os.path.commonpath([here, there]) == there


# ---- lists ----


def _lines(file: IO[bytes]) -> Iterator[Item]:
    """One path a line, of bytes as they stand, or of a text that begins with a byte-order mark."""
    buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast(Any, file))
    head = buffered.peek(4)
    encoding = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    text = io.TextIOWrapper(buffered, encoding or "utf-8", errors="surrogateescape", newline="\n")
    try:
        for line in text:
            if path := line.rstrip("\r\n"):
                yield Item(_spelt(path))
    finally:
        text.detach()


def _spelt(path: str) -> str:
    """A path as it is on this disk, where a list was written on Windows."""
    if path.isascii() and "\\" not in path:
        return path
    candidates = [path, path.replace("\\", "/")]
    if not path.isprintable():
        with_page = os.fsencode(path).decode("cp1252", "replace")
        candidates += [with_page, with_page.replace("\\", "/")]
    return next((found for found in candidates if os.path.lexists(found)), path)


def _text(path: str, _: Skipped) -> Iterator[Item]:
    with open(path, "rb") as file:
        yield from _lines(file)


def _column(path: str, names: Iterable[str]) -> str:
    by_lower = {name.strip().lower(): name for name in names}
    found = next((by_lower[name] for name in _COLUMNS if name in by_lower), None)
    if found is None:
        raise ConfigError(
            f"{path} has no column 'path' (nor {', '.join(_COLUMNS[1:])}); it has {', '.join(by_lower)}"
        )
    return found


def _csv(path: str, _: Skipped) -> Iterator[Item]:
    with open(path, "rb") as file:
        head = file.read(4)
    encoding = next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")
    try:
        with open(path, encoding=encoding, errors="surrogateescape", newline="") as text:
            first = text.readline()
            text.seek(0)
            separator = max(",;\t", key=first.count)
            rows = csv.DictReader(text, delimiter=separator)
            names = rows.fieldnames or []
            if len(names) == 1 and _suffix(names[0]) in SUFFIXES:  # no header: paths only
                yield Item(_spelt(from_csv_cell(names[0])))
                column = names[0]
            else:
                column = _column(path, names)
            for row in rows:
                if cell := row[column]:
                    yield Item(_spelt(from_csv_cell(cell)))
    except (csv.Error, UnicodeError, OSError) as error:
        raise ConfigError(f"{path} is no table that can be read: {error}") from error


def _jsonl(path: str, _: Skipped) -> Iterator[Item]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                text = row if isinstance(row, str) else row[_column(path, row)]
            except (ValueError, TypeError, RecursionError):
                yield Item(f"{path}[{number}]", error="the line is no JSON with a path")
                continue
            yield (
                Item(text)
                if isinstance(text, str)
                else Item(f"{path}[{number}]", error=f"{text!r} is no path")
            )


def _parquet(path: str, _: Skipped) -> Iterator[Item]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
        column = _column(path, table.schema_arrow.names)
        for batch in table.iter_batches(columns=[column], batch_size=10_000):
            for number, text in enumerate(batch.column(0).to_pylist()):
                if isinstance(text, str) and text:
                    yield Item(text)
                else:
                    yield Item(f"{path}[{number}]", error=f"{text!r} is no path")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no parquet file that can be read: {error}") from error


def _tar(path: str, skipped: Skipped) -> Iterator[Item]:
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                cast(Any, tar).members.clear()  # it would keep every header
                if not member.isreg() or any(is_litter(part) for part in member.name.split("/")[:-1]):
                    continue
                item = Item(f"{path}/{member.name}", path, member.offset_data, member.size)
                if member.sparse is not None:
                    yield Item(item.path, error="a sparse member of a shard is not read")
                elif skipped.takes(os.path.basename(member.name), lambda item=item: _first(item)):  # type: ignore[misc]
                    yield item
    except (tarfile.TarError, OSError, ValueError, OverflowError, MemoryError) as error:
        # What was found up to here is scored; the row says that there was more.
        yield Item(path, error=f"the shard cannot be read to its end: {error}")


def _first(item: Item) -> bytes:
    try:
        return cast(bytes, item._replace(size=min(item.size, 16)).source())
    except ImageDecodeError:
        return b""


#: A named file with one of these holds images or their names, and is none itself.
_LISTS: dict[str, Callable[[str, Skipped], Iterator[Item]]] = {
    ".txt": _text,
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
    ".tar": _tar,
}
