"""What one step does: rates, phases, noise, masks, padding; what must not change the result."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch._subclasses.fake_tensor import FakeTensorMode

from semsynth.core import devices
from semsynth.core.errors import UserError
from semsynth.data.augment import ImageAugmentation
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.loader import Batch, LoaderConfig, TrainingDataset, batches
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedWriter
from semsynth.diffusion.loss import DiffusionLoss
from semsynth.diffusion.schedule import Schedule
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.formats.model_file import build_network
from semsynth.training import build as setup
from semsynth.training import loop
from semsynth.training import step as step_module
from semsynth.training.loop import train
from semsynth.training.metrics import read_metrics
from semsynth.training.phases import FinetuneSection, TrainSection
from semsynth.training.recipe import Recipe, TrainConfig, latent_size, load_recipe
from semsynth.training.state import Ema, TrainState, enable_checkpointing, make_optimizer
from semsynth.training.step import (
    TrainContext,
    dropped_masks,
    learning_rate,
    phase_at,
    step_names,
    step_timesteps,
    train_step,
)
from semsynth.training.validation import batch_loss

Configure = Callable[..., TrainConfig]
Weights = Callable[[Path], dict[str, torch.Tensor]]


def section(**values: Any) -> TrainSection:
    return TrainSection.model_validate({"steps": 100, "learning_rate": 2.0, **values})


def test_rates_in_closed_form() -> None:
    constant = section(warmup_steps=10)
    assert [learning_rate(constant, s) for s in (0, 4, 9, 10, 99)] == [0.2, 1.0, 2.0, 2.0, 2.0]
    cosine = section(warmup_steps=20, lr_schedule="cosine", lr_final=0.1)
    for step in range(20, 101):
        angle = math.pi * (step - 20) / 80
        expected = 2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(angle)))
        assert learning_rate(cosine, step) == pytest.approx(expected, rel=1e-12)
    assert learning_rate(cosine, 20) == 2.0
    assert learning_rate(cosine, 100) == pytest.approx(0.2)


@pytest.fixture
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(str(recipe_file))


def test_phases_follow_each_other(recipe: Recipe) -> None:
    found = [phase_at(recipe, step) for step in range(recipe.total_steps)]
    assert [step for _, step in found] == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]
    assert [isinstance(phase, FinetuneSection) for phase, _ in found] == [False] * 6 + [True] * 4


class Spy:
    """Keeps what each step gave to the loss, and the state of the optimizer before it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.noise: list[torch.Tensor] = []
        self.t: list[torch.Tensor] = []
        self.weight: list[torch.Tensor | None] = []
        self.labels: list[torch.Tensor] = []
        self.optimizer_steps: list[float] = []
        step, labels = loop.train_step, step_module.label_input
        call = DiffusionLoss.__call__

        def loss(this: DiffusionLoss, *args: Any) -> Any:
            _, _, noise, t, weight, _ = args
            self.noise.append(noise)
            self.t.append(t)
            self.weight.append(weight)
            return call(this, *args)

        def take(state: TrainState, context: TrainContext, batch: Batch) -> torch.Tensor:
            result = step(state, context, batch)
            states = list(state.optimizer.state.values())
            self.optimizer_steps.append(float(states[0]["step"]))
            return result

        def see(unet: Any, model: Any, channels: torch.Tensor, *edges: Any) -> torch.Tensor:
            self.labels.append(channels.clone())
            return labels(unet, model, channels, *edges)

        monkeypatch.setattr(DiffusionLoss, "__call__", loss)
        monkeypatch.setattr(loop, "train_step", take)
        monkeypatch.setattr(step_module, "label_input", see)


