"""Figures of the second half: anchors, ROC curves, maps of each stage, and what candidates find."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_ext.demo.lesion_captions import organ_name
from monai_ext.demo.lesion_crops import SEEN, UNSEEN, LesionCrop
from monai_ext.demo.lesion_scores import (
    ADAPTED,
    PLAIN,
    RATES,
    SCORERS,
    LesionScores,
    plain_map,
    stage_1_map,
    stage_2_map,
)
from monai_ext.networks import AAClip, PromptTable
from monai_ext.transforms import ClipPicture


def anchor_figure(cosines: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw how alike the normal and the abnormal words of each class are, before and after stage 1."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(cosines))
    for offset, when, colour in ((-0.2, "before", "lightgrey"), (0.2, "after", "tab:blue")):
        axes.bar(places + offset, [values[when] for values in cosines.values()], 0.4, label=when, color=colour)
    axes.set_xticks(places, [organ_name(name) for name in cosines])
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set(ylabel="cosine", title="Normal against abnormal words (lower: better told apart)")
    axes.legend()
    return figure


def roc_figure(scores: LesionScores) -> Figure:
    """Draw mean ROC curves within the organ, of seen and of unseen organs."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (title, organs) in zip(figure.subplots(1, 2), _groups(), strict=True):
        for scorer in SCORERS[:-1]:  # the organ's mask is flat within the organ
            wide = 2.5 if scorer == ADAPTED else 1.2
            label = f"{scorer} ({scores.mean(scorer, 'organ', organs):.2f})"
            axes.plot(RATES, scores.mean_curve(scorer, organs), linewidth=wide, label=label)
        axes.plot([0, 1], [0, 1], color="lightgrey", linewidth=0.8)
        axes.set(title=title, xlabel="false positive rate, healthy pixels of the organ", ylabel="lesion pixels found")
        axes.legend(fontsize=7, loc="lower right")
    return figure


def stage_figure(model: AAClip, prompts: PromptTable, crops: Sequence[LesionCrop]) -> Figure:
    """Draw crops with their lesions outlined, and the maps before adaptation and after each stage."""
    show = ClipPicture(model.clip.image_size, model.clip.mean, model.clip.std)
    figure = Figure(figsize=(8.5, 2.1 * len(crops)), layout="constrained")
    for row, crop in zip(figure.subplots(len(crops), 4, squeeze=False), crops, strict=True):
        picture = show(crop.picture())[None]
        maps = [way(model, prompts, crop.organ, picture) for way in (plain_map, stage_1_map, stage_2_map)]
        _show(row[0], crop, f"{organ_name(crop.organ)}, lesion {crop.contrast_hu:+.0f} HU")
        for axes, values, title in zip(row[1:], maps, (PLAIN, "after stage 1", "after stage 2"), strict=True):
            axes.imshow(values, cmap="magma")
            axes.contour(crop.lesion, [0.5], colors="cyan", linewidths=0.8)
            axes.set_title(title, fontsize=8)
            axes.set_axis_off()
    return figure


def curve_figure(curve: Sequence[Mapping[str, Any]], at_threshold: Mapping[str, Any]) -> Figure:
    """Draw the share of planted lesions found against false candidates, with the calibrated threshold marked."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([p["false_per_volume"] for p in curve], [p["found"] for p in curve], "o-", markersize=3)
    axes.plot(
        at_threshold["false_per_volume"], at_threshold["found"], "r*", markersize=14, label="calibrated threshold"
    )
    axes.set(
        xlabel="false candidates in the volume", ylabel="planted lesions found", ylim=(-0.03, 1.03), title="Candidates"
    )
    axes.legend()
    return figure


def shown_crops(crops: Sequence[LesionCrop]) -> list[LesionCrop]:
    """Choose the first crop with a lesion of some seen and of every unseen organ."""
    wanted = (SEEN[0], SEEN[-1], *UNSEEN)
    found = (next((crop for crop in crops if crop.organ == organ and crop.contrast_hu), None) for organ in wanted)
    return [crop for crop in found if crop is not None]


def _groups() -> tuple[tuple[str, tuple[str, ...]], ...]:
    return (("Lesions of organs seen in training", SEEN), ("Lesions of organs never seen", UNSEEN))


def _show(axes: Axes, crop: LesionCrop, title: str) -> None:
    axes.imshow(crop.picture(), cmap="gray", vmin=0, vmax=255)
    axes.contour(crop.lesion, [0.5], colors="cyan", linewidths=0.8)
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()
