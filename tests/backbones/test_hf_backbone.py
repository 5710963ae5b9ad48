"""transformers' adapter against transformers itself, on tiny models in their real layout."""

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from rali_zoo.backbones import create_backbone
from rali_zoo.errors import CheckpointError, UriError

TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
WORDS = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]


def save(model, path, **processor):
    model.eval().save_pretrained(path)
    given = {"size": {"height": 32, "width": 32}, "image_mean": MEAN, "image_std": STD, **processor}
    tf.CLIPImageProcessor(**{"do_center_crop": False, **given}).save_pretrained(path)
    return model, path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    torch.manual_seed(0)
    config = tf.CLIPConfig(text_config={**WORDS, "vocab_size": 99}, vision_config=TOWER, projection_dim=24)
    crop = {"size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
    return save(tf.CLIPModel(config), tmp_path_factory.mktemp("clip"), **crop)


@pytest.fixture
def image():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def normalised(image):
    return (image - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


@torch.inference_mode()
def test_clip_gives_the_projected_embedding_from_the_vision_tower_alone(clip, image):
    model, path = clip
    backbone = create_backbone(f"hf:local-dir:{path}").eval()
    x = normalised(image)
    pooled, tokens = backbone(image)
    torch.testing.assert_close(pooled, model.get_image_features(x).pooler_output)
    torch.testing.assert_close(tokens, model.vision_model(x).last_hidden_state[:, 1:])
    assert (backbone.dim, backbone.token_dim) == (24, 32)
    vision = [p for n, p in model.named_parameters() if n.startswith(("vision_model.", "visual_projection."))]
    assert sum(p.numel() for p in backbone.parameters()) == sum(p.numel() for p in vision)
    rules = backbone.preprocess
    assert (rules.size, rules.resize, rules.crop_rule) == ((32, 32), "center_crop", "floor")
    assert rules.mean == tuple(MEAN)
    assert rules.interpolation == "bicubic"


@torch.inference_mode()
def test_another_size_interpolates_positions(clip):
    model, path = clip
    backbone = create_backbone(f"hf:local-dir:{path}?size=48").eval()
    image = torch.rand(1, 3, 48, 48)
    expected = model.get_image_features(normalised(image), interpolate_pos_encoding=True).pooler_output
    torch.testing.assert_close(backbone(image).pooled, expected)
    assert backbone.preprocess.size == (48, 48)


@torch.inference_mode()
def test_a_whole_clip_file_is_a_checkpoint_too(clip, image, tmp_path):
    model, path = clip
    state = load_file(path / "model.safetensors")
    save_file(
        {k: v + 0.5 if k.startswith("vision") else v for k, v in state.items()}, tmp_path / "w.safetensors"
    )
    other = create_backbone(f"hf:local-dir:{path}?checkpoint={tmp_path / 'w.safetensors'}").eval()
    plain = create_backbone(f"hf:local-dir:{path}").eval()
    assert not torch.allclose(other(image).pooled, plain(image).pooled)
    torch.testing.assert_close(
        other.net.state_dict()["visual_projection.weight"], state["visual_projection.weight"]
    )


@torch.inference_mode()
def test_siglip_gives_its_attention_pooled_embedding(tmp_path, image):
    torch.manual_seed(0)
    text = {**WORDS, "vocab_size": 99, "projection_size": 32}
    model, path = save(tf.SiglipModel(tf.SiglipConfig(text_config=text, vision_config=TOWER)), tmp_path)
    backbone = create_backbone(f"hf:local-dir:{path}").eval()
    pooled, tokens = backbone(image)
    expected = model.vision_model(normalised(image))
    torch.testing.assert_close(pooled, expected.pooler_output)
    torch.testing.assert_close(tokens, expected.last_hidden_state)
    assert backbone.preprocess.resize == "squash"


@torch.inference_mode()
def test_siglip2_naflex_gets_the_patches_its_processor_makes(tmp_path):
    torch.manual_seed(0)
    tower = {k: v for k, v in TOWER.items() if k != "image_size"} | {"num_patches": 16}
    text = {**WORDS, "vocab_size": 99, "projection_size": 32}
    model = tf.Siglip2Model(tf.Siglip2Config(text_config=text, vision_config=tower)).eval()
    model.save_pretrained(tmp_path)
    backbone = create_backbone(f"hf:local-dir:{tmp_path}?size=32&mean=0.5,0.5,0.5&std=0.5,0.5,0.5").eval()
    pixels = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    batch = tf.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)(pixels, return_tensors="pt")
    expected = model.vision_model(**batch)
    pooled, tokens = backbone(pixels[None] / 255)
    torch.testing.assert_close(pooled, expected.pooler_output, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(tokens, expected.last_hidden_state, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_vit_saved_without_a_pooler_gives_its_class_token(tmp_path, image):
    torch.manual_seed(0)
    model, path = save(tf.ViTModel(tf.ViTConfig(**TOWER), add_pooling_layer=False), tmp_path)
    last = model(normalised(image)).last_hidden_state
    backbone = create_backbone(f"hf:local-dir:{path}").eval()
    torch.testing.assert_close(backbone(image).pooled, last[:, 0])
    torch.testing.assert_close(backbone(image).tokens, last[:, 1:])
    assert create_backbone(f"hf:local-dir:{path}").revision == backbone.revision


@torch.inference_mode()
def test_dinov2_with_registers_leaves_them_out_of_the_tokens(tmp_path, image):
    torch.manual_seed(0)
    tower = {k: v for k, v in TOWER.items() if k != "intermediate_size"}
    config = tf.Dinov2WithRegistersConfig(**tower, num_register_tokens=4)
    model, path = save(tf.Dinov2WithRegistersModel(config), tmp_path)
    backbone = create_backbone(f"hf:local-dir:{path}").eval()
    expected = model(normalised(image))
    torch.testing.assert_close(backbone(image).pooled, expected.pooler_output)
    torch.testing.assert_close(backbone(image).tokens, expected.last_hidden_state[:, 5:])


@torch.inference_mode()
def test_a_convolutional_encoder(tmp_path, image):
    torch.manual_seed(0)
    config = tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    model, path = save(tf.ResNetModel(config), tmp_path)
    backbone = create_backbone(f"hf:local-dir:{path}").eval()
    expected = model(normalised(image))
    torch.testing.assert_close(backbone(image).pooled, expected.pooler_output.flatten(1))
    assert backbone(image).tokens.shape == (2, 16, 16)
    assert backbone.dim == 16


def test_half_precision_files_are_read_as_float32(clip, tmp_path, image):
    model, path = clip
    save(tf.CLIPModel.from_pretrained(path).half(), tmp_path)
    backbone = create_backbone(f"hf:local-dir:{tmp_path}")
    assert backbone(image).pooled.dtype == torch.float32


def test_incomplete_weights_are_refused(clip, tmp_path):
    model, path = clip
    save(model, tmp_path)
    state = load_file(path / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    said = "lack 1 of the network's tensors.*visual_projection.weight.*CLIPVisionModelWithProjection"
    with pytest.raises(CheckpointError, match=said):
        create_backbone(f"hf:local-dir:{tmp_path}")


def test_missing_files_and_foreign_models_are_named(clip, tmp_path):
    model, _ = clip
    model.save_pretrained(tmp_path / "clip")
    with pytest.raises(
        CheckpointError, match=r"(?s)image processor could not fetch.*preprocessor_config.json"
    ):
        create_backbone(f"hf:local-dir:{tmp_path / 'clip'}")
    tf.BertConfig(**WORDS).save_pretrained(tmp_path / "bert")
    with pytest.raises(UriError, match="takes no images"):
        create_backbone(f"hf:local-dir:{tmp_path / 'bert'}")


@torch.inference_mode()
def test_a_saved_vision_model_without_projection_gives_its_own_pooling(clip, tmp_path, image):
    model, path = clip
    vision, folder = save(tf.CLIPVisionModel.from_pretrained(path), tmp_path)
    backbone = create_backbone(f"hf:local-dir:{folder}").eval()
    torch.testing.assert_close(backbone(image).pooled, vision(normalised(image)).pooler_output)
    assert backbone.dim == TOWER["hidden_size"]


def test_a_size_in_the_reference_is_enough_for_a_processor_without_one(tmp_path):
    tower = {k: v for k, v in TOWER.items() if k != "image_size"} | {"num_patches": 16}
    text = {**WORDS, "vocab_size": 99, "projection_size": 32}
    tf.Siglip2Model(tf.Siglip2Config(text_config=text, vision_config=tower)).save_pretrained(tmp_path)
    tf.Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(tmp_path)
    backbone = create_backbone(f"hf:local-dir:{tmp_path}?size=32")
    assert backbone.preprocess.size == (32, 32)
    assert backbone(torch.rand(1, 3, 32, 32)).pooled.shape == (1, backbone.dim)
    with pytest.raises(UriError, match="add size=PIXELS"):
        create_backbone(f"hf:local-dir:{tmp_path}")


@pytest.mark.parametrize("scheme", ["hf", "open_clip"])
def test_nobody_is_told_what_they_have_typed(scheme, tmp_path):
    with pytest.raises(CheckpointError) as plain:
        create_backbone(f"{scheme}:local-dir:{tmp_path}")
    assert "?pretrained=false" in str(plain.value)
    with pytest.raises(CheckpointError) as random:
        create_backbone(f"{scheme}:local-dir:{tmp_path}?pretrained=false")
    assert "?pretrained=false' starts" not in str(random.value)


def test_without_the_hub_there_is_one_error_and_no_retries(monkeypatch, capfd):
    import time

    from rali_zoo.backbones import weights

    monkeypatch.setattr(weights, "_hub_answers", lambda: False)
    started = time.process_time()
    with pytest.raises(CheckpointError, match="Without a network"):
        create_backbone("hf:nobody/nothing")
    assert "etry" not in capfd.readouterr().err and time.process_time() - started < 60
