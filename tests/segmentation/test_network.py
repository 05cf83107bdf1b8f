from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semsynth.cli import main
from semsynth.core.devices import pick_device
from semsynth.core.errors import UserError
from semsynth.data.labels import LabelSet
from semsynth.segmentation import hub_models as hub
from semsynth.segmentation.config import SegmentTrainConfig
from semsynth.segmentation.encoder_unet import lite2_arch, lite2_unet
from semsynth.segmentation.segmenter import Segmenter, SegmenterInfo, unet_arch
from semsynth.segmentation.small_unet import UNet, level_widths

LABELS = LabelSet.from_names({0: "void", 1: "road", 2: "sky", 300: "car"}, ignore_id=0)


def make_segmenter() -> Segmenter:
    torch.manual_seed(0)
    arch = unet_arch(8, 24, 40)
    return Segmenter(SegmenterInfo(arch, LABELS, 24, 40, "CC0-1.0", {"n_train": 3})).eval()


@pytest.mark.parametrize("size", [(64, 64), (25, 39), (96, 128)])
def test_unet_keeps_any_size(size: tuple[int, int]) -> None:
    logits, features = UNet(5, level_widths(8, *size))(torch.rand(2, 3, *size))
    assert logits.shape == (2, 5, *size)
    assert features.shape == (2, 8 + 24)


def test_unet_has_levels_until_the_coarsest_sees_the_whole_image() -> None:
    assert len(level_widths(32, 64, 64)) == 4
    assert len(level_widths(32, 1024, 1024)) == 7


def test_segformer_predicts_at_full_size_and_is_rebuilt_from_its_arch() -> None:
    arch = hub.segformer_arch("segformer-tiny", 3)
    networks = [hub.build(arch, 3).eval() for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    x = torch.rand(1, 3, 32, 48)
    (logits, features), (again, _) = (network(x) for network in networks)
    assert logits.shape == (1, 3, 32, 48)
    assert features.shape == (1, 96)
    torch.testing.assert_close(again, logits)


def save_backbone(folder: Path) -> str:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1])
    torch.manual_seed(0)
    ResNetModel(config).half().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    return str(folder)


def test_any_hierarchical_backbone_becomes_a_unet(tmp_path: Path) -> None:
    arch, network = hub.from_pretrained(save_backbone(tmp_path / "resnet"), 3)
    assert (arch["kind"], arch["mean"], arch["std"]) == ("backbone", [0.5] * 3, hub.IMAGENET_STD)
    logits, features = network(torch.rand(2, 3, 40, 72))
    assert logits.shape == (2, 3, 40, 72)
    assert features.shape == (2, 8 + 32)
    assert logits.dtype == torch.float32
    rebuilt = hub.build(arch, 3).eval()
    rebuilt.load_state_dict(network.state_dict())
    x = torch.rand(1, 3, 40, 72)
    torch.testing.assert_close(rebuilt(x)[0], network.eval()(x)[0])


def test_training_does_not_change_the_backbones_statistics(tmp_path: Path) -> None:
    _, network = hub.from_pretrained(save_backbone(tmp_path / "resnet"), 3)
    before = {k: v.clone() for k, v in network.named_buffers()}
    network.train()(torch.rand(2, 3, 64, 64))
    assert before
    assert all(torch.equal(v, before[k]) for k, v in network.named_buffers())


def test_missing_models_and_models_without_feature_maps_are_user_errors(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTModel

    for path in (str(tmp_path / "nothing"), "./nothing", "models/of/nobody"):
        with pytest.raises(UserError, match=r"init_from .*: no such folder; give a model folder"):
            hub.from_pretrained(path, 3)
    damaged = Path(save_backbone(tmp_path / "damaged"))
    for content in (b"", b"1", (damaged / "model.safetensors").read_bytes()[:500]):
        (damaged / "model.safetensors").write_bytes(content)
        with pytest.raises(UserError, match="damaged: cannot be loaded"):
            hub.from_pretrained(str(damaged), 3)
    small = ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        image_size=64,
    )
    ViTModel(small).save_pretrained(tmp_path / "vit")
    with pytest.raises(UserError, match="hierarchical"):
        hub.from_pretrained(str(tmp_path / "vit"), 3)


def test_predictions_are_ids_of_classes_and_never_the_ignored_one() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 24, 40, 3), np.uint8)
    ids = make_segmenter().predict(images)
    assert ids.dtype == np.uint16
    assert ids.shape == (3, 24, 40)
    assert set(np.unique(ids)) <= {1, 2, 300}


