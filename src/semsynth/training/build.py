"""From options to a run in hand: what must fit, whose folder it is, weights, optimizer, state."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from pydantic import ValidationError

from semsynth.core.distributed.run_lock import RunLock
from semsynth.core.errors import UserError
from semsynth.core.files import (
    MARKER,
    check_output_dir,
    claim_output_dir,
    read_json,
    require_space,
    write_text,
)
from semsynth.core.logging import logger
from semsynth.core.precision import Precision, can_compute, resolve_precision
from semsynth.core.rng import derive_seed
from semsynth.core.version import __version__
from semsynth.data.dataset import PreparedDataset
from semsynth.diffusion.loss import DiffusionLoss
from semsynth.diffusion.schedule import Schedule
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.formats.diffusers_folder import FINAL
from semsynth.pipelines.formats.model_file import ModelFile, build_network
from semsynth.training.checkpoints.fsdp import gathered, in_shares, is_shared, shard, whole_average
from semsynth.training.checkpoints.store import complete_checkpoints, load_state, newest
from semsynth.training.ema import Ema
from semsynth.training.init.from_model import Initialization
from semsynth.training.loop_errors import run_on_rank0
from semsynth.training.recipe import Recipe
from semsynth.training.step import Run

# What may change while a run goes on: it decides nothing about the weights, or their rounding
# alone. Not `precision`, whose rounding is learnt with, nor `cache_latents`, which keeps float16.
_FREE = (
    *("accumulation", "gradient_checkpointing", "checkpoint_levels", "sharding"),
    *("channels_last", "compile", "workers", "stall_minutes"),
    *("log_every", "validate_every", "preview_every", "checkpoint_every"),
    *("keep_checkpoints", "keep_every"),
)


def check_fit(recipe: Recipe, data: PreparedDataset) -> None:
    """Check that the recipe can be trained on the data.

    Raises:
        UserError: another size, or no training images.
    """
    if (data.height, data.width) != (recipe.height, recipe.width):
        raise UserError(
            f"{data.root}: images are {data.height}x{data.width}, recipe '{recipe.name}' wants "
            f"{recipe.height}x{recipe.width}; prepare with --height {recipe.height} "
            f"--width {recipe.width}, or --set height={data.height} --set width={data.width}"
        )
    if "train" not in data.splits() or not data.stems("train"):
        raise UserError(f"{data.root}: has no images in the split 'train'; prepare some")
    for split in data.splits() if recipe.model.instance_edges else ():
        if not data.has_instances(split):
            raise UserError(
                f"{data.root}: some masks of the split '{split}' have no instance map, which "
                f"recipe '{recipe.name}' wants; prepare a source with instances, or --set "
                "model.instance_edges=false"
            )
    if not data.has_images("train"):
        raise UserError(f"{data.root}: some masks of the split 'train' have no image")


def claim(
    folder: Path, recipe: Recipe, data: PreparedDataset, resume: bool, start: Initialization | None
) -> None:
    """Make the folder the run's own, or check that it is.

    Raises:
        UserError: it is another run's: says what differs.
    """
    if not resume and any(folder.glob("step_*")):
        raise UserError(f"{folder}: holds a run; drop --no-resume to continue it, or remove it")
    check_claim(folder, recipe, data, start)
    key = _key(recipe, data, start)
    claim_output_dir(folder, "run", key)
    if start is not None:
        start.save(folder)
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    write_text(folder / "config.yaml", text)


def check_claim(
    folder: Path, recipe: Recipe, data: PreparedDataset, start: Initialization | None
) -> None:
    """Check that the folder is free, or the run's own; nothing is changed.

    Raises:
        UserError: it is another run's: says what differs.
    """
    _check_version(folder)
    try:
        check_output_dir(folder, "run", _key(recipe, data, start))
    except UserError as error:
        raise UserError(f"{error}{_way_on(folder)}") from None


def _key(recipe: Recipe, data: PreparedDataset, start: Initialization | None) -> dict[str, Any]:
    stems = "\n".join(data.stems("train"))
    key = {
        "recipe": _decides(recipe),
        "data": data.info.name,
        "pictures": hashlib.sha256(stems.encode()).hexdigest()[:12],
        "labels": data.labels.to_json(),
    }
    return key if start is None else {**key, "from": start.key}


def _way_on(folder: Path) -> str:
    if complete_checkpoints(folder):
        return f"; or start another from its newest checkpoint: --fork {folder} --output ANOTHER"
    hint = f"; or start another from its model: --from {folder} --output ANOTHER"
    return hint * (folder / FINAL).exists()


def _decides(recipe: Recipe) -> dict[str, Any]:
    values = recipe.model_dump(mode="json", exclude={"about", "run"})
    for name in _FREE:
        values["train"].pop(name)
    return values


def _check_version(folder: Path) -> None:
    """Refuse a run whose recipe this version cannot read."""
    marker = folder / MARKER
    found = read_json(marker) if marker.is_file() else {}
    if not isinstance(found, dict) or found.get("kind") != "run":
        return
    try:
        Recipe.model_validate(found["key"]["recipe"])
    except (ValidationError, KeyError, TypeError):
        hint = f"start another from its model: --from {folder} --output ANOTHER"
        if not (folder / FINAL).exists():
            hint = "finish it with that version, or choose another --output"
        raise UserError(f"{folder}: is a run of another version of semsynth; {hint}") from None


def check_batch(recipe: Recipe, world: int) -> None:
    """Check that the batch can be shared by ``world`` processes.

    Raises:
        UserError: names the nearest batch sizes and numbers of processes that can.
    """
    batch, accumulation = recipe.train.batch_size, recipe.train.accumulation
    unit = world * accumulation
    if batch % unit == 0:
        return
    sizes = [str(size) for size in (batch // unit * unit, -(-batch // unit) * unit) if size]
    fits = [n for n in range(1, batch + 1) if batch % (n * accumulation) == 0]
    below, above = [n for n in fits if n < world][-1:], [n for n in fits if n > world][:1]
    counts = [str(n) for n in (*below, *above)]
    raise UserError(
        f"train.batch_size {batch} must be a multiple of processes x accumulation = {world} x "
        f"{accumulation}; with {world} processes use train.batch_size={' or '.join(sizes)}"
        + (f", or run {' or '.join(counts)} processes" if counts else ", or less accumulation")
    )


def assemble(
    recipe: Recipe,
    data: PreparedDataset,
    accelerator: Accelerator,
    start: Initialization | None,
    owner: RunLock,
) -> Run:
    """Build all that a run has in hand, as its newest checkpoint was; all processes call it."""
    folder = owner.run
    torch.manual_seed(derive_seed(recipe.seed, "weights"))
    unet, codec = build_network(recipe.model, recipe.diffusion_config, data.labels.num_channels)
    bytes_each = 4 * sum(p.numel() for p in unet.parameters())
    more = max(1, recipe.train.keep_checkpoints + 1 - len(complete_checkpoints(folder)))
    require_space(folder, 4 * bytes_each * more, "training")
    found = run_on_rank0(accelerator, lambda: newest(folder, owner))
    shared = is_shared(recipe, accelerator)
    state = None if found is None else load_state(found, mapped=shared)
    if state is None and start is not None:
        start.begin(unet, recipe, data)
    recompute(unet, recipe)
    if not shared:  # shares are moved as they are made
        unet.to(accelerator.device)
    ema = Ema(unet, recipe.train.ema_decay, recipe.train.ema_warmup)
    if state is not None:
        unet.load_state_dict(state["model"])
        ema.module.load_state_dict(state["ema"])
    for network in (ema.module, unet) if shared else ():
        shard(network, accelerator.device)
    # What `auto` was at first; not there in a fork and in checkpoints of older versions.
    before = None if state is None else state.get("precision")
    precision = _precision(folder, recipe, accelerator, before)
    run = Run(
        recipe, folder, data, accelerator, unet, ema, codec,
        DiffusionLoss(Schedule(recipe.diffusion_config), recipe.loss),
        make_optimizer(recipe, unet), precision, start=start,
    )  # fmt: skip
    lay_out(run, shared)
    if state is not None:
        _restore(run, state)
    if not shared:
        run.unet, run.optimizer = accelerator.prepare(unet, run.optimizer)
    return run


def recompute(unet: SemanticUNet, recipe: Recipe) -> None:
    """Switch gradient checkpointing on where the recipe wants it, on its levels."""
    if recipe.train.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        unet.checkpoint_levels = recipe.train.checkpoint_levels or unet.checkpoint_levels


def lay_out(run: Run, shared: bool = False) -> None:
    """Give a run's networks, not wrapped yet, their layout in memory and their kernels."""
    # Shares have one layout only; the convolutions follow the images' all the same.
    for network in (run.unet, run.ema.module) if run.channels_last and not shared else ():
        network.to(memory_format=torch.channels_last)
    run.unet.compile_norms(run.recipe.train.compile, run.accelerator.device)


