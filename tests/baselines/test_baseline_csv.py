"""Scores that were computed elsewhere."""

from __future__ import annotations

import pytest
from PIL import Image

import rali_zoo
from rali_zoo.errors import ConfigError, ScoreTableError, UriError


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "closed.csv"
    path.write_text(
        "id,score,note,error\na.png,3.5,x,1\ndir/b.png,n/a,y,2\nother/c.png,nan,z,3\nd1/d.png,1,u,4\nd2/d.png,2,v,5\n"
    )
    return path


def test_scores_are_found_by_id_path_and_file_name(table, tmp_path):
    scorer = rali_zoo.load_model(f"csv:{table}")
    found = scorer.scores_for(["/data/set/a.png", "d1/d.png", "d.png", "z.png", "dir/b.png", "other/c.png"])
    assert [s.score for s in found] == [3.5, 1.0, None, None, None, None]
    assert [s.path for s in found[:2]] == ["/data/set/a.png", "d1/d.png"]
    assert "no score of it; it has d1/d.png, d2/d.png, in another folder" in found[2].error
    assert found[3].error == "the file has no score of it"
    assert "holds no number for it ('n/a')" in found[4].error and "holds nan" in found[5].error
    done = []
    scorer = rali_zoo.load_model(f"csv:{table}")
    found = scorer.score([tmp_path / "a.png", Image.new("RGB", (2, 2))], 4, done.append)
    assert found[0].score == 3.5 and "by an image's path" in found[1].error and done == [2]
    assert rali_zoo.load_model(f"csv:{table}").score("a.png")[0].score == 3.5


def test_no_image_gets_the_score_of_another(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("path,score\nnest/cam1/000.jpg,4.5\n001.jpg,3\n'=x.jpg,2\n")
    scorer = rali_zoo.load_model(f"csv:{path}")
    other, first, second = scorer.scores_for(["nest/cam2/000.jpg", "cam1/001.jpg", "cam2/001.jpg"])
    assert other.score is None and "in another folder" in other.error
    assert first.score is second.score is None and "several images are called so" in first.error
    assert scorer.scores_for(["nest/cam1/000.jpg", "=x.jpg"])[1].score == 2
    again = rali_zoo.load_model(f"csv:{path}")
    again.announce(["cam1/001.jpg", "cam2/001.jpg"])
    assert again.score(["cam1/001.jpg"])[0].score is None


def test_what_it_says_of_itself(table):
    plain = rali_zoo.load_model(f"csv:{table}")
    assert (plain.name, plain.training_sets, plain.score_range) == ("csv:closed.csv", None, None)
    assert plain.native_scale and not plain.needs_reference and plain.modules() == []
    ref = f"csv:{table}?column=error&higher=false&training_sets=koniq10k,spaq&name=mine&score_range=0,5"
    errors = rali_zoo.load_model(ref)
    assert errors.scores_for(["a.png"])[0].score == -1.0 and errors.scores_for(["a.png"])[0].model == "mine"
    assert (errors.name, errors.training_sets, errors.score_range) == (
        "mine",
        ("koniq10k", "spaq"),
        (-5.0, 0.0),
    )
    assert not rali_zoo.load_model(f"csv:{table}?score_range=1,5").native_scale
    assert rali_zoo.load_model(f"csv:{table}?training_sets=").training_sets == ()
    assert rali_zoo.load_model(f"csv:{table}?id=note&score_range=1,5").scores_for(["x"])[0].score == 3.5
    assert errors.revision != plain.revision == rali_zoo.load_model(f"csv:{table}").revision
    table.write_text(table.read_text().replace("3.5", "3.6"))
    assert rali_zoo.load_model(f"csv:{table}").revision != plain.revision
    with pytest.raises(ConfigError, match="only gives scores"):
        _ = plain.network


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ("?column=mos", ScoreTableError, "has no column mos"),
        ("?id=path", ScoreTableError, "has no column path"),
        ("?colum=mos", UriError, "column"),
        ("?higher=no", UriError, "higher=true"),
        ("?score_range=5", UriError, "two numbers"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(table, options, error, says):
    with pytest.raises(error, match=says):
        rali_zoo.load_model(f"csv:{table}{options}")


def test_missing_files_and_rows_twice(table, tmp_path):
    with pytest.raises(ScoreTableError, match="does not exist"):
        rali_zoo.load_model(f"csv:{tmp_path / 'none.csv'}")
    table.write_text("id,score\na,1\na,2\n")
    with pytest.raises(ScoreTableError, match="twice: a"):
        rali_zoo.load_model(f"csv:{table}")
