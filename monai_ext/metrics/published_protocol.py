"""How AA-CLIP was scored when published, and a score of images that looks at one image only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.utils import assert_all_finite

from monai_ext.base import SettingError

NAN = float("nan")
_DOMAINS = ("Industrial", "Medical")


@dataclass(frozen=True)
class PublishedScores:
    """Fractions as the published code finds them, before it rounds.

    Attributes:
        pixel_auroc: NaN where all pixels are of one kind.
        pixel_ap: 0 without an abnormal pixel.
        image_auroc: 0 where all images are of one kind.
        image_ap: 0 where all images are of one kind.
        undefined: which of these, or of the scalings before them, had no value: ``"pixel_scale"``,
            ``"image_scale"``, ``"pixel_auroc"``, ``"pixel_ap"``, ``"image_auroc"``, ``"image_ap"``.
    """

    pixel_auroc: float
    pixel_ap: float
    image_auroc: float
    image_ap: float
    undefined: tuple[str, ...]

    def percent(self) -> dict[str, float]:
        """Return what the published tables hold: percent, rounded to two decimals, by the tables' names."""
        named = {
            "pixel AUC": self.pixel_auroc,
            "pixel AP": self.pixel_ap,
            "image AUC": self.image_auroc,
            "image AP": self.image_ap,
        }
        return {name: float(np.round(value, 4) * 100) for name, value in named.items()}


def published_scores(
    maps: ArrayLike, masks: ArrayLike, detections: ArrayLike, labels: ArrayLike, domain: str
) -> PublishedScores:
    """Score the images of one class as published: everything scaled over the whole set first.

    The score of an image thus depends on the other images. For comparison with published tables only; elsewhere
    :class:`PixelScores` and :func:`auroc` say NaN where this says 0.

    Args:
        maps: of anomaly, ``(b, h, w)``.
        masks: 0 or 1, ``(b, h, w)`` or ``(b, 1, h, w)``.
        detections: scores of images, ``(b,)``.
        labels: 0 or 1, ``(b,)``.
        domain: ``"Industrial"`` or ``"Medical"``.

    Raises:
        SettingError: an unknown domain, or a set that is all alike, which scaling turns into NaN.
    """
    pixels, truth = np.asarray(maps), np.asarray(masks).ravel()
    images, kinds = published_image_scores(maps, detections, domain), np.asarray(labels)
    scaled = min_max(pixels).ravel()
    undefined = [
        name
        for name, values in (("pixel_scale", pixels), ("image_scale", np.asarray(detections)))
        if not np.isfinite(min_max(values)).all()
    ]
    _check_finite("maps", scaled)
    pixel_auroc, pixel_ap = NAN, 0.0
    if len(np.unique(truth)) == 2:
        pixel_auroc = float(roc_auc_score(truth, scaled))
    else:
        undefined.append("pixel_auroc")
    if truth.any():
        pixel_ap = float(average_precision_score(truth, scaled))
    else:
        undefined.append("pixel_ap")
    if len(np.unique(kinds)) < 2:
        return PublishedScores(pixel_auroc, pixel_ap, 0.0, 0.0, (*undefined, "image_auroc", "image_ap"))
    _check_finite("detections", images)
    image_auroc, image_ap = roc_auc_score(kinds, images), average_precision_score(kinds, images)
    return PublishedScores(pixel_auroc, pixel_ap, float(image_auroc), float(image_ap), tuple(undefined))


def published_image_scores(maps: ArrayLike, detections: ArrayLike, domain: str) -> np.ndarray:
    """Return the published score of each image, ``(b,)``; NaN where all maps or detections are alike.

    Medical: the largest value of the image's map, scaled over the set. Industrial: half of that, and half the
    detection, scaled over the set.

    Args:
        maps: of anomaly, ``(b, h, w)``.
        detections: scores of images, ``(b,)``.
        domain: ``"Industrial"`` or ``"Medical"``.

    Raises:
        SettingError: an unknown domain.
    """
    scaled = min_max(np.asarray(maps))
    largest = scaled.reshape(len(scaled), -1).max(axis=1)
    return largest if _is_medical(domain) else 0.5 * largest + 0.5 * min_max(np.asarray(detections))


def image_scores(maps: ArrayLike, detections: ArrayLike, domain: str, levels: int) -> np.ndarray:
    """Score each image by itself, 0 to 1, ``(b,)``.

    Medical: the largest value of its map, as the probability that a mean level would give it. Industrial: half of
    that, and half the detection.

    Args:
        maps: of anomaly, summed over the levels, ``(b, h, w)``.
        detections: scores of images, ``(b,)``.
        domain: ``"Industrial"`` or ``"Medical"``.
        levels: how many were summed.

    Raises:
        SettingError: an unknown domain.
    """
    values = np.asarray(maps, dtype=np.float64)
    largest = values.reshape(len(values), -1).max(axis=1) / levels
    # A level's map is half the difference of two logits plus a half; their softmax is this.
    likely = 1 / (1 + np.exp(1 - 2 * largest))
    return likely if _is_medical(domain) else (likely + np.asarray(detections, dtype=np.float64)) / 2


def min_max(values: np.ndarray) -> np.ndarray:
    """Scale to 0 to 1 over all values, unless the largest is exactly 1, as published; NaN where all are alike."""
    low, high = values.min(), values.max()
    if high == 1:
        return values
    with np.errstate(invalid="ignore"):
        return (values - low) / (high - low)


def _is_medical(domain: str) -> bool:
    if domain not in _DOMAINS:
        raise SettingError(
            f"domain: {domain!r} has no image score; choose one of {', '.join(_DOMAINS)}", code="setting.domain"
        )
    return domain == "Medical"


def _check_finite(name: str, values: np.ndarray) -> None:
    try:
        assert_all_finite(values)
    except ValueError as error:
        raise SettingError(
            f"{name}: all are alike or some are NaN, so the published scaling has no value; use PixelScores",
            code="setting.score",
        ) from error
