"""What a network may predict, and how one prediction becomes another.

``x = alpha x0 + sigma eps``. alpha and sigma are numbers, or tensors that spread over x.
"""

from __future__ import annotations

from torch import Tensor

from semsynth.diffusion.config import Prediction

Coefficient = Tensor | float


def target(
    prediction: Prediction,
    x0_BCHW: Tensor,
    noise_BCHW: Tensor,
    alpha: Coefficient,
    sigma: Coefficient,
) -> Tensor:
    """Return what the network shall predict for an image and its noise."""
    if prediction == "sample":
        return x0_BCHW
    if prediction == "epsilon":
        return noise_BCHW
    if prediction == "v_prediction":
        return alpha * noise_BCHW - sigma * x0_BCHW  # arXiv 2202.00512, section 4
    return noise_BCHW - x0_BCHW  # arXiv 2209.03003, eq. 1


def to_x0(
    prediction: Prediction, x_BCHW: Tensor, output: Tensor, alpha: Coefficient, sigma: Coefficient
) -> Tensor:
    """Return the image that a prediction for x implies; alpha > 0 for ``epsilon``."""
    if prediction == "sample":
        return output
    if prediction == "epsilon":
        return (x_BCHW - sigma * output) / alpha
    if prediction == "v_prediction":
        return alpha * x_BCHW - sigma * output  # as alpha^2 + sigma^2 = 1
    return x_BCHW - sigma * output  # as alpha + sigma = 1


def from_x0(
    prediction: Prediction, x_BCHW: Tensor, x0_BCHW: Tensor, alpha: Coefficient, sigma: Coefficient
) -> Tensor:
    """Return the prediction for x that implies an image; sigma > 0, but for ``sample``."""
    if prediction == "sample":
        return x0_BCHW
    if prediction == "epsilon":
        return (x_BCHW - alpha * x0_BCHW) / sigma
    if prediction == "v_prediction":
        return (alpha * x_BCHW - x0_BCHW) / sigma
    return (x_BCHW - x0_BCHW) / sigma
