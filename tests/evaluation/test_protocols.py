"""Protocols by name: values with sources, resizes with known answers, flags that contradict."""

from typing import get_args

import numpy as np
import pytest
from PIL import Image
from skimage.transform import resize

from semsynth.core.errors import UserError
from semsynth.evaluation.protocols import (
    NAMES,
    Protocol,
    choose_protocol,
    load_protocol,
    skimage_resize,
)


@pytest.mark.parametrize("name", NAMES)
def test_every_value_has_a_source_and_the_sentence_says_it(name: str) -> None:
    protocol = load_protocol(name)
    values = set(Protocol.model_fields) - {"name", "sources"}
    assert set(protocol.sources) == values
    assert all(source.strip() for source in protocol.sources.values())
    sentence = protocol.sentence
    assert f"Protocol {name}" in sentence and protocol.averaging in sentence
    assert all(reason in sentence for reason in protocol.not_reproduced)
    assert protocol.to_json()["sentence"] == sentence


def test_the_table_of_protocols() -> None:
    sdm, oasis, spade, clean, own = (load_protocol(name) for name in NAMES)
    assert (sdm.distance_size, sdm.distance_filter, sdm.distance_batch) == (
        (256, 256),
        "skimage",
        50,
    )
    assert (sdm.lpips_network, sdm.lpips_samples, sdm.lpips_batch) == ("alex", 10, 50)
    assert "10 samples of a mask, 45 pairs" in sdm.sentence
    assert (oasis.covariance, oasis.real_filter, oasis.lpips_network) == (
        "float32",
        "bicubic",
        None,
    )
    assert oasis.images_size == ((256, 256), (256, 512))
    assert "never released" in spade.sentence and "1024x2048" in spade.sentence
    assert [each.resize for each in (sdm, oasis, spade, clean, own)] == [
        *["pytorch"] * 3,
        "clean",
        "pytorch",
    ]
    assert load_protocol() == own and own.evaluator_input((64, 96)) is None
    assert sdm.evaluator_input((128, 256)) == (256, 512)
    assert oasis.evaluator_input((256, 512)) == (256, 512)


def test_sdm_sees_every_image_at_256_by_256_in_float() -> None:
    # A linear ramp stays one, smoothed or not: each pixel is the mean of the two under it.
    ramp = np.linspace(0, 255, 512, dtype=np.float32)[None, :, None].repeat(256, 0).repeat(3, 2)
    seen = skimage_resize(ramp, (256, 256))
    assert seen.shape == (256, 256, 3) and seen.dtype == np.float32
    pairs = ramp.reshape(256, 256, 2, 3).mean(2)
    assert np.abs(seen - pairs)[:, 4:-4].max() < 1e-3
    # Quantised values would be whole numbers.
    image = np.random.default_rng(0).integers(0, 256, (128, 320, 3), np.uint8)
    seen = load_protocol("sdm").distance_image(image)
    assert (seen != seen.round()).mean() > 0.9 and seen.min() >= 0 and 100 < seen.max() <= 255
    assert np.abs(seen - resize(image.astype(float), (256, 256, 3))).max() < 1e-3
    # Smoothed: of stripes of one pixel a Gaussian of 3/2 pixels leaves next to nothing.
    stripes = np.tile(np.array([0, 255], np.uint8), (4, 64))[:, :, None].repeat(3, 2)
    assert np.abs(skimage_resize(stripes, (4, 32))[:, 4:-4] - 127.5).max() < 1
    same = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    assert np.array_equal(skimage_resize(same, (256, 256)), same.astype(np.float32))


def test_oasis_resizes_real_images_by_pillows_bicubic_filter_and_masks_to_the_nearest() -> None:
    oasis, rng = load_protocol("oasis"), np.random.default_rng(0)
    image = rng.integers(0, 256, (512, 1024, 3), np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((512, 256), Image.Resampling.BICUBIC))
    assert np.array_equal(oasis.real_image(image, (256, 512)), expected)
    ids = np.kron(rng.integers(0, 4000, (8, 16)), np.ones((2, 2), int)).astype(np.uint16)
    small = oasis.mask(ids, (8, 16))
    assert small.dtype == np.uint16 and np.array_equal(small, ids[::2, ::2])
    assert oasis.distance_image(image) is image


def test_lpips_of_sdm_is_seen_as_its_loader_shows_it() -> None:
    grey = np.full((64, 128, 3), 128, np.uint8)
    seen = load_protocol("sdm").lpips_image(grey)
    assert seen.shape == (299, 299, 3)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    assert np.allclose(2 * seen - 1, (128 / 255 - mean) / std, atol=1e-5)
    assert load_protocol().lpips_image(grey).shape == (256, 256, 3)
    assert np.allclose(load_protocol().lpips_image(grey), 128 / 255)


def test_lpips_of_sdm_weighs_batches_of_50_masks_alike() -> None:
    distances = [np.full(45, 0.1)] * 50 + [np.full(45, 0.5)] * 10
    assert load_protocol("sdm").lpips_mean(distances) == pytest.approx(0.3)
    assert load_protocol().lpips_mean(distances) == pytest.approx(10 / 60)


def test_which_images_enter_the_distances() -> None:
    by_mask = {f"m{i:03}": [f"m{i:03}__{k}" for k in range(3)] for i in range(120)}
    assert load_protocol("sdm").distance_stems(by_mask) == [f"m{i:03}__0" for i in range(100)]
    assert len(load_protocol("oasis").distance_stems(by_mask)) == 120
    assert len(load_protocol().distance_stems(by_mask)) == 360
    assert load_protocol("sdm").whole_batches(49) == 49


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("sdm", {"resize": "clean"}),
        ("clean", {"resize": "pytorch"}),
        ("semsynth", {"resize": "tensorflow"}),
        ("oasis", {"max": 100}),
        ("oasis", {"lpips_network": "vgg"}),
        ("sdm", {"evaluator_size": (128, 128)}),
    ],
)
def test_a_flag_that_contradicts_the_protocol_is_refused(name: str, flags: dict) -> None:
    with pytest.raises(UserError, match=f"protocol {name} has") as error:
        choose_protocol(name, flags)
    assert "\n" not in str(error.value)


def test_flags_that_agree_or_that_a_protocol_leaves_open() -> None:
    assert choose_protocol("clean", {"resize": "clean", "max": 10}) == load_protocol("clean")
    assert choose_protocol("sdm", {"resize": None, "max": None}) == load_protocol("sdm")
    spade = choose_protocol("spade", {"evaluator_size": (1024, 2048)})
    assert "the evaluator sees images at 1024x2048" in spade.sentence
    default = choose_protocol(None, {"resize": "tensorflow"})
    assert default.resize == "tensorflow" and default.name == "semsynth"
    assert "fid_tensorflow" in default.sentence and default.sources["resize"] == "--resize"
    with pytest.raises(UserError, match="is unknown; choose among"):
        choose_protocol("pix2pix", {})


def test_sizes_that_a_protocol_does_not_have_are_refused() -> None:
    with pytest.raises(UserError, match="images are 96x128, protocol oasis needs 256x256 or 256x5"):
        load_protocol("oasis").check_size((96, 128), "samples")
    load_protocol("oasis").check_size((256, 512), "samples")
    load_protocol().check_size((96, 128), "samples")


def test_names_are_the_files() -> None:
    from semsynth.evaluation import protocols

    assert set(protocols._read()) == set(NAMES)
    assert get_args(protocols.Averaging) == ("miou", "miou_of_masks", "miou_all")
