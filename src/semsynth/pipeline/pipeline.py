"""``SemanticDiffusionPipeline``: label maps in, pictures out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from semsynth.data.labels import LabelSet
from semsynth.diffusion.config import DiffusionConfig
from semsynth.diffusion.guidance import Denoiser
from semsynth.diffusion.sampling import draw_noise, make_scheduler, sample, set_timesteps
from semsynth.diffusion.schedule import Schedule
from semsynth.diffusion.settings import SamplerSettings
from semsynth.model.codec import make_codec
from semsynth.model.config import ModelConfig
from semsynth.model.unet import Condition, SemanticUNet
from semsynth.pipeline.bundle import (
    Bundle,
    labels_for_network,
    load_bundle,
    load_network,
    save_bundle,
)
from semsynth.pipeline.folder import MODEL_INDEX, check_folder, checkpoint_sha256, readable
from semsynth.runtime.config import parse
from semsynth.runtime.devices import pick_device
from semsynth.runtime.errors import UserError
from semsynth.runtime.torch_rng import torch_generator


class SemanticDiffusionPipeline(DiffusionPipeline):
    """A trained generator: a Diffusers pipeline from masks to pictures.

    ``from_pretrained`` and ``save_pretrained`` read and write Diffusers folders;
    ``from_checkpoint`` also reads the ``final_model.pth`` of a run, which ``save_checkpoint``
    writes.

    Attributes:
        unet: the network.
        scheduler: what ``__call__`` samples with; any of Diffusers' for the same prediction.
        schedule: the forward process that the network was trained on.
        codec: from pictures to what the network sees, and back.
        checkpoint_sha256: of what it was loaded from, empty for one in training.
    """

    unet: SemanticUNet
    scheduler: Any  # Diffusers' schedulers share no typed interface

    model_cpu_offload_seq = "unet"

    def __init__(
        self,
        unet: SemanticUNet,
        scheduler: SchedulerMixin,
        labels: dict[str, Any] | None = None,
        model: dict[str, Any] | None = None,
        diffusion: dict[str, Any] | None = None,
        height: int | None = None,
        width: int | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        """Put the parts together; the plain values are those of ``Bundle`` as JSON.

        Diffusers takes arguments without a default for networks, so all others have one; only
        ``facts`` may be left out.

        Raises:
            UserError: a value that is missing or wrong.
        """
        super().__init__()
        if labels is None or model is None or diffusion is None or not height or not width:
            raise UserError(
                "a SemanticDiffusionPipeline needs labels, model, diffusion, height and width; "
                "load one with from_pretrained or from_checkpoint, or use from_bundle"
            )
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(
            labels=labels,
            model=model,
            diffusion=diffusion,
            height=height,
            width=width,
            facts=facts or {},
        )
        self._labels = LabelSet.from_json(labels)
        self._model = parse(ModelConfig, model, f"{MODEL_INDEX}: model")
        self._diffusion = parse(DiffusionConfig, diffusion, f"{MODEL_INDEX}: diffusion")
        self.codec = make_codec(self._model.codec, self._model.haar_levels)
        self.schedule = Schedule(self._diffusion)
        self.checkpoint_sha256 = ""
        self._lut = self._labels.channel_lut()

    @classmethod
    def wrap(cls, bundle: Bundle, unet: SemanticUNet, sha256: str = "") -> Self:
        """Return a pipeline around a network that already has its weights."""
        pipe = cls(
            unet,
            make_scheduler(bundle.diffusion, "dpm++"),
            labels=bundle.labels.to_json(),
            model=bundle.model.model_dump(mode="json"),
            diffusion=bundle.diffusion.model_dump(mode="json"),
            height=bundle.height,
            width=bundle.width,
            facts=bundle.facts,
        )
        pipe.checkpoint_sha256 = sha256
        return pipe

    @classmethod
    def from_bundle(cls, bundle: Bundle, device: str = "cpu", sha256: str = "") -> Self:
        """Return a pipeline with the bundle's own tensors as its weights (no copy on the CPU).

        Raises:
            UserError: weights that do not fit the configuration, or no such device.
        """
        return cls.wrap(bundle, load_network(bundle).to(pick_device(device)), sha256)

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str = "auto") -> Self:
        """Load ``final_model.pth``, the run folder that holds one, or a Diffusers folder.

        Raises:
            UserError: see ``load_bundle`` and ``from_pretrained``; or no such device.
        """
        path = Path(path)
        if (path / MODEL_INDEX).is_file():
            where = pick_device(device)
            pipe: Self = cls.from_pretrained(path).to(where)
            pipe.checkpoint_sha256 = checkpoint_sha256(path)
            return pipe
        bundle = load_bundle(path)
        try:
            return cls.from_bundle(bundle, device, checkpoint_sha256(path))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load a Diffusers folder, or a repository of the Hub; see Diffusers for the options.

        Raises:
            UserError: no such folder, not one of ours, or one that is damaged.
        """
        name = os.fspath(pretrained_model_name_or_path)
        check_folder(name, cls.__name__)
        with readable(name):
            return super().from_pretrained(name, **kwargs)  # type: ignore[no-any-return]

    def save_checkpoint(self, path: str | Path) -> None:
        """Write ``final_model.pth``: the pipeline but its scheduler, in one file."""
        save_bundle(Path(path), self.bundle)

    @property
    def bundle(self) -> Bundle:
        """Everything but the scheduler, as one value; the weights are the network's own."""
        return Bundle(
            model=self._model,
            diffusion=self._diffusion,
            labels=self._labels,
            height=self.height,
            width=self.width,
            weights=self._plain_unet.state_dict(),
            facts=self.config["facts"],
        )

    @property
    def _plain_unet(self) -> SemanticUNet:
        # torch.compile wraps a network and would put a prefix before the names of its weights.
        return getattr(self.unet, "_orig_mod", self.unet)  # type: ignore[no-any-return]

    @property
    def labels(self) -> LabelSet:
        """The label set that the generator was trained on."""
        return self._labels

    @property
    def height(self) -> int:
        """Height of the pictures that it was trained on, in pixels."""
        return int(self.config["height"])

    @property
    def width(self) -> int:
        """Width of the pictures that it was trained on, in pixels."""
        return int(self.config["width"])

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the training: recipe, step, data set, licence, versions."""
        return dict(self.config["facts"])

    @property
    def licence(self) -> str:
        """Licence of the data that it was trained on."""
        return str(self.facts.get("licence", "unknown"))

    @property
    def recipe_name(self) -> str:
        """Name of the recipe that it was trained by."""
        return str(self.facts.get("recipe", {}).get("name", ""))

    @torch.no_grad()
    def encode(self, mask_BHW: npt.NDArray[Any]) -> Condition:
        """Compute all that depends on masks of label ids alone, (B, H, W) integers.

        Raises:
            UserError: an id that is none of ``labels``.
        """
        self.labels.check_ids(mask_BHW, "masks")
        channels = torch.from_numpy(self._lut[mask_BHW]).to(self._execution_device)
        return self._plain_unet.encode(labels_for_network(channels, self._model))

    def _null_condition(self, mask_BHW: npt.NDArray[Any]) -> Condition:
        shape = (1, *mask_BHW.shape[1:])
        nothing = torch.full(shape, -1, dtype=torch.int16, device=self._execution_device)
        return self._plain_unet.encode(labels_for_network(nothing, self._model))

    @torch.no_grad()
    def generate(
        self,
        mask_BHW: npt.NDArray[Any],
        seeds: Sequence[int],
        settings: SamplerSettings | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Paint a picture for each mask.

        Args:
            mask_BHW: integer label ids.
            seeds: one for each mask; a picture depends on its own alone.
            settings: sampler, steps and guidance.

        Returns:
            (B, H, W, 3) uint8 RGB.

        Raises:
            UserError: sides that the network cannot halve, an id that is no label, another number
                of seeds than masks, or more steps than the model has noise levels.
        """
        settings = settings or SamplerSettings()
        if len(seeds) != len(mask_BHW):
            raise UserError(f"{len(mask_BHW)} masks but {len(seeds)} seeds; give one for each")
        height, width = mask_BHW.shape[1:]
        multiple = self._model.size_multiple
        if height % multiple or width % multiple:
            raise UserError(f"masks of {height}x{width}: sides must be multiples of {multiple}")
        condition = self.encode(mask_BHW)
        null = self._null_condition(mask_BHW) if settings.guidance_scale != 1.0 else condition
        generators = [torch_generator(seed, "picture") for seed in seeds]
        scale = self.codec.downscale
        shape = (self.codec.channels, height // scale, width // scale)
        noise = draw_noise(shape, generators, self._execution_device)

        def network(x: Tensor, t: Tensor, guidance_scale: float, rescale: float) -> Tensor:
            output: Tensor = self.unet(x, t, condition, null, guidance_scale, rescale).sample
            return output

        scheduler = make_scheduler(self._diffusion, settings.sampler)
        set_timesteps(scheduler, settings.steps)
        denoise = Denoiser(network, self.schedule, self.codec.clip, settings)
        latent = sample(denoise, scheduler, noise, generators)
        pictures = self.codec.decode(latent).clamp(-1, 1)
        pixels = ((pictures + 1) * 127.5).round().to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).cpu().numpy()