def test_noise_depends_on_seed_step_and_slot_alone(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ("train.steps=2", "finetune.steps=0")
    one = Spy(monkeypatch)
    train(configure("one", *steps))
    monkeypatch.undo()
    # Another learning rate, model, dropout: the noise is the same.
    other = Spy(monkeypatch)
    train(configure("other", *steps, "train.learning_rate=0.1", "train.mask_dropout=1.0"))
    monkeypatch.undo()
    seeded = Spy(monkeypatch)
    train(configure("seeded", *steps, "seed=1"))
    for step in range(2):
        assert torch.equal(one.noise[step], other.noise[step])
        assert torch.equal(one.t[step], other.t[step])
        assert not torch.equal(one.noise[step], seeded.noise[step])
    everything = torch.cat(one.noise)
    assert len({float(noise.sum()) for noise in everything}) == len(everything)
    # One timestep in each fourth of the thousand levels, in every step.
    assert all(torch.equal(t // 250, torch.arange(4)) for t in one.t)
    assert all(bool((labels == -1).all()) for labels in other.labels)


def test_a_shard_draws_its_slots_of_the_whole(recipe: Recipe) -> None:
    loss = DiffusionLoss(Schedule(recipe.diffusion_config), recipe.loss)

    def drawn(rank: int, world: int) -> tuple[torch.Tensor, ...]:
        slots = range(recipe.train.batch_size)[rank::world]
        return step_timesteps(recipe, loss, 7, slots), dropped_masks(recipe, 7, slots, 0.5)

    whole = drawn(0, 1)
    for rank in range(2):
        for all_slots, own in zip(whole, drawn(rank, 2), strict=True):
            assert torch.equal(all_slots[rank::2], own)


def test_share_of_dropped_masks(recipe: Recipe) -> None:
    slots = range(recipe.train.batch_size)
    dropped = [dropped_masks(recipe, step, slots, 0.2).float().mean() for step in range(2000)]
    # 8000 draws: three standard deviations are 0.013.
    assert float(torch.stack(dropped).mean()) == pytest.approx(0.2, abs=0.015)


def test_fine_tuning_starts_with_a_fresh_optimizer(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    train(configure("run"))
    assert spy.optimizer_steps == [1, 2, 3, 4, 5, 6, 1, 2, 3, 4]


ONE_STEP = ("train.steps=1", "finetune.steps=0", "model.dropout=0.0", "train.ema_decay=0.0",
            "train.grad_clip=1e9", "train.weight_decay=0.0")  # fmt: skip


def gradients(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The gradients of the first step, on a network without zero layers."""
    found: dict[str, torch.Tensor] = {}
    build = setup.build_network

    def filled(*args: Any) -> Any:
        unet, codec = build(*args)
        for p in unet.parameters():
            torch.nn.init.normal_(p, std=0.1)
        return unet, codec

    class Seen(Exception):
        pass

    def stop(state: TrainState) -> Any:
        def look(*_: Any, **__: Any) -> None:
            found.update({n: p.grad.clone() for n, p in state.plain_unet.named_parameters()})
            raise Seen

        return look

    step = loop.train_step

    def take(state: TrainState, context: TrainContext, batch: Batch) -> torch.Tensor:
        monkeypatch.setattr(state.optimizer, "step", stop(state))
        return step(state, context, batch)

    with monkeypatch.context() as patch:
        patch.setattr(setup, "build_network", filled)
        patch.setattr(loop, "train_step", take)
        with pytest.raises(Seen):
            train(config)
    return found


@pytest.mark.parametrize("same", ["train.accumulation=2", "train.gradient_checkpointing=true"])
def test_saving_memory_changes_only_rounding(
    same: str, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = gradients(configure("plain", *ONE_STEP), monkeypatch)
    saving = gradients(configure("saving", *ONE_STEP, same), monkeypatch)
    scale = max(float(g.abs().max()) for g in plain.values())
    assert scale > 0
    for name, gradient in plain.items():
        torch.testing.assert_close(saving[name], gradient, rtol=1e-4, atol=1e-5 * scale)


EPSILON = ("model.codec=pixel", "loss.prediction=epsilon", "loss.learn_sigma=true",
           "diffusion.schedule=linear")  # fmt: skip


@pytest.mark.parametrize("changes", [(), EPSILON], ids=["sample_haar", "epsilon_pixel"])
def test_both_predictions_train(
    changes: tuple[str, ...], configure: Configure, weights: Weights, tmp_path: Path
) -> None:
    often = ("train.validate_every=5", "train.preview_every=10")
    train(configure("run", *changes, *often))
    lines = loop.read_metrics(tmp_path / "run")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 5 and all(0 < loss < 10 for loss in losses)
    assert [line["step"] for line in lines if "validation_loss" in line] == [5, 10]
    assert all((line["vb"] > 0) == bool(changes) for line in lines if "vb" in line)
    assert all(bool(w.isfinite().all()) for w in weights(tmp_path / "run").values())
    assert [p.name for p in (tmp_path / "run/previews").iterdir()] == ["step_0000010.png"]


def test_workers_read_the_same_batches(images: Path) -> None:
    def read(workers: int) -> list[Batch]:
        config = LoaderConfig(3, 4, ImageAugmentation(flip=True, crop=0.7))
        samples = TrainingDataset(PreparedDataset.open(images), "train", config)
        return list(batches(samples, (2, 5), workers))

    for own, other in zip(read(0), read(2), strict=True):
        assert torch.equal(own.images, other.images)
        assert torch.equal(own.channels, other.channels)


def test_no_loss_on_padding(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = LabelSet.from_names({0: "void", 1: "road", 2: "sky"}, ignore_id=0)
    form = PreparedFormat(labels, 16, 16, resize="pad")
    writer = PreparedWriter(tmp_path / "padded", form, "prepared", {})
    mask = np.zeros((16, 16), np.uint8)
    mask[3:13] = 1
    for i in range(4):
        image = np.full((16, 16, 3), 40 * i, np.uint8)
        writer.write_pair("train", f"p{i}", image, mask, (10, 16), (3, 0, 10, 16))
    writer.finish("padded", "here", "none")
    spy = Spy(monkeypatch)
    changes = ("train.steps=1", "finetune.steps=0", "train.flip=false", "train.mask_dropout=0.0")
    train(configure("run", *changes, data=tmp_path / "padded"))
    weight = spy.weight[0]
    assert weight is not None and weight.shape == (4, 1, 8, 8)
    # Rows 3..12 are content; a latent pixel covers two rows, and counts if both are.
    expected = torch.zeros(8)
    expected[2:6] = 1
    assert torch.equal(weight, expected[None, None, :, None].expand_as(weight))
    assert bool((spy.labels[0][:, :3] == -1).all() and (spy.labels[0][:, 13:] == -1).all())


@pytest.mark.parametrize("step", [3, 4, 7])
def test_a_loss_that_is_not_finite_stops(
    step: int, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = loop.train_step

    def poisoned(state: TrainState, context: TrainContext, batch: Batch) -> torch.Tensor:
        if state.step + 1 == step:
            batch.images.data = batch.images.float() * float("nan")
        return take(state, context, batch)

    monkeypatch.setattr(loop, "train_step", poisoned)
    with pytest.raises(UserError, match=r"step \d+ is not finite, in the images street_") as error:
        train(configure("run", "train.log_every=5", "train.keep_checkpoints=9"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run/final_model.pth").exists()
    kept = sorted((tmp_path / "run").glob("step_*/state.pt"))
    assert [int(p.parent.name[5:]) for p in kept] == list(range(2, step, 2))
    for path in kept:
        state = torch.load(path, weights_only=True)
        assert all(bool(w.isfinite().all()) for w in state["model"].values())


def test_in_bfloat16_where_the_cpu_has_it(
    configure: Configure, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = []
    monkeypatch.setattr(SemanticUNet, "compile_norms", lambda unet, *_: networks.append(unet))
    for name, has, kind in (("a", "", "auto"), ("b", "yes", "no"), ("c", "yes", "auto")):
        monkeypatch.setattr(devices, "cpu_bfloat16", partial(str, has))
        train(configure(name, f"train.precision={kind}", "train.steps=2", "finetune.steps=0"))
    exact, asked, short = (weights(configure(name).output) for name in "abc")
    assert all(torch.equal(exact[name], asked[name]) for name in exact)
    assert any(not torch.equal(exact[name], short[name]) for name in exact)
    # Two steps move every weight by two learning rates at most, whatever the rounding.
    assert all((exact[name] - short[name]).abs().max() < 5e-3 for name in exact)
    last = torch.channels_last
    assert [n.conv_in.weight.is_contiguous(memory_format=last) for n in networks] == [0, 0, 1]


@pytest.mark.parametrize("levels", [0, 1])
def test_recomputing_changes_nothing(
    levels: int, configure: Configure, assert_same_weights: Callable[[Path, Path], None]
) -> None:
    again = ("train.gradient_checkpointing=true", f"train.checkpoint_levels={levels}")
    for name, changes in (("plain", ()), ("again", again)):
        train(configure(name, "train.steps=2", "finetune.steps=1", *changes))
    assert_same_weights(configure("plain").output, configure("again").output)


def test_bands_add_up_to_the_loss(configure: Configure) -> None:
    train(configure("plain", "finetune.steps=0"))
    # One level of Haar: four equal channels each, of which one is coarse.
    train(configure("fine", "finetune.steps=0", "loss.band_weights=[1, 3]"))
    plain, fine = (read_metrics(configure(name).output)[0] for name in ("plain", "fine"))
    for line in (plain, fine):
        assert line["mse_band_0"] + line["mse_band_1"] == pytest.approx(line["mse"], abs=2e-6)
    # The first steps have all but the same weights: the mean of 1, 3, 3, 3 is 2.5.
    assert fine["mse_band_0"] == pytest.approx(plain["mse_band_0"] / 2.5, rel=0.05)
    assert fine["mse_band_1"] == pytest.approx(plain["mse_band_1"] * 3 / 2.5, rel=0.05)


@pytest.mark.parametrize(
    "changes", [["loss.band_weights=[1]"], ["model.codec=pixel", "loss.band_weights=[1, 1]"]]
)
def test_band_weights_must_fit_the_bands(changes: list[str], configure: Configure) -> None:
    with pytest.raises(UserError, match=r"loss.band_weights has \d numbers: codec haar takes 2"):
        train(configure("a", *changes))


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_steps_and_losses_of_fake_tensors(recipe: Recipe, precision: str) -> None:
    """`semsynth plan` follows the memory of the real step through tensors without storage."""
    accumulated = {"accumulation": 2, "precision": precision, "gradient_checkpointing": True}
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update=accumulated)})
    with FakeTensorMode(allow_non_fake_inputs=True):
        unet, codec = build_network(recipe.model, recipe.diffusion_config, 3)
        enable_checkpointing(unet, recipe)
        ema = Ema(unet, 0.9, True)
        state = TrainState(unet, ema, make_optimizer(recipe, unet), {}, precision)  # type: ignore[arg-type]
        loss = DiffusionLoss(Schedule(recipe.diffusion_config), recipe.loss)
        context = TrainContext(recipe, Accelerator(cpu=True), codec, loss)
        count, shape = recipe.train.batch_size, (recipe.height, recipe.width)
        batch = Batch(
            torch.zeros(count, 3, *shape, dtype=torch.uint8),
            torch.zeros(count, *shape, dtype=torch.int8),
            torch.ones(count, 1, *shape, dtype=torch.bool),
            noise=torch.zeros(count, recipe.model.latent_channels, *latent_size(recipe)),
        )
        for _ in range(2):
            numbers = train_step(state, context, batch)
        with context.autocast(state.precision):
            total = batch_loss(ema.module, context, batch, torch.arange(count))
    assert numbers.shape == (len(step_names(context)),) and total.shape == ()
    assert state.step == 2
