"""Every recipe that is shipped can be read, and has the network that its comments promise."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from official_figures import FOLDER

from semsynth.core.errors import UserError
from semsynth.data.sources import ade20k
from semsynth.diffusion.schedule import Schedule
from semsynth.models.official.infer import infer_network
from semsynth.pipelines.formats.model_file import build_network
from semsynth.training.init.transfer import check_body
from semsynth.training.recipe import load_recipe, recipe_names

SIDEWALK_CHANNELS = 34  # 35 labels; the unlabelled one has no channel


def parameters(name: str, label_channels: int) -> int:
    recipe = load_recipe(name)
    with torch.device("meta"):
        unet, _ = build_network(recipe.model, recipe.diffusion_config, label_channels)
    return sum(p.numel() for p in unet.parameters())


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_can_be_read_and_is_named_like_its_file(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about
    assert recipe.finetune.mask_dropout == 0.2


def test_the_papers_recipe_has_the_published_network() -> None:
    assert parameters("paper_256", ade20k.LABELS.num_channels) == 660_608_518


HAAR = (
    "height=1024", "width=1024", "model.codec=haar", "model.labels=patch",
    "loss.prediction=sample", "loss.learn_sigma=false", "diffusion.schedule=cosine",
)  # fmt: skip


def test_which_recipes_take_the_authors_network() -> None:
    """As README and docs/results/transfer.md say."""
    keys = json.loads((FOLDER / "published_keys.json").read_text())
    shapes = {name: tuple(shape) for name, shape in keys.items()}
    theirs = infer_network(shapes, "f.pt").model_config(64, False, "f.pt")
    check_body(theirs, load_recipe("paper_256").model, "f.pt")
    check_body(theirs, load_recipe("paper_256", HAAR).model, "f.pt")
    assert load_recipe("paper_256", ("width=448",)).width == 448
    for name in ("camvid_480", "sidewalk_1024", "sidewalk_1024_latent"):
        with pytest.raises(UserError, match="is another network"):
            check_body(theirs, load_recipe(name).model, "f.pt")


def test_the_papers_recipe_has_the_published_objective() -> None:
    recipe = load_recipe("paper_256")
    assert (recipe.loss.prediction, recipe.loss.learn_sigma) == ("epsilon", True)
    betas = Schedule(recipe.diffusion_config).betas
    assert (len(betas), betas[0], betas[-1]) == (1000, 1e-4, 0.02)
    assert recipe.train.ema_warmup is False
    assert recipe.train.weight_decay == 0
    assert (recipe.train.learning_rate, recipe.finetune.learning_rate) == (1e-4, 2e-5)


def test_the_sidewalk_recipe_counts_its_parameters_right(root: Path) -> None:
    text = (root / "recipes" / "sidewalk_1024.yaml").read_text(encoding="utf-8")
    count = re.search(r"([\d,]+) parameters", text)
    assert count is not None
    assert int(count[1].replace(",", "")) == parameters("sidewalk_1024", SIDEWALK_CHANNELS)


def test_the_sidewalk_recipe_is_the_outlines_job() -> None:
    recipe = load_recipe("sidewalk_1024")
    assert (recipe.height, recipe.width, recipe.train.steps) == (1024, 1024, 50_000)
    assert recipe.train.batch_size % 8 == 0  # GPUs
