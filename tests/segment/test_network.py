from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semsynth.data.labels import LabelSet
from semsynth.runtime.errors import UserError
from semsynth.segment.hub import HubNet, segformer_config
from semsynth.segment.network import Segmenter, SegmenterInfo, pick_device, unet_arch
from semsynth.segment.unet import UNet, level_widths

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


def test_unet_gets_levels_until_it_sees_the_whole_picture() -> None:
    assert len(level_widths(32, 64, 64)) == 4
    assert len(level_widths(32, 1024, 1024)) == 7


def test_hub_network_answers_at_full_size_and_is_rebuilt_from_its_configuration() -> None:
    config = segformer_config("segformer-tiny", 3)
    network = HubNet.from_config(config).eval()
    logits, features = network(torch.rand(1, 3, 32, 48))
    assert logits.shape == (1, 3, 32, 48)
    assert features.shape == (1, 96)
    again = HubNet.from_config(network.config_dict()).eval()
    again.load_state_dict(network.state_dict())
    x = torch.rand(1, 3, 32, 48)
    torch.testing.assert_close(again(x)[0], network(x)[0])


def test_hub_model_that_cannot_be_had_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="init_from"):
        HubNet.from_pretrained(str(tmp_path / "nothing"), 3)


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


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
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
    for part in (whole[: len(whole) // 2], b"", b"not a checkpoint"):
        path.write_bytes(part)
        with pytest.raises(UserError, match=r"segmenter\.pth: is no segmenter"):
            Segmenter.load(path)
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="is no segmenter"):
        Segmenter.load(path)


def test_weights_of_another_shape_are_a_user_error(tmp_path: Path) -> None:
    path = make_segmenter().save(tmp_path / "segmenter.pth")
    content = torch.load(path, weights_only=True)
    content["arch"]["widths"][0] += 8
    torch.save(content, path)
    with pytest.raises(UserError, match="do not fit"):
        Segmenter.load(path)


def test_unknown_device_is_a_user_error() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="device abacus"):
        pick_device("abacus")
