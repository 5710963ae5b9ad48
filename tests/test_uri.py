import pytest
from hypothesis import given
from hypothesis import strategies as st

from rali_zoo.errors import UriError
from rali_zoo.uri import Uri, parse_uri

SCHEMES = ["open_clip", "timm", "hf"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("open_clip:ViT-L-14-336/openai", Uri("open_clip", "ViT-L-14-336/openai")),
        ("open_clip:hf-hub:org/repo", Uri("open_clip", "hf-hub:org/repo")),
        (
            "timm:resnet18.a1_in1k?size=384&pool=avg_std",
            Uri("timm", "resnet18.a1_in1k", {"size": "384", "pool": "avg_std"}),
        ),
        ("hf:org/repo@rev", Uri("hf", "org/repo@rev")),
    ],
)
def test_parse(text, expected):
    assert parse_uri(text, SCHEMES, "backbone") == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("resnet18", "'timm:resnet18'"),
        ("tim:resnet18", "Did you mean 'timm'"),
        ("timm:", "nothing stands after"),
        ("C:\\weights", "is no backbone"),
        ("timm:x?size", "option=value"),
        ("timm:x?size=1&size=2", "twice"),
    ],
)
def test_refuses_to_guess(text, says):
    with pytest.raises(UriError, match=says):
        parse_uri(text, SCHEMES, "backbone")


def test_unknown_option_gets_a_near_miss():
    with pytest.raises(UriError, match="Did you mean 'size'"):
        parse_uri("timm:x?siez=3", SCHEMES, "backbone").take(["size", "pool"])


_text = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)


@given(st.sampled_from(SCHEMES), _text, st.dictionaries(_text, _text, max_size=3))
def test_str_and_parse_are_inverse(scheme, name, options):
    uri = Uri(scheme, name, options)
    assert parse_uri(str(uri), SCHEMES, "backbone") == uri