def test_features_do_not_depend_on_the_batch() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 24, 40, 3), np.uint8)
    segmenter = make_segmenter()
    together = segmenter.features(images)
    alone = np.concatenate([segmenter.features(image[None]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_saved_segmenter_is_loaded_unchanged(tmp_path: Path) -> None:
    segmenter = make_segmenter()
    path = segmenter.save(tmp_path / "segmenter.pth")
    images = np.random.default_rng(0).integers(0, 256, (2, 24, 40, 3), np.uint8)
    for where in (path, tmp_path):
        loaded = Segmenter.load(where, "cpu")
        assert loaded.labels == LABELS
        assert (loaded.info.licence, loaded.info.provenance) == ("CC0-1.0", {"n_train": 3})
        assert len(loaded.sha256 or "") == 64
        np.testing.assert_array_equal(loaded.predict(images), segmenter.predict(images))


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


def test_a_pickle_with_code_is_refused_and_never_run(tmp_path: Path) -> None:
    path, target = tmp_path / "segmenter.pth", tmp_path / "executed"
    torch.save({"kind": "segmenter", "state": Bomb(target)}, path)
    with pytest.raises(UserError, match="code in it"):
        Segmenter.load(path)
    path.write_bytes(pickle.dumps(Bomb(target)))
    with pytest.raises(UserError, match=r"segmenter\.pth"):
        Segmenter.load(path)
    assert not target.exists()


def test_missing_cut_short_empty_and_foreign_files_are_user_errors(tmp_path: Path) -> None:
    path = tmp_path / "segmenter.pth"
    with pytest.raises(UserError, match="semsynth segment train"):
        Segmenter.load(path)
    whole = make_segmenter().save(path).read_bytes()
    for part in (whole[: len(whole) // 2], b"", b"x", b"not a checkpoint"):
        path.write_bytes(part)
        with pytest.raises(UserError, match=r"segmenter\.pth: .*semsynth segment train"):
            Segmenter.load(path)
    for content in ({"weights": torch.zeros(1)}, [1]):
        torch.save(content, path)
        with pytest.raises(UserError, match="is not a segmenter"):
            Segmenter.load(path)


def test_scoring_with_a_file_of_one_byte_ends_in_one_line(
    make_data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "segmenter.pth"
    path.write_bytes(b"x")
    words = ["segment", "score", f"--segmenter={path}", f"--data={make_data().root}"]
    assert main([*words, "--device=cpu"]) == 2
    assert re.fullmatch(rf"error: {re.escape(str(path))}: [^\n]*\n", capsys.readouterr().err)


def test_weights_of_another_shape_are_a_user_error(tmp_path: Path) -> None:
    path = make_segmenter().save(tmp_path / "segmenter.pth")
    content = torch.load(path, weights_only=True)
    content["arch"]["widths"][0] += 8
    torch.save(content, path)
    with pytest.raises(UserError, match="do not fit"):
        Segmenter.load(path)
    content["arch"] |= {"kind": "backbone", "config": {"model_type": "unheard-of"}}
    torch.save(content, path)
    with pytest.raises(UserError, match="unheard-of"):
        Segmenter.load(path)


def test_unknown_device_is_a_user_error() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="device abacus"):
        pick_device("abacus")


def channels_off(x: torch.Tensor) -> torch.Tensor:
    return x * 0


def networks() -> dict[str, tuple[torch.nn.Module, torch.Tensor]]:
    from transformers import MobileNetV2Config, MobileNetV2Model

    encoder = MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.25)).eval()
    segformer = hub.build(hub.segformer_arch("segformer-tiny", 3), 3)
    return {
        "unet": UNet(3, [8, 8, 8, 8]),
        "backbone": hub.backbone_unet(encoder, 3),
        "lite2": lite2_unet(3, lite2_arch()),
        "enlarged": hub.backbone_unet(encoder, 3, enlarge=2),
        "segformer": segformer.eval(),
    }


@pytest.mark.parametrize("name", ["unet", "backbone", "enlarged", "lite2", "segformer"])
def test_the_decoder_gets_what_is_left_of_the_encoder(name: str) -> None:
    torch.manual_seed(0)
    net = networks()[name].eval()
    one, two = torch.rand(2, 1, 3, 32, 48)
    with torch.no_grad():
        assert torch.equal(net(one)[0], net(one, lambda x: x)[0])
        assert not torch.equal(net(one)[0], net(two)[0])
        # Without any of its features, the decoder cannot tell two images apart.
        assert torch.equal(net(one, channels_off)[0], net(two, channels_off)[0])
        assert not torch.equal(net(one)[0], net(one, channels_off)[0])
        assert torch.equal(net(one)[0], net(one)[0])


def test_an_encoder_of_enlarged_images_has_the_same_strides(features_extra: None) -> None:
    plain, enlarged = (lite2_unet(3, lite2_arch(factor)).eval() for factor in (1, 2))
    assert (list(plain.lateral), list(enlarged.lateral)) == (
        ["4", "8", "16", "32"],
        ["2", "4", "8", "16"],
    )
    with torch.no_grad():
        assert enlarged(torch.rand(1, 3, 30, 44))[0].shape == (1, 3, 30, 44)


def test_a_lite2_of_an_earlier_file_has_its_map_of_stride_2_and_no_norms() -> None:
    earlier = {name: value for name, value in lite2_arch().items() if name in ("mean", "std")}
    net = lite2_unet(3, {"kind": "lite2", **earlier})
    assert "lateral.2.weight" in net.state_dict() and "lateral.4.weight" in net.state_dict()
    assert "lateral.4.1.weight" in lite2_unet(3, lite2_arch()).state_dict()


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        ({"enlarge": 3, "arch": "lite2"}, "enlarge must be 1 or 2"),
        ({"enlarge": 2}, "--enlarge is for pretrained encoders, --arch unet has none"),
    ],
)
def test_enlarge_is_for_encoders(flags: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        SegmentTrainConfig(**flags)
