from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.evaluation.evaluators import check_unseen, open_evaluators
from semsynth.segmentation.config import SegmentTrainConfig
from semsynth.segmentation.metrics import OTHER
from semsynth.segmentation.seen import KEY, SeenImages, pixel_digest
from semsynth.segmentation.segmenter import Segmenter
from semsynth.segmentation.train import train_segmenter

LABELS = LabelSet.from_names({0: "void", 1: "road", 2: "sky", 7: "car"}, ignore_id=0)


class Split:
    """The images of a split, as an evaluator is asked about them."""

    def __init__(self, data: PreparedDataset, split: str) -> None:
        self.data, self.split, self.stems = data, split, data.stems(split)

    def read_rgb(self, stem: str) -> np.ndarray:
        return self.data.read_rgb(self.split, stem)

    def content_box(self, stem: str) -> tuple[int, int, int, int]:
        return self.data.content_box(self.split, stem)


def save_segformer(folder: Path, names: list[str], processor: bool = True) -> Path:
    """Write a tiny SegFormer; with its preprocessing, which resizes to 32x64."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation
    from transformers import SegformerImageProcessor as Processor

    torch.manual_seed(0)
    config = SegformerConfig(
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
    )
    SegformerForSemanticSegmentation(config).eval().save_pretrained(folder)
    if processor:
        Processor(size={"height": 32, "width": 64}).save_pretrained(folder)
    return folder


def images(n: int = 3, size: tuple[int, int] = (24, 40)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *size, 3), np.uint8)


def open_one(source: Path | str, labels: LabelSet = LABELS, label_map: str | None = None):
    return open_evaluators([source], labels, label_map, "cpu")[0]


def test_our_segmenter_is_an_evaluator_with_the_same_predictions(
    segmenter: Path, data: PreparedDataset
) -> None:
    evaluator = open_one(segmenter)
    rgb = np.stack([data.read_rgb("val", stem) for stem in data.stems("val")])
    ids, features = evaluator.analyse(rgb)
    expected, expected_features = Segmenter.load(segmenter, "cpu").analyse(rgb)
    assert (ids == expected).all()
    assert features is not None
    assert (features == expected_features).all()
    assert evaluator.ids == [1, 2, 7]
    assert evaluator.left_out == []
    assert evaluator.about["trained_on"]["n_train"] == 12
    assert str(segmenter.parent.parent) not in str(evaluator.about)


def test_images_of_another_size_are_seen_at_the_evaluators_own(
    segmenter: Path, data: PreparedDataset
) -> None:
    evaluator = open_one(segmenter)
    rgb = data.read_rgb("val", data.stems("val")[0])[None]
    mask = data.read_mask("val", data.stems("val")[0])
    large = np.repeat(np.repeat(rgb, 4, 1), 4, 2)
    ids = evaluator.predict(large, (48, 64))
    assert ids.shape == (1, 48, 64)
    agree = ids[0, ::2, ::2] == mask
    assert agree[mask != 0].mean() > 0.85


def test_a_segmenter_of_other_labels_is_matched_by_name(segmenter: Path, caplog) -> None:
    other = LabelSet.from_names({0: "car", 1: "lawn", 2: "road"})
    evaluator = open_one(segmenter, other)
    assert evaluator.ids == [0, 2]
    assert evaluator.left_out == ["lawn"]
    assert "left out of all scores: lawn" in caplog.text
    assert "its classes sky do not occur in the data" in caplog.text
    assert set(np.unique(evaluator.predict(images(2, (24, 32))))) <= {0, 2, OTHER}
    assert evaluator.about["without_counterpart"] == ["sky"]


def test_logits_of_transformers_models_are_resized_before_the_largest_is_taken(
    tmp_path: Path,
) -> None:
    from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

    folder = save_segformer(tmp_path / "hub", ["sky", "road", "tree"])
    evaluator = open_one(folder)
    rgb = images()
    ids, features = evaluator.analyse(rgb, (24, 40))
    assert features is None
    inputs = AutoImageProcessor.from_pretrained(folder)(list(rgb), return_tensors="pt")
    assert inputs["pixel_values"].shape[-2:] == (32, 64)
    model = AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(**inputs).logits
    scaled = torch.nn.functional.interpolate(logits, size=(24, 40), mode="bilinear")
    expected = np.array([2, 1, OTHER])[scaled.argmax(1).numpy()]
    assert (ids == expected).all()
    assert evaluator.name == "hub"
    assert evaluator.about["kind"] == "segformer"
    assert evaluator.about["input_size"] == {"height": 32, "width": 64}
    assert len(evaluator.sha256) == 32


def test_without_preprocessing_images_keep_their_size_and_it_is_said(
    tmp_path: Path, caplog
) -> None:
    evaluator = open_one(save_segformer(tmp_path / "bare", ["sky", "road"], processor=False))
    assert "no preprocessor_config.json" in caplog.text
    assert evaluator.predict(images(2, (64, 96))).shape == (2, 64, 96)
    assert evaluator.about["input_size"] is None


def test_a_crop_of_the_middle_is_not_taken_for_the_image(tmp_path: Path) -> None:
    """A MobileNetV2's processor crops to a square: predictions would be those of another part."""
    from transformers import MobileNetV2ImageProcessor as Processor

    folder = save_segformer(tmp_path / "hub", ["sky", "road"], processor=False)
    Processor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_center_crop=True
    ).save_pretrained(folder)
    evaluator = open_one(folder)
    rgb = images(1, (32, 96))
    left = rgb.copy()
    left[:, :, :20] = 0
    assert (evaluator.predict(rgb) != evaluator.predict(left)).any() or (
        evaluator.network._inputs(rgb)[0].shape[-1] == 96  # type: ignore[attr-defined]
    )
    assert evaluator.network._inputs(rgb)[0].shape[-1] == 96  # type: ignore[attr-defined]


