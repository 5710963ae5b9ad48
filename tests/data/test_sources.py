"""Each way to name images gives each of them once, and what cannot be read is a row."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rali_zoo.data.sources import Item, Skipped, find_items
from rali_zoo.errors import ConfigError, ImageDecodeError


def names(paths, shard="1/1"):
    return [item.path for item in find_items([str(p) for p in paths], shard)]


def make_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_a_folder_is_searched_in_order_without_following_links(tmp_path):
    (tmp_path / "b" / "c.jpg").mkdir(parents=True)
    for name in ("z.PNG", "a.jpeg", "b/x.webp", "no.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing")
    wanted = ["a.jpeg", "b/c.jpg", "b/x.webp", "gone.jpg", "z.PNG"]
    assert names([tmp_path]) == [str(tmp_path / n) for n in wanted]
    assert names([tmp_path, tmp_path / "z.PNG", tmp_path / "b"]) == names([tmp_path])


def test_a_named_file_is_taken_whatever_its_suffix(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    assert names([tmp_path / "plain"]) == [str(tmp_path / "plain")]
    with pytest.raises(ConfigError, match="does not exist"):
        find_items([str(tmp_path / "gone")])
    with pytest.raises(ConfigError, match="no image below"):
        list(find_items([str(tmp_path)]))


def test_globs(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/1.jpg", "a/b/2.jpg", "a/b/3.png", "a/b/4.md"):
        (tmp_path / name).write_bytes(b"")
    assert names([tmp_path / "a" / "*.jpg"]) == [str(tmp_path / "a/1.jpg")]
    deep = [str(tmp_path / n) for n in ("a/1.jpg", "a/b/2.jpg", "a/b/3.png")]
    assert names([tmp_path / "**" / "*"]) == deep


def test_text_lists_take_any_name(tmp_path):
    odd = "späce and ☂\x07.jpg"
    raw = os.fsencode(odd) + b"\r\n\n/no/utf\xff8.jpg\n" + os.fsencode(odd) + b"\n/last.jpg"
    (tmp_path / "list.txt").write_bytes(raw)
    assert names([tmp_path / "list.txt"]) == [odd, os.fsdecode(b"/no/utf\xff8.jpg"), "/last.jpg"]


def test_parquet_lists(tmp_path):
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"path": ["a.jpg", None, "b.jpg"], "more": [1, 2, 3]}), path)
    items = list(find_items([str(path)]))
    assert [i.path for i in items] == ["a.jpg", f"{path}[1]", "b.jpg"] and "no path" in items[1].error
    pq.write_table(pa.table({"thing": ["a.jpg"]}), path)
    with pytest.raises(ConfigError, match="no column 'path' .*; it has thing"):
        list(find_items([str(path)]))
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(ConfigError, match="no parquet file"):
        list(find_items([str(path)]))


def test_members_of_a_shard_are_read_in_place(tmp_path):
    """Names that point out of the folder are harmless: nothing is unpacked."""
    members = {"a.jpg": b"first", "a.json": b"{}", "../../evil.png": b"second", "d/b.webp": b""}
    shard = make_tar(tmp_path / "s.tar", members)
    items = list(find_items([str(shard)]))
    assert [i.path for i in items] == [f"{shard}/a.jpg", f"{shard}/../../evil.png", f"{shard}/d/b.webp"]
    assert [i.source() for i in items] == [b"first", b"second", b""]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.tar"]
    assert names([tmp_path / "*.tar"]) == [i.path for i in items]


def test_a_shard_that_is_cut_gives_what_is_whole_and_says_so(tmp_path):
    shard = make_tar(tmp_path / "s.tar", {"a.jpg": b"x" * 600, "b.jpg": b"y" * 6000})
    items = list(find_items([str(shard)]))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: items[1].offset + 100])
    found = list(find_items([str(shard)]))
    assert [i.path for i in found][:2] == [i.path for i in items] and found[0].source() == b"x" * 600
    with pytest.raises(ImageDecodeError, match="ends before"):
        found[1].source()
    (tmp_path / "t.tar").write_bytes(b"no tar at all" * 100)
    (bad,) = find_items([str(tmp_path / "t.tar")])
    with pytest.raises(ImageDecodeError, match="cannot be read to its end"):
        bad.source()
    with pytest.raises(ImageDecodeError, match="gone.tar cannot be read: No such file"):
        Item("x", shard=str(tmp_path / "gone.tar"), size=1).source()


def test_shares_are_disjoint_and_together_everything(tmp_path):
    (tmp_path / "l.txt").write_text("\n".join(f"{i}.jpg" for i in range(100)))
    shares = [names([tmp_path / "l.txt"], f"{k}/3") for k in (1, 2, 3)]
    assert sorted(sum(shares, [])) == sorted(names([tmp_path / "l.txt"])) and min(map(len, shares)) > 15
    for wrong in ("0/3", "4/3", "3", "a/b", "1/0"):
        with pytest.raises(ConfigError, match="K/N"):
            find_items([str(tmp_path)], wrong)


# ---- as people have them ----


def test_every_suffix_that_opens_is_searched_and_what_is_skipped_is_counted(tmp_path):
    from rali_zoo.data.formats import IMAGE_SUFFIXES as SUFFIXES

    names_ = [f"a{suffix}" for suffix in sorted(SUFFIXES)]
    for name in names_:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "plain").write_bytes(b"\xff\xd8\xff\xe0")  # a JPEG without a suffix
    for other in ("README", "a.svg", "b.svg", "c.xmp"):
        (tmp_path / other).write_bytes(b"text")
    for litter in ("._a.jpg", ".DS_Store", "Thumbs.db"):
        (tmp_path / litter).write_bytes(b"")
    for folder in ("__MACOSX", "@eaDir"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").write_bytes(b"")
    for given in (tmp_path, tmp_path / "**"):
        skipped = Skipped()
        found = list(find_items([str(given)], skipped=skipped))
        assert {os.path.basename(i.path) for i in found if "eaDir" not in i.path} == {*names_, "plain"}
        assert skipped[".svg"] == 2 and skipped[".xmp"] == 1 and skipped["no suffix"] == 1
        assert skipped["litter of systems"] >= 1 and "2 .svg" in str(skipped)
    (tmp_path / "s.tar").write_bytes(b"")
    members = {"._a.jpg": b"", "__MACOSX/b.jpg": b"", "c.jpg": b"", "d.txt": b"", "e": b"\x89PNG"}
    shard = make_tar(tmp_path / "s.tar", members)
    assert [i.path for i in find_items([str(shard)])] == [f"{shard}/c.jpg", f"{shard}/e"]


def test_links_in_circles_give_each_image_once(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "1.jpg").write_bytes(b"")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    with pytest.raises(ConfigError, match="no image below"):
        names([tmp_path / "a/*/**/*.jpg"])
    for pattern in ("**/*.jpg", "**", "*/**/*.jpg", "**/**/*.jpg", "**/*/*.jpg"):
        assert [i.path for i in find_items([str(tmp_path / pattern)])] == [str(tmp_path / "a/1.jpg")]


def test_folders_as_deep_as_they_come(tmp_path):
    old = os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
        with open("a.jpg", "wb"):
            pass
        os.chdir(old)
        found = names([tmp_path]), names([tmp_path / "**" / "*.jpg"])
        assert found[0] == found[1] and len(found[0]) == 1
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # shutil.rmtree recurses
        os.chdir(old)


@pytest.mark.parametrize("size", [2**62, 2**70, -1, 2**40])
def test_a_header_that_lies_about_a_size_costs_a_row(tmp_path, size):
    shard = make_tar(tmp_path / "s.tar", {"a.jpg": b"first", "b.jpg": b"second"})
    data = bytearray(shard.read_bytes())
    header = tarfile.TarInfo("b.jpg")
    header.size = size
    data[1024:1536] = header.tobuf(tarfile.GNU_FORMAT)
    shard.write_bytes(data)
    first, *others = find_items([str(shard)])
    assert first.source() == b"first" and others
    for item in others:
        with pytest.raises(ImageDecodeError):
            Item(*json.loads(json.dumps(item))).source()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-32", "cp1252"])
def test_lists_in_any_encoding(tmp_path, monkeypatch, encoding):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fotos").mkdir()
    (tmp_path / "fotos" / "grün.jpg").write_bytes(b"")

    def written(text):
        return b"\xff\xfe" + text.encode("utf-16-le") if encoding.endswith("bom") else text.encode(encoding)

    (tmp_path / "l.txt").write_bytes(written("fotos\\grün.jpg\r\n"))
    (tmp_path / "l.csv").write_bytes(written("id;image\r\n1;fotos/grün.jpg\r\n"))
    for name in ("l.txt", "l.csv"):
        assert names([name]) == ["fotos/grün.jpg"]


def test_tables_of_paths(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("path,score\n'=odd.jpg,3\nb.jpg,4\n,5\n")
    (tmp_path / "b.csv").write_text("x.jpg\ny.jpg\n")
    (tmp_path / "c.jsonl").write_text('{"path": "p.jpg"}\n"q.jpg"\n{\n{"path": 3}\n')
    (tmp_path / "d.csv").write_text("thing,score\na,3\n")
    assert names([tmp_path / "a.csv"]) == ["=odd.jpg", "b.jpg"]
    assert names([tmp_path / "b.csv"]) == ["x.jpg", "y.jpg"]
    assert [i.path for i in find_items([str(tmp_path / "c.jsonl")]) if not i.error] == ["p.jpg", "q.jpg"]
    with pytest.raises(ConfigError, match="no column 'path' .*; it has thing, score"):
        names([tmp_path / "d.csv"])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a.jpg\nb.jpg")))
    assert names(["-"]) == ["a.jpg", "b.jpg"]


def test_one_missing_path_is_a_row(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    given = [str(tmp_path / n) for n in ("a.jpg", "gone.jpg", "gone*.jpg")]
    found = list(find_items(given))
    assert [i.path for i in found] == given and found[2].error
