"""The network and its codec, as plain values (no torch)."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from semsynth.core.config import Config

Size = tuple[int, int]
Compile = Literal["auto", "on", "off"]
"""Compile the kernels of norms: ``auto``, on GPUs; ``on``, also on a CPU; ``off``, never."""


def whole_size(size: Size, multiple: int) -> Size:
    """Return the smallest size of at least ``size`` whose sides are multiples of ``multiple``."""
    height, width = (side + -side % multiple for side in size)
    return height, width


class VaeConfig(Config):
    """A Diffusers autoencoder; its weights are not among the model's.

    Attributes:
        source: folder, or OWNER/NAME (or OWNER/NAME/FOLDER) of the Hugging Face Hub.
        channels: channels of its latents; checked when it is loaded (``downscale`` too).
        downscale: image pixels along a side of a latent pixel.
        sha256: hash of its weights and of the scale of its latents; training fills it in, and any
            other autoencoder is refused then (empty: any is accepted).
    """

    source: str = Field(min_length=1)
    channels: int = Field(4, ge=1)
    downscale: int = Field(8, ge=1)
    sha256: str = ""


class ModelConfig(Config):
    """Width, depth and codec of the U-Net.

    Attributes:
        codec: ``pixel``, ``haar`` (an orthonormal, exactly invertible Haar transform: per level, a
            quarter of the positions and four times the channels), or ``vae``.
        haar_levels: levels of ``haar``.
        vae: the autoencoder of codec ``vae``: a section, or only its source.
        base_channels: width of the first level (multiples of 32 give the paper's GroupNorm).
        channel_mult: width of each level as a multiple of ``base_channels``.
        blocks_per_level: residual blocks of a level in the encoder.
        attention_factors: downsampling factors (of the latent) of the levels with attention.
        head_channels: width of an attention head.
        spade_hidden: width of SPADE's hidden layer (the paper: 128).
        dropout: share of activations dropped in residual blocks.
        labels: how the mask is given to a latent smaller than itself: ``patch`` (each latent pixel
            gets all labels under it) or ``nearest`` (one of them; the paper's, with ``pixel``).
        label_features: channels of a learned convolution of the label map that all SPADE norms
            share as their input (0: each has the map itself, as in the paper).
        instance_edges: one more condition channel, for the edges between objects (the paper's
            Cityscapes); needs prepared data with instances.
        augment_condition: how a training image was augmented (flip, scale and position of the crop,
            colors) is an input of the network, so that generated images do not show the
            augmentations (arXiv 2206.00364, appendix F.2).
        pixel_head: width of a head that draws the image at the resolution of its pixels, so that
            no blocks of the codec ``haar`` are seen (0: none, as in the paper).
        global_noise: width of two layers that make the noise's mean over the whole image an input
            of all blocks, so that one evaluation can vary what an image has as a whole: its stain,
            light or season (0: none, as in the paper).
        image_channels: channels of the images; training takes those of its data.
        image_bits: their values are 0 to 2**image_bits - 1, which become -1 to 1; training takes
            those of its data, too. Neither is written where images are RGB of 8 bits, nor is
            ``pixel_head`` or ``global_noise`` where they are 0.
    """

    codec: Literal["pixel", "haar", "vae"] = "haar"
    haar_levels: int = Field(2, ge=1, le=5)
    vae: VaeConfig | None = None
    base_channels: int = Field(64, ge=8)
    channel_mult: list[float] = Field([1, 2, 3, 4], min_length=1)
    blocks_per_level: int = Field(2, ge=1)
    attention_factors: list[int] = Field([4, 8])
    head_channels: int = Field(32, ge=1)
    spade_hidden: int = Field(128, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    labels: Literal["patch", "nearest"] = "patch"
    label_features: int = Field(0, ge=0)
    instance_edges: bool = False
    augment_condition: bool = False
    pixel_head: int = Field(0, ge=0)
    global_noise: int = Field(0, ge=0)
    image_channels: int = Field(3, ge=1, le=8)
    image_bits: int = Field(8, ge=8, le=16)

    @property
    def downscale(self) -> int:
        """Return how many image pixels a latent pixel covers along a side."""
        if self.vae is not None:
            return self.vae.downscale
        return 1 << self.haar_levels if self.codec == "haar" else 1

    @property
    def latent_channels(self) -> int:
        """Return the channels of a latent pixel."""
        if self.vae is not None:
            return self.vae.channels
        return self.image_channels * self.downscale**2

    @property
    def is_rgb(self) -> bool:
        """Whether images are RGB of 8 bits."""
        return (self.image_channels, self.image_bits) == (3, 8)

    @property
    def size_multiple(self) -> int:
        """Return what height and width of images must be multiples of."""
        return self.downscale << (len(self.channel_mult) - 1)

    def nearest_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size nearest to this one whose sides the network can halve."""
        multiple = self.size_multiple
        near = (max(multiple, round(side / multiple) * multiple) for side in (height, width))
        return next(near), next(near)

    @field_validator("vae", mode="before")
    @classmethod
    def _source_alone(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _autoencoder_where_used(self) -> Self:
        if self.codec == "vae" and self.vae is None:
            raise ValueError("codec 'vae' needs model.vae: a folder or a Hub id (OWNER/NAME)")
        if self.codec != "vae" and self.vae is not None:
            raise ValueError(f"vae is given, but codec is '{self.codec}'; set codec to 'vae'")
        return self

    @model_validator(mode="after")
    def _rgb_for_autoencoders(self) -> Self:
        if self.codec == "vae" and not self.is_rgb:
            raise ValueError(
                f"codec 'vae' encodes RGB of 8 bits, images have {self.image_channels} channels of "
                f"{self.image_bits} bits; set codec to 'haar' or 'pixel'"
            )
        return self

    @model_validator(mode="after")
    def _head_sees_pixels(self) -> Self:
        if self.pixel_head and self.codec == "vae":
            raise ValueError("pixel_head is for the codecs haar and pixel; set it to 0")
        return self

    @model_serializer(mode="wrap")
    def _without_usual_values(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        if self.is_rgb:
            values = {k: v for k, v in values.items() if k not in ("image_channels", "image_bits")}
        for name in ("pixel_head", "global_noise"):
            if not getattr(self, name):
                values.pop(name, None)  # not there where a dump leaves it out
        return values

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        for level, mult in enumerate(self.channel_mult):
            width = int(mult * self.base_channels)
            last = level == len(self.channel_mult) - 1
            if (last or 2**level in self.attention_factors) and width % self.head_channels:
                raise ValueError(
                    f"level {level} is {width} channels wide, which head_channels "
                    f"{self.head_channels} does not divide"
                )
        return self