def test_a_mask2former_is_an_evaluator_too(tmp_path: Path) -> None:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    torch.manual_seed(0)
    backbone = SwinConfig(
        image_size=32, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=backbone, num_labels=2, id2label={0: "road", 1: "sky"}, hidden_dim=32,
        feature_size=32, mask_feature_size=32, encoder_feedforward_dim=16, dim_feedforward=16,
        encoder_layers=1, decoder_layers=1, num_attention_heads=2, num_queries=5,
    )  # fmt: skip
    Mask2FormerForUniversalSegmentation(config).save_pretrained(tmp_path / "m2f")
    evaluator = open_one(tmp_path / "m2f")
    assert set(np.unique(evaluator.predict(images(1, (64, 64))))) <= {1, 2}


def test_models_without_a_trained_head_are_refused(tmp_path: Path) -> None:
    from transformers import SegformerConfig, SegformerForImageClassification

    small = SegformerConfig(
        hidden_sizes=[8] * 4, depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8
    )
    SegformerForImageClassification(small).save_pretrained(tmp_path / "backbone")
    with pytest.raises(UserError, match="was not trained to segment"):
        open_one(tmp_path / "backbone")


def test_what_is_no_evaluator_is_refused_in_one_line(tmp_path: Path, segmenter: Path) -> None:
    folder = save_segformer(tmp_path / "hub", ["river", "lake"])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    for source, words in (
        (folder, "has no class of the data .*river, lake.*give --label-map"),
        (tmp_path / "nothing", "is neither segmenter.pth"),
        (tmp_path / "broken", "cannot be loaded"),
        ("nobody/nothing-of-this-name", "cannot be loaded"),
    ):
        with pytest.raises(UserError, match=words) as error:
            open_one(source)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="one evaluator, or two"):
        open_evaluators([segmenter] * 3, LABELS, None, "cpu")


def test_one_map_serves_two_evaluators(tmp_path: Path, segmenter: Path) -> None:
    folder = save_segformer(tmp_path / "hub", ["street", "heaven", "car"])
    text = tmp_path / "map.yaml"
    text.write_text("street: road\nheaven: sky\n")
    first, second = open_evaluators([segmenter, folder], LABELS, str(text), "cpu")
    assert first.ids == second.ids == [1, 2, 7]
    assert second.match.pairs == {"street": "road", "heaven": "sky", "car": "car"}


def test_a_segmenter_keeps_what_it_was_trained_on(segmenter: Path, data: PreparedDataset) -> None:
    provenance = Segmenter.load(segmenter, "cpu").info.provenance
    seen = SeenImages.from_json(provenance)
    assert seen is not None
    train = Split(data, "train")
    digests = {pixel_digest(train.read_rgb(s), train.content_box(s)) for s in train.stems}
    assert seen.real == digests
    assert not seen.generated
    assert len(provenance[KEY]["real"]) == 4 * 12 * 8 / 3  # base64 of 8 bytes an image
    assert KEY not in (segmenter.parent / "segmenter.json").read_text()