def _precision(run: Path, recipe: Recipe, accelerator: Accelerator, before: Any) -> Precision:
    """Return what to compute in: with ``auto``, as ``before``, the run's own, where that works."""
    # Measured on a CPU: one process decides, so that all compute alike.
    chosen: list[Precision] = ["no"]
    wanted, device = recipe.train.precision, accelerator.device
    if accelerator.is_main_process:
        if wanted != "auto" or before is None:
            chosen = [resolve_precision(wanted, device)]
        elif can_compute(before, device):
            chosen = [before]
        else:
            logger.warning(
                f"{run}: was trained in {before}, which this {device.type} cannot; it "
                "goes on in float32, and will not end with the same weights to the bit"
            )
    return broadcast_object_list(chosen)[0]  # type: ignore[no-any-return]


def make_optimizer(recipe: Recipe, unet: SemanticUNet) -> torch.optim.Optimizer:
    """Return the recipe's AdamW, fused."""
    section = recipe.train
    return torch.optim.AdamW(
        unet.parameters(),
        lr=section.learning_rate,
        betas=section.betas,
        weight_decay=section.weight_decay,
        fused=True,
    )


def whole_ema(run: Run) -> SemanticUNet:
    """Return the averaged network for rank 0; all processes call it, see ``whole_average``."""
    channels = run.data.labels.num_channels
    return whole_average(run.ema.module, run.recipe, channels, run.accelerator)


