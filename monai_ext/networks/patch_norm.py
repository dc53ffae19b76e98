"""The target of masked reconstruction: voxels normalised within their patch."""

import torch
from torch import Tensor


def normalise_patches(patches: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Return ``(x - mean) / sqrt(variance + epsilon)`` of each patch, with the biased variance.

    Args:
        patches: voxels.
        epsilon: keeps constant patches (air, a clipped window) finite; published as 1e-6.

    Shape:
        ``(b, n, p) -> (b, n, p)``, at least float32
    """
    patches = _at_least_single(patches)
    centred = patches - patches.mean(dim=-1, keepdim=True)
    # A CPU takes six times as long over `var`.
    variance = torch.linalg.vector_norm(centred, dim=[-1], keepdim=True).square() / patches.shape[-1]
    return centred / (variance + epsilon).sqrt()


def denormalise_patches(prediction: Tensor, patches: Tensor, published: bool = False, epsilon: float = 1e-6) -> Tensor:
    """Undo :func:`normalise_patches` with the mean and variance of the true patches.

    Args:
        prediction: normalised voxels.
        patches: the true voxels of the same patches.
        published: use the published inverse, ``sqrt(unbiased variance) + epsilon``, which shrinks
            the prediction up to a thousandfold on constant patches.
        epsilon: that of :func:`normalise_patches`.

    Shape:
        both ``(b, n, p)`` ``-> (b, n, p)``, at least float32
    """
    prediction, patches = _at_least_single(prediction), _at_least_single(patches)
    mean = patches.mean(dim=-1, keepdim=True)
    if published:
        return prediction * (patches.var(dim=-1, keepdim=True).sqrt() + epsilon) + mean
    return prediction * (patches.var(dim=-1, keepdim=True, unbiased=False) + epsilon).sqrt() + mean


def _at_least_single(values: Tensor) -> Tensor:
    # Variances of nearly constant patches are lost in half precision.
    return values if values.dtype == torch.float64 else values.float()