def test_an_evaluator_that_has_seen_the_images_is_refused_or_said(
    segmenter: Path, data: PreparedDataset, make_samples: Callable[..., PreparedDataset], caplog
) -> None:
    evaluator = open_one(segmenter)
    samples = Split(make_samples(), "val")
    fine = check_unseen(evaluator, Split(data, "val"), samples, False)
    assert fine["training_images_known"]
    assert fine["seen"] is None
    train = Split(data, "train")
    with pytest.raises(UserError, match=r"trained on 12 of 12 real .*--allow-seen"):
        check_unseen(evaluator, train, samples, False)
    assert check_unseen(evaluator, train, samples, True)["seen"] == {"real": 12, "generated": 0}
    assert "was trained on 12 of 12 real" in caplog.text


def test_copies_of_training_images_are_the_generators_and_are_not_refused(
    segmenter: Path, data: PreparedDataset, caplog
) -> None:
    found = check_unseen(open_one(segmenter), Split(data, "val"), Split(data, "train"), False)
    assert found["seen"] is None
    assert found["copies_of_its_training_images"] == 12
    assert "copies of real images" in caplog.text


def test_an_evaluator_that_was_trained_on_the_generated_images_is_refused(
    data: PreparedDataset, make_samples: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    samples = make_samples()
    config = SegmentTrainConfig(
        data=data.root, extra=samples.root, extra_split="val", output=tmp_path / "out", width=8,
        steps=1, batch_size=2, device="cpu",
    )  # fmt: skip
    evaluator = open_one(train_segmenter(config))
    generated = Split(samples, "val")
    with pytest.raises(UserError, match=r"0 of 6 real and 12 of 12 generated"):
        check_unseen(evaluator, Split(data, "val"), generated, False)


def test_an_older_segmenter_does_not_say(
    segmenter: Path, data: PreparedDataset, tmp_path: Path, caplog
) -> None:
    older = Segmenter.load(segmenter, "cpu")
    del older.info.provenance[KEY]
    older.save(tmp_path / "older.pth")
    evaluator = open_one(tmp_path / "older.pth")
    with caplog.at_level("INFO"):
        found = check_unseen(evaluator, Split(data, "train"), Split(data, "val"), False)
    assert found == {"training_images_known": False, "seen": None}
    assert "does not say" in caplog.text


def test_digests_are_of_the_content_alone() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (10, 12, 3), np.uint8)
    padded = np.zeros((20, 20, 3), np.uint8)
    padded[4:14, 3:15] = image
    assert pixel_digest(image, (0, 0, 10, 12)) == pixel_digest(padded, (4, 3, 10, 12))
    assert pixel_digest(image, (0, 0, 10, 12)) != pixel_digest(image[:, ::-1], (0, 0, 10, 12))


def test_the_same_photographs_at_another_size_are_known_by_their_files(tmp_path: Path) -> None:
    import cv2

    from semsynth.data.config import PrepareConfig
    from semsynth.data.prepare.run import prepare
    from semsynth.evaluation.inputs.image_set import PreparedImages

    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "raw" / kind).mkdir(parents=True)
    for i in range(8):
        image = rng.integers(0, 256, (32, 48, 3), np.uint8)
        mask = np.kron(rng.integers(0, 2, (4, 6)), np.ones((8, 8), int)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "raw" / "images" / f"a{i}.png"), image)
        cv2.imwrite(str(tmp_path / "raw" / "masks" / f"a{i}.png"), mask)
    (tmp_path / "raw" / "labels.yaml").write_text("labels: {0: road, 1: sky}\n")
    sizes = {}
    for height, width in ((32, 48), (16, 24)):
        sizes[height] = prepare(
            PrepareConfig(
                source="folder", data=tmp_path / "raw", output=tmp_path / str(height),
                height=height, width=width,
            )
        )  # fmt: skip
    config = SegmentTrainConfig(
        data=sizes[32].root, split="val", output=tmp_path / "out", width=8, steps=1, batch_size=2,
        device="cpu",
    )  # fmt: skip
    evaluator = open_evaluators([train_segmenter(config)], sizes[32].labels, None, "cpu")[0]
    small = PreparedImages.open(sizes[16].root, "val")
    with pytest.raises(
        UserError, match=f"trained on {len(small.stems)} of {len(small.stems)} real"
    ):
        check_unseen(evaluator, small, PreparedImages.open(sizes[16].root, "train"), False)
    other = PreparedImages.open(sizes[16].root, "train")
    assert check_unseen(evaluator, other, small, False)["seen"] is None
