"""Attention: against the formula, for every family, whatever the padding; tokens counted."""

from __future__ import annotations

import pytest
import torch
from conftest import REFS

from rali_zoo.analysis import attention as looks
from rali_zoo.models.vlm import VLMNetwork

SHORT = '<think>Blur.</think><answer>{"rating": 3.42}</answer>'
LONG = '<think>Obvious noise, 3.42 of it.</think>\n<answer> {"rating": 2.5} </answer>'
SIDE = 28


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl", "llava", "tiny"])
def module(request, build_family, tmp_path_factory):
    torch.manual_seed(0)
    ref = "rali:vlm-tiny?image_size=32&width=32&layers=2&grid=2"
    if request.param != "tiny":
        ref = build_family(request.param, tmp_path_factory.mktemp("vlm") / request.param)
    return VLMNetwork(ref, max_completion_length=8).eval()


def images(n: int) -> torch.Tensor:
    return torch.rand(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def looked(module, texts, images):
    vlm = module.vlm
    ids, mask = vlm.write(texts)
    where = [
        looks.places(vlm, row[m.bool()].tolist(), text) for row, m, text in zip(ids, mask, texts, strict=True)
    ]
    prompts = vlm.ask(images, [module.asked] * len(texts))
    return prompts, ids, mask, where


def test_places(module):
    """The score's first digit, not the same number in the reasoning; the reasoning with its tags."""
    vlm = module.vlm
    for text, think in ((SHORT, "<think>Blur.</think>"), (LONG, "<think>Obvious noise, 3.42 of it.</think>")):
        ids = vlm.tokenizer(text, add_special_tokens=False)["input_ids"]
        found = looks.places(vlm, ids, text)
        assert vlm.tokenizer.decode(ids[: found.text]) == think
        assert vlm.tokenizer.decode(ids[: found.score]) == text[: text.rindex(":") + 2]
        assert vlm.tokenizer.decode([ids[found.score]]) == text[text.rindex(":") + 2]
    assert looks.places(vlm, [], "<think>a</think><answer>none</answer>") is None
    assert looks.places(vlm, [], '<answer>{"rating": 3}</answer>') is None


def test_shares_are_shares_whatever_the_padding(module):
    before = module.vlm.model.config._attn_implementation
    photos = images(2)
    both = looks.shares(module.vlm, *looked(module, [SHORT, LONG], photos))
    assert both.shape == (2, 2, 2, 4) and bool((both[:, :, :, :3] > 0).all())
    torch.testing.assert_close(both.sum(dim=3), torch.ones(2, 2, 2))
    assert bool((both[:, 1, :, 3] == 0).all()), "the answer is not there yet while the text is written"
    alone = looks.shares(module.vlm, *looked(module, [LONG], photos[1:]))
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-4)
    assert module.vlm.model.config._attn_implementation == before


def test_parts_hold_every_token_once(module):
    prompts, ids, mask, where = looked(module, [SHORT, LONG], images(2))
    full = prompts.followed_by(ids, mask)["attention_mask"]
    found = looks.parts(module.vlm, prompts, full, where)
    assert torch.equal(found.sum(dim=1), full.float())
    standing = looks.image_tokens(module.vlm, prompts.inputs["input_ids"]).sum(dim=1).float()
    assert torch.equal(found[:, 0].sum(dim=1), standing) and bool((standing > 0).all())


def test_attention_is_that_of_the_formula(reasoner, frames):
    """softmax(q k / sqrt(d)) by hand, from the weights of each layer, for the shipped model."""
    vlm, decoder = reasoner.vlm, reasoner.vlm.model.get_decoder()
    from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

    image = images(1)
    prompts, ids, mask, where = looked(reasoner, [SHORT], image)
    inputs, seen = prompts.followed_by(ids, mask), {}
    hooks = [
        layer.self_attn.register_forward_pre_hook(
            lambda m, args, kwargs, i=i: seen.__setitem__(i, kwargs["hidden_states"]), with_kwargs=True
        )
        for i, layer in enumerate(decoder.layers)
    ]
    with torch.no_grad():
        vlm.model(**inputs, use_cache=False)
    for hook in hooks:
        hook.remove()
    found = looks.shares(vlm, prompts, ids, mask, where)
    query = prompts.length + where[0].score - 1
    belongs = looks.parts(vlm, prompts, inputs["attention_mask"], where)[0]
    for i, layer in enumerate(decoder.layers):
        x, size = seen[i], layer.self_attn.head_dim
        q, k = (
            proj(x).view(1, x.shape[1], -1, size).transpose(1, 2)
            for proj in (layer.self_attn.q_proj, layer.self_attn.k_proj)
        )
        turn = decoder.rotary_emb(x, torch.arange(x.shape[1])[None])
        q, k = apply_rotary_pos_emb(q, k, *turn)
        weights = torch.einsum("hd,hkd->hk", q[0, :, query], k[0, :, : query + 1])
        weights = (weights / size**0.5).softmax(dim=-1).mean(dim=0)
        torch.testing.assert_close(found[0, 0, i], belongs[:, : query + 1] @ weights, atol=1e-5, rtol=1e-4)


def test_attention_by_layer(reasoner, frames, settings):
    found = looks.attention(reasoner, {REFS[0]: frames[REFS[0]]}, settings)[REFS[0]]
    assert found["n"] == 24 and set(found["score"]) == {"0", "1", "all"}
    for where in (*found["score"].values(), found["text"]["all"], found["even"]):
        assert sum(where[part]["value"] for part in looks.PARTS) == pytest.approx(1, abs=1e-5)
        assert all(where[p]["low"] <= where[p]["value"] <= where[p]["high"] for p in looks.PARTS)
    layers = [found["score"][k]["image"]["value"] for k in ("0", "1")]
    assert found["score"]["all"]["image"]["value"] == pytest.approx(sum(layers) / 2)


def test_compression(reasoner, frames, settings):
    found = looks.compression(reasoner, {REFS[0]: frames[REFS[0]]}, settings)[REFS[0]]
    assert found["visual"]["value"] == 10, "1 + 3² tokens"
    assert sum(count for _, _, count in found["tokens"]) == found["n"] == 24
    mean = sum(text * count for _, text, count in found["tokens"]) / 24
    assert found["text"]["value"] == pytest.approx(mean)
