"""Where images come from: files, folders, globs, lists, tables and tar shards, one at a time.

Nothing is decoded here, and nothing is unpacked: an image in a tar is read from its place in the shard.
"""

from __future__ import annotations

import glob
import hashlib
import os
import sqlite3
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from rali_zoo.data.video import VIDEO_SUFFIXES
from rali_zoo.errors import ConfigError, ImageDecodeError

#: What a folder, a glob and a shard are searched for; a file that is named is scored whatever its suffix.
SUFFIXES = VIDEO_SUFFIXES | frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif"),
        *(".jp2", ".j2k", ".avif", ".heic", ".heif", ".ppm", ".pgm", ".pbm", ".pnm"),
    ]
)
#: A named file with one of these holds images or their names, and is none itself.
LISTS = (".txt", ".parquet", ".tar")


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
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise ImageDecodeError(f"the shard cannot be read: {error.strerror}") from error
        if len(data) < self.size:
            raise ImageDecodeError("the shard ends before the image does")
        return data


def find_items(paths: Sequence[str], shard: str = "1/1") -> Iterator[Item]:
    """Every image once, in an order that depends on names only.

    Args:
        paths: images; folders, searched with their subfolders in the order of names; globs (``**`` goes
            into subfolders); ``.txt`` files with one path a line; ``.parquet`` files with a column ``path``;
            ``.tar`` shards. Paths inside a list are taken relative to the current folder.
        shard: ``k/n`` keeps the images whose name falls into the k-th of n equal shares, so that n jobs
            divide the work without talking to each other.

    Raises:
        ConfigError: a path that does not exist, a list that cannot be read, or no image at all.
    """
    mine, shares = _share(shard)
    for text in paths:
        if not (os.path.lexists(text) or glob.has_magic(text)):
            raise ConfigError(
                f"{text} does not exist; give images, folders of images, a glob, a .txt or .parquet of "
                "paths, or .tar shards"
            )
    return _found(paths, mine, shares)


def _found(paths: Sequence[str], mine: int, shares: int) -> Iterator[Item]:
    known = 0
    for item in _distinct(_all(paths)):
        known += 1
        if _number(item.path) % shares == mine:
            yield item
    if not known:
        raise ConfigError(f"no image below {', '.join(paths)}; looked for {' '.join(sorted(SUFFIXES))}")


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
            name = os.fsencode(item.path)
            if seen.execute("INSERT OR IGNORE INTO seen VALUES (?)", (name,)).rowcount:
                yield item
    finally:
        seen.close()


def _all(paths: Sequence[str]) -> Iterator[Item]:
    for text in paths:
        path = Path(text)
        if path.is_dir():
            yield from _walk(path)
        elif path.is_file() and path.suffix.lower() in LISTS:
            yield from {".txt": _text, ".parquet": _parquet, ".tar": _tar}[path.suffix.lower()](text)
        elif os.path.lexists(text):
            yield Item(text)
        else:
            yield from _glob(text)


def is_image(path: Path) -> bool:
    """Whether a file that is come across, and was not named, is taken for an image or a video."""
    return path.suffix.lower() in SUFFIXES


def _walk(folder: Path) -> Iterator[Item]:
    # Links to folders are not followed, so a link that points upwards does no harm.
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        yield Item(str(folder), error=f"the folder cannot be listed: {error.strerror}")
        return
    for name in names:
        child = folder / name
        if is_image(child):
            yield Item(str(child))  # a folder named x.jpg too: it becomes an error row instead of vanishing
        elif child.is_dir() and not child.is_symlink():
            yield from _walk(child)


def _glob(pattern: str) -> Iterator[Item]:
    """Images and lists that match; the matching names are sorted in memory."""
    for text in sorted(glob.iglob(pattern, recursive=True)):
        path = Path(text)
        if path.suffix.lower() in LISTS and path.is_file():
            yield from _all([text])
        elif is_image(path):
            yield Item(text)


def _text(path: str) -> Iterator[Item]:
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for line in file:
            if text := line.rstrip("\r\n"):
                yield Item(text)


def _parquet(path: str) -> Iterator[Item]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
        if "path" not in table.schema_arrow.names:
            raise ConfigError(f"{path} has no column 'path'; it has {', '.join(table.schema_arrow.names)}")
        for batch in table.iter_batches(columns=["path"], batch_size=10_000):
            for number, text in enumerate(batch.column(0).to_pylist()):
                if isinstance(text, str) and text:
                    yield Item(text)
                else:
                    yield Item(f"{path}[{number}]", error=f"{text!r} is no path")
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path} is no parquet file that can be read: {error}") from error


def _tar(path: str) -> Iterator[Item]:
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                cast(Any, tar).members.clear()  # it would keep every header
                if member.isreg() and is_image(Path(member.name)):
                    yield Item(f"{path}/{member.name}", path, member.offset_data, member.size)
    except (tarfile.TarError, OSError, ValueError) as error:
        # What was found up to here is scored; the row says that there was more.
        yield Item(path, error=f"the shard cannot be read to its end: {error}")
