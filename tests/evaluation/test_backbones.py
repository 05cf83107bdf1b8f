"""Features of any vision backbone: which output, and the model's own preprocessing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoImageProcessor,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from semsynth.core.errors import UserError
from semsynth.evaluation.metrics.backbones import clip_extractor, transformers_extractor
from semsynth.evaluation.metrics.features import FeatureExtractor, kernel_name

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def save_tiny_vit(folder: Path) -> Path:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
    )
    torch.manual_seed(0)
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    processor = {
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"height": 32, "width": 32},
    }
    processor["image_processor_type"] = "ViTImageProcessor"
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def test_features_are_named_after_the_transformers_backbone(tmp_path: Path) -> None:
    extractor = transformers_extractor(str(save_tiny_vit(tmp_path / "vit")), "cpu")
    images = np.random.default_rng(0).integers(0, 256, (3, 24, 40, 3), np.uint8)
    features = extractor.extract(images)
    assert extractor.name == "fd_vit"
    assert features.shape == (3, 16)
    assert features.dtype == np.float32
    np.testing.assert_allclose(extractor.extract(images[1:2]), features[1:2], atol=1e-5)


def test_a_missing_backbone_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--features"):
        transformers_extractor(str(tmp_path / "nothing"), "cpu")
    damaged = save_tiny_vit(tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"1")
    with pytest.raises(UserError, match="damaged: cannot be loaded"):
        transformers_extractor(str(damaged), "cpu")


def pictures(n: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 40, 60, 3), np.uint8)


def save_dinov2(folder: Path) -> Path:
    torch.manual_seed(0)
    Dinov2Model(Dinov2Config(**TINY)).save_pretrained(folder)
    processor = {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 36},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def test_dinov2_is_its_cls_token_of_its_own_preprocessing(tmp_path: Path) -> None:
    folder = save_dinov2(tmp_path / "dino")
    extractor = transformers_extractor(str(folder), "cpu")
    assert (extractor.name, extractor.kernel_name) == ("fd_dinov2", "kd_dinov2")
    assert "CLS token" in extractor.about
    assert "shortest side 36, bicubic, centre 32x32" in extractor.about
    model = Dinov2Model.from_pretrained(folder).eval()
    values = AutoImageProcessor.from_pretrained(folder)(list(pictures()), return_tensors="pt")
    with torch.inference_mode():
        expected = model(**values).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(extractor.extract(pictures()), expected, atol=1e-5)


def test_images_of_several_sizes_are_one_batch(tmp_path: Path) -> None:
    extractor = transformers_extractor(str(save_dinov2(tmp_path / "dino")), "cpu")
    small, large = pictures(1)[0], np.ascontiguousarray(pictures(2)[1, :30].repeat(2, 1))
    both = extractor.extract([small, large])
    np.testing.assert_allclose(both[1], extractor.extract([large])[0], atol=1e-5)


def test_a_pooler_without_weights_is_not_used(tmp_path: Path) -> None:
    """A classifier's file has no pooler: Transformers makes a random one, another in each run."""
    config = ViTConfig(**TINY, intermediate_size=16)
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    first, second = (transformers_extractor(str(tmp_path / "vit"), "cpu") for _ in range(2))
    assert "CLS token" in first.about
    np.testing.assert_array_equal(first.extract(pictures()), second.extract(pictures()))
    ViTModel(config).save_pretrained(tmp_path / "pooled")
    assert "pooler_output" in transformers_extractor(str(tmp_path / "pooled"), "cpu").about


def test_an_incomplete_model_and_one_of_text_are_refused(tmp_path: Path) -> None:
    model = ViTModel(ViTConfig(**TINY, intermediate_size=16))
    state = {k: v for k, v in model.state_dict().items() if "layernorm_before" not in k}
    model.save_pretrained(tmp_path / "part", state_dict=state)
    with pytest.raises(UserError, match=r"--features .*lacks 2 of the network's weights"):
        transformers_extractor(str(tmp_path / "part"), "cpu")
    small = {k: TINY[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    BertModel(BertConfig(**small, intermediate_size=16, vocab_size=40)).save_pretrained(
        tmp_path / "bert"
    )
    with pytest.raises(UserError, match="bert does not take images") as error:
        transformers_extractor(str(tmp_path / "bert"), "cpu")
    assert "\n" not in str(error.value)


def save_clip(folder: Path, whole: bool) -> Path:
    torch.manual_seed(0)
    vision: dict[str, Any] = {**TINY, "intermediate_size": 16}
    if whole:
        text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        text |= {"intermediate_size": 16, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        CLIPModel(config).save_pretrained(folder)
    else:
        config = CLIPVisionConfig(**vision, projection_dim=8)
        CLIPVisionModelWithProjection(config).save_pretrained(folder)
    processor = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}}
    processor |= {"crop_size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3}
    processor |= {"image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.mark.parametrize("whole", [True, False])
def test_cmmd_compares_clip_embeddings_of_unit_length(tmp_path: Path, whole: bool) -> None:
    folder = save_clip(tmp_path / "clip", whole)
    extractor = clip_extractor(str(folder), "cpu")
    features = extractor.extract(pictures())
    assert extractor.name == "cmmd"
    assert features.shape == (3, 8)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
    if whole:
        assert transformers_extractor(str(folder), "cpu").extract(pictures()).shape == (3, 8)


def test_cmmd_takes_clip_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--cmmd .*is vit, not CLIP"):
        clip_extractor(str(save_tiny_vit(tmp_path / "vit")), "cpu")
    with pytest.raises(UserError, match=r"--cmmd .*cannot be loaded"):
        clip_extractor(str(tmp_path / "nothing"), "cpu")


def test_images_with_bad_features_are_named() -> None:
    values = np.array([[1.0], [np.nan], [np.inf]], np.float32)
    extractor = FeatureExtractor("fid", "", lambda _: values)
    with pytest.raises(UserError, match="the features of b, c are NaN or infinite"):
        extractor.extract_finite(pictures(), ["a", "b", "c"])
    assert kernel_name("fd_inception_12345678") == "kd_inception_12345678"
    assert (kernel_name("fid"), kernel_name("fid_clean")) == ("kid", "kid_clean")
    assert kernel_name("fd_dinov2") == "kd_dinov2"


def test_a_real_backbone_distinguishes_streets_from_noise(shared: Path) -> None:
    import cv2

    from semsynth.evaluation.metrics.frechet import FeatureStatistics, frechet_distance

    folder, photos = shared / "weights" / "mobilenet_v2", shared / "camvid" / "val" / "images"
    if not folder.exists() or not photos.exists():
        pytest.skip("needs MobileNetV2 and CamVid in ../shared")
    extractor = transformers_extractor(str(folder), "cpu")
    assert extractor.name == "fd_mobilenet_v2"
    paths = sorted(photos.iterdir())[:12]
    streets = np.stack([cv2.resize(cv2.imread(str(p))[..., ::-1], (128, 96)) for p in paths])
    noise = np.random.default_rng(0).integers(0, 256, streets.shape, np.uint8)
    sets = [extractor.extract(x) for x in (streets[::2], streets[1::2], noise)]
    assert sets[0].shape == (6, 1280)
    half, other, far = map(FeatureStatistics.of, sets)
    assert frechet_distance(half, other) < frechet_distance(half, far) / 2
