"""``SemanticDiffusionPipeline``: label maps in, pictures out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semsynth.data.labels import LabelSet
from semsynth.diffusion.sampling import draw_noise, sample
from semsynth.diffusion.schedule import Schedule
from semsynth.diffusion.settings import SamplerSettings
from semsynth.model.codec import make_codec
from semsynth.model.unet import Condition, SemanticUNet
from semsynth.pipeline.bundle import Bundle, build_network, labels_for_network, load_bundle
from semsynth.runtime.artifacts import sha256_file
from semsynth.runtime.devices import pick_device
from semsynth.runtime.errors import UserError
from semsynth.runtime.torch_rng import torch_generator


class SemanticDiffusionPipeline:
    """A trained generator on a device.

    Attributes:
        bundle: configuration, labels and facts of the checkpoint.
        checkpoint_sha256: of the file that it came from, empty for one in training.
        unet: the network.
    """

    def __init__(self, bundle: Bundle, unet: SemanticUNet, checkpoint_sha256: str = "") -> None:
        """Wrap a network that already has its weights."""
        self.bundle = bundle
        self.unet = unet
        self.checkpoint_sha256 = checkpoint_sha256
        self.codec = make_codec(bundle.model.codec, bundle.model.haar_levels)
        self.schedule = Schedule(bundle.diffusion)
        self._lut = bundle.labels.channel_lut()

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str = "auto") -> SemanticDiffusionPipeline:
        """Load ``final_model.pth`` (or the run folder that holds one).

        Raises:
            UserError: see ``load_bundle``; or no such device.
        """
        path = Path(path)
        bundle = load_bundle(path)
        unet, _ = build_network(bundle.model, bundle.diffusion, bundle.labels.num_channels)
        try:
            unet.load_state_dict(bundle.weights)
        except (RuntimeError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: weights do not fit its configuration: {reason}") from None
        file = path / "final_model.pth" if path.is_dir() else path
        return cls(bundle, unet.to(pick_device(device)).eval(), sha256_file(file))

    @property
    def labels(self) -> LabelSet:
        """The label set that the generator was trained on."""
        return self.bundle.labels

    @property
    def height(self) -> int:
        """Height of the pictures in pixels."""
        return self.bundle.height

    @property
    def width(self) -> int:
        """Width of the pictures in pixels."""
        return self.bundle.width

    @property
    def licence(self) -> str:
        """Licence of the data that it was trained on."""
        return str(self.bundle.facts.get("licence", "unknown"))

    @property
    def recipe_name(self) -> str:
        """Name of the recipe that it was trained by."""
        return str(self.bundle.facts.get("recipe", {}).get("name", ""))

    @torch.no_grad()
    def encode(self, mask_BHW: npt.NDArray[Any]) -> Condition:
        """Compute all that depends on masks of label ids alone, (B, H, W) integers.

        Raises:
            UserError: an id that is none of ``labels``.
        """
        self.labels.check_ids(mask_BHW, "masks")
        channels = torch.from_numpy(self._lut[mask_BHW]).to(self.unet.device)
        return self.unet.encode(labels_for_network(channels, self.bundle.model))

    def _null_condition(self, mask_BHW: npt.NDArray[Any]) -> Condition:
        shape = (1, *mask_BHW.shape[1:])
        nothing = torch.full(shape, -1, dtype=torch.int16, device=self.unet.device)
        return self.unet.encode(labels_for_network(nothing, self.bundle.model))

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
        multiple = self.bundle.model.size_multiple
        if height % multiple or width % multiple:
            raise UserError(f"masks of {height}x{width}: sides must be multiples of {multiple}")
        condition = self.encode(mask_BHW)
        null = self._null_condition(mask_BHW) if settings.guidance_scale != 1.0 else condition
        generators = [torch_generator(seed, "picture") for seed in seeds]
        scale = self.codec.downscale
        shape = (self.codec.channels, height // scale, width // scale)
        noise = draw_noise(shape, generators, self.unet.device)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            output = self.unet(x, t, condition, null, settings.guidance_scale).sample
            predicts_x0 = self.bundle.diffusion.prediction == "sample"
            return self.codec.clip(output) if predicts_x0 else output

        latent = sample(denoise, self.schedule, settings, noise, generators)
        pictures = self.codec.decode(latent).clamp(-1, 1)
        pixels = ((pictures + 1) * 127.5).round().to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).cpu().numpy()
