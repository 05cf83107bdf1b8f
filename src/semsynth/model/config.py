"""The network and its codec, as plain values (no torch)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from semsynth.runtime.config import Config


class ModelConfig(Config):
    """Width, depth and codec of the U-Net.

    Attributes:
        codec: ``pixel``, or ``haar`` (an orthonormal Haar transform: a quarter of the positions
            and four times the channels for each level, exactly invertible).
        haar_levels: levels of ``haar``.
        base_channels: width of the first level (multiples of 32 give the paper's GroupNorm).
        channel_mult: width of each level as a multiple of ``base_channels``.
        blocks_per_level: residual blocks of a level in the encoder.
        attention_factors: down-sampling factors (of the latent) that have attention.
        head_channels: width of an attention head.
        spade_hidden: width of SPADE's hidden layer (the paper: 128).
        dropout: share of activations dropped in residual blocks.
        labels: how the mask meets a latent smaller than itself: ``patch`` (each latent pixel sees
            all labels under it) or ``nearest`` (one of them; the paper's, with ``pixel``).
        label_features: channels of a learned convolution of the label map that all SPADE norms
            share as their input (0: each has the map itself, as the paper).
        instance_edges: one more condition channel, for the edges between objects (the paper's
            Cityscapes); needs prepared data with instances.
    """

    codec: Literal["pixel", "haar"] = "haar"
    haar_levels: int = Field(2, ge=1, le=5)
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

    @property
    def downscale(self) -> int:
        """Return how many picture pixels a latent pixel covers along a side."""
        return 1 << self.haar_levels if self.codec == "haar" else 1

    @property
    def size_multiple(self) -> int:
        """Return what height and width of pictures must be multiples of."""
        return self.downscale << (len(self.channel_mult) - 1)

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
