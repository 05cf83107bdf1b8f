"""Data whose labels are not the model's: what matches, what is asked for, what images are of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import Label, LabelSet
from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.pipelines.generate.run import generate

Fake = Callable[..., Any]
# The model's: 0 void (ignored), 1 road, 2 sky, 7 car.
OTHER_IDS = LabelSet.from_names({0: "Car", 3: "the_road", 5: " SKY", 9: "Void"}, ignore_id=9)


@pytest.fixture
def run(tmp_path: Path, write_toy: Fake) -> Callable[..., GenerateConfig]:
    """Writes data with these labels (four, in the order of ids) and returns the command."""

    def make(labels: LabelSet, label_map: str = "", **flags: Any) -> GenerateConfig:
        data = tmp_path / "prepared"
        if not data.exists():
            write_toy(data, labels=labels)
        path = None
        if label_map:
            path = tmp_path / "map.yaml"
            path.write_text(label_map)
        output = flags.pop("output", tmp_path / "samples")
        return GenerateConfig(data=data, output=output, per_mask=1, label_map=path, **flags)

    return make


class Recorder:
    """Keeps the masks that a generator is given."""

    def __init__(self, generator: Any) -> None:
        self.inner, self.masks = generator, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def generate(self, mask_BHW: Any, *rest: Any) -> Any:
        self.masks += list(mask_BHW)
        return self.inner.generate(mask_BHW, *rest)


def test_names_decide_not_ids(
    run: Callable[..., GenerateConfig], fake: Fake, logged: Callable[[], str]
) -> None:
    labels = LabelSet.from_names({0: "Car", 3: "ROAD", 5: "s-k y", 9: "Void"}, ignore_id=9)
    config, generator = run(labels), Recorder(fake())
    generate(config, generator)
    table = logged()
    for line in ("Car   ->  car", "ROAD  ->  road", "s-k y  ->  sky", "Void  ->  (unlabelled)"):
        assert " ".join(line.split()) in " ".join(table.split())
    data, samples = PreparedDataset.open(config.data), PreparedDataset.open(config.output)
    mask = data.read_mask("val", "street_0")
    to_model = {0: 7, 3: 1, 5: 2, 9: 0}
    assert np.array_equal(generator.masks[0], np.vectorize(to_model.get)(mask))
    # Samples have the labels of the data, so that they can be trained on together.
    assert samples.labels == data.labels
    assert np.array_equal(samples.read_mask("val", "street_0__000"), mask)
    line = json.loads((config.output / "manifest.jsonl").read_text().splitlines()[0])
    assert line["labels"] == {"Car": "car", "ROAD": "road", "s-k y": "sky", "Void": None}
    assert generate(config, generator)["n_new"] == 0


def test_the_models_own_labels_are_read_as_they_are(
    run: Callable[..., GenerateConfig], fake: Fake, logged: Callable[[], str]
) -> None:
    generator = Recorder(fake())
    config = run(fake().labels)
    generate(config, generator)
    assert "matched" not in logged()
    assert generator.masks[0].dtype == np.uint8
    assert "labels" not in json.loads((config.output / "manifest.jsonl").read_text().split("\n")[0])


def test_labels_that_only_the_model_has_are_not_in_the_way(
    run: Callable[..., GenerateConfig], fake: Fake, logged: Callable[[], str]
) -> None:
    """As an id for unlabelled pixels, in data that have none: their masks are read as they are."""
    names = {0: "void", 1: "road", 2: "sky", 7: "car"}
    ours = LabelSet.from_names(names)
    config = run(ours)
    generate(config, fake(labels=LabelSet.from_names({**names, 255: "unlabelled"}, 255)))
    assert "matched" not in logged()
    assert "labels" not in json.loads((config.output / "manifest.jsonl").read_text().split("\n")[0])


def test_a_label_without_a_match_is_asked_for_in_one_line(
    run: Callable[..., GenerateConfig], fake: Fake, logged: Callable[[], str]
) -> None:
    config = run(OTHER_IDS)
    with pytest.raises(UserError) as raised:
        generate(config, fake(stop_after=0))
    message = str(raised.value)
    assert "no match for 'the_road'" in message and "the model has road, sky, car" in message
    assert "--label-map FILE" in message and "\n" not in message
    assert "the_road  ->  (no match)" in logged()
    assert not config.output.exists()


def test_a_map_gives_the_rest(run: Callable[..., GenerateConfig], fake: Fake) -> None:
    generator = Recorder(fake())
    config = run(OTHER_IDS, "the_road: Road\n")
    generate(config, generator)
    mask = PreparedDataset.open(config.data).read_mask("val", "street_0")
    assert np.array_equal(generator.masks[0] == 1, mask == 3)
    # Another map gives other images: they do not mix.
    with pytest.raises(UserError, match="label_map"):
        generate(run(OTHER_IDS, "the_road: car\n"), fake())


def test_nothing_after_the_colon_is_unlabelled_in_model_and_samples(
    run: Callable[..., GenerateConfig], fake: Fake
) -> None:
    generator = Recorder(fake())
    config = run(OTHER_IDS, "The Road:\n")
    generate(config, generator)
    mask = PreparedDataset.open(config.data).read_mask("val", "street_0")
    assert (generator.masks[0][mask == 3] == 0).all()  # the model's ignored id
    written = PreparedDataset.open(config.output).read_mask("val", "street_0__000")
    assert np.array_equal(written, np.where(mask == 3, 9, mask))


def test_labels_that_no_mask_has_need_no_match(
    run: Callable[..., GenerateConfig], fake: Fake
) -> None:
    names = {0: "void", 1: "road", 2: "sky", 7: "car", 8: "tram"}
    config = run(LabelSet.from_names(names, ignore_id=0))
    generate(config, fake())
    assert PreparedDataset.open(config.output).labels.names[8] == "tram"


def test_unlabelled_pixels_need_an_id_in_both(
    run: Callable[..., GenerateConfig], fake: Fake, tmp_path: Path
) -> None:
    whole = LabelSet.from_names({0: "void", 1: "road", 2: "sky", 7: "car"})
    without = LabelSet.from_names({1: "road", 2: "sky", 3: "car"})
    with pytest.raises(UserError, match="'void' would be unlabelled, and the model has no label"):
        generate(run(fake().labels), fake(labels=without))
    generator = Recorder(fake(labels=without))
    generate(run(fake().labels, "void: sky\n", output=tmp_path / "sky"), generator)
    assert set(np.unique(generator.masks)) == {1, 2, 3}
    # A model with a class of that name generates it.
    generate(run(fake().labels, output=tmp_path / "all"), fake(labels=whole))
    (tmp_path / "prepared").rename(tmp_path / "before")
    with pytest.raises(UserError, match="'void' would be unlabelled in the samples"):
        generate(run(whole, "void:\n"), fake())


def test_classes_that_differ_in_their_channel_alone(
    run: Callable[..., GenerateConfig], fake: Fake
) -> None:
    """The order of channels is the network's: ids of the data go to ids of the same name."""
    theirs = (
        Label(0, "void", (0, 0, 0), None), Label(1, "road", (1, 1, 1), 2),
        Label(2, "sky", (2, 2, 2), 1), Label(7, "car", (3, 3, 3), 0),
    )  # fmt: skip
    generator = Recorder(fake(labels=LabelSet(theirs, ignore_id=0)))
    config = run(fake().labels)
    generate(config, generator)
    mask = PreparedDataset.open(config.data).read_mask("val", "street_0")
    assert np.array_equal(generator.masks[0], mask)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the_road: [road, sky]\n", "'the_road' has several labels"),
        ("the_road: raod\n", "'raod' is not a label of the model; did you mean 'road'"),
        ("teh_road: road\n", "'teh_road' is not a label of the data; did you mean 'the_road'"),
        ("the_road: 3\n", "must be a name"),
    ],
)
def test_wrong_maps(
    text: str, message: str, run: Callable[..., GenerateConfig], fake: Fake
) -> None:
    with pytest.raises(UserError, match=message):
        generate(run(OTHER_IDS, text), fake(stop_after=0))


def test_the_flag_is_for_data() -> None:
    with pytest.raises(UserError, match="--label-map is for --data"):
        GenerateConfig(masks=Path("masks"), label_map=Path("map.yaml"))