def state_of(run: Run, ema: SemanticUNet) -> dict[str, Any]:
    """Return what a checkpoint holds; all processes call it, and rank 0's is complete.

    The tensors are the run's own, or copies on the CPU where the run is in shares.

    Args:
        run: after a step.
        ema: of ``whole_ema``.
    """
    keep = run.accelerator.is_main_process
    return {
        "step": run.step,
        "model": gathered(run.plain_unet.state_dict(), keep),
        "ema": ema.state_dict(),
        "ema_updates": run.ema.updates,
        "optimizer": gathered(run.optimizer.state_dict(), keep),
        "precision": run.precision,
        "facts": _facts(run),
    }


def _restore(run: Run, state: dict[str, Any]) -> None:
    run.step = state["step"]
    run.ema.updates = state["ema_updates"]
    if "optimizer" not in state:  # a fork: the optimizer begins anew
        return
    run.optimizer.load_state_dict(in_shares(state["optimizer"], run.optimizer))
    for weight, known in run.optimizer.state.items():
        for name, value in known.items():
            # The fused AdamW goes through memory, whatever the layout: it must be the weight's.
            if value.shape == weight.shape and value.stride() != weight.stride():
                known[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
    logger.info(f"{run.folder}: continuing at step {run.step} of {run.recipe.total_steps}")


def averaged(run: Run, ema: SemanticUNet) -> ModelFile:
    """Return the averaged network (of ``whole_ema``) with all that is needed to use it."""
    return ModelFile(
        run.recipe.model,
        run.recipe.diffusion_config,
        run.data.labels,
        run.data.height,
        run.data.width,
        ema.state_dict(),
        _facts(run),
    )


def _facts(run: Run) -> dict[str, Any]:
    facts = {
        "recipe": run.recipe.model_dump(mode="json"),
        "step": run.step,
        "dataset": run.data.info.name,
        "licence": run.data.info.licence,
        "semsynth": __version__,
        "torch": str(torch.__version__),
    }
    return facts if run.start is None else run.start.with_licence(facts)
