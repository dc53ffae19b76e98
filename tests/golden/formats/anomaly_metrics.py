"""The published scoring: arrays of labels and predictions, and the scores of each case."""

import math
from typing import Any

from torch import Tensor

from formats.comparison import Comparison, Tolerance
from formats.golden import Golden
from monai_ext.base import InputError
from monai_ext.metrics import published_image_scores, published_scores

TOLERANCES = (
    ("*.unrounded.*", Tolerance(1e-6)),
    ("*.combined_image_score", Tolerance(1e-6)),
)

_ARRAYS = ("pixel_pred", "pixel_label", "image_pred", "image_label")

# What scikit-learn and NumPy warn of where a score has no value, in the order in which they do.
_WARNINGS = (
    ("RuntimeWarning", ("pixel_scale", "image_scale")),
    ("UndefinedMetricWarning", ("pixel_auroc",)),
    ("UserWarning", ("pixel_ap",)),
)
_UNROUNDED = (("pixel_auc", "pixel_auroc"), ("pixel_ap",) * 2, ("image_auc", "image_auroc"), ("image_ap",) * 2)


def recognises(golden: Golden) -> bool:
    """Tell by the content: cases with domains, or the four arrays of each case."""
    if golden.tensors:
        return all(name.rpartition(".")[2] in _ARRAYS for name in golden.tensors)
    cases = golden.content.get("cases")
    return isinstance(cases, dict) and all(
        isinstance(scores, dict) and "combined_image_score" in scores
        for case in cases.values()
        for scores in case.values()
    )


def check(golden: Golden, compare: Comparison) -> None:
    """Score each case as published."""
    scores, arrays = (golden, _other(golden)) if not golden.tensors else (_other(golden), golden)
    if not golden.tensors:
        compare.words("sklearn")  # the version it was computed with
        for case, domains in scores.content["cases"].items():
            for domain in domains:
                _check_scores(f"cases.{case}.{domain}", domains[domain], _arrays(arrays, case), domain, compare)
        return
    for case in dict.fromkeys(name.rpartition(".")[0] for name in golden.tensors):
        compare.expect(*(f"{case}.{array}" for array in _ARRAYS))
        agree = _agrees(scores.content["cases"].get(case, {}), _arrays(arrays, case))
        for array in _ARRAYS:
            name = f"{case}.{array}"
            if agree:
                compare(name, golden.tensors[name])
            else:
                compare.fail(name, "the case's scores are not those of the file beside this one")


def published_percent(maps: Tensor, mask: Tensor, scores: Tensor, labels: Tensor, domain: str) -> dict[str, Any]:
    """Return the published table's row, with NaN in words as files store it."""
    row = published_scores(maps.numpy(), mask.numpy(), scores.numpy(), labels.numpy(), domain).percent()
    return {name: "nan" if math.isnan(value) else value for name, value in row.items()}


def _other(golden: Golden) -> Golden:
    for sibling in golden.siblings():
        if recognises(sibling) and bool(sibling.tensors) != bool(golden.tensors):
            cases = {name.rpartition(".")[0] for name in (sibling.tensors or golden.tensors)}
            if cases == set((golden.content or sibling.content)["cases"]):
                return sibling
    raise ValueError("the other half, scores or arrays, is not beside this file")


def _arrays(golden: Golden, case: str) -> list[Tensor]:
    return [golden.tensors[f"{case}.{array}"] for array in _ARRAYS]


def _check_scores(name: str, stored: dict[str, Any], arrays: list[Tensor], domain: str, compare: Comparison) -> None:
    maps, mask, images, labels = arrays
    combined = published_image_scores(maps.numpy(), images.numpy(), domain)
    compare(f"{name}.combined_image_score", ["nan" if math.isnan(v) else float(v) for v in combined])
    undefined: set[str] = set()
    try:
        found = published_scores(maps.numpy(), mask.numpy(), images.numpy(), labels.numpy(), domain)
    except InputError as error:
        # Whatever its name, a user catches it as what the published code raises.
        compare.expect(f"{name}.raises")
        compare(f"{name}.raises", next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"))
        compare(f"{name}.message", str(error.__cause__))
        undefined = {"pixel_scale" if maps.min() == maps.max() else "image_scale"}
        if "pixel_scale" in undefined:
            compare(f"{name}.unrounded", {})
        else:  # the pixels' scores are found before the images' fail
            pixels = published_scores(maps.numpy(), mask.numpy(), images.numpy(), labels.numpy(), "Medical")
            _compare_unrounded(name, {"pixel_auc": pixels.pixel_auroc, "pixel_ap": pixels.pixel_ap}, compare)
    else:
        undefined = set(found.undefined)
        compare.expect(*(f"{name}.result.{score}" for score in found.percent()))
        for score, value in published_percent(maps, mask, images, labels, domain).items():
            compare(f"{name}.result.{score}", value)
        defined = {word: getattr(found, field) for word, field in _UNROUNDED if field not in undefined}
        _compare_unrounded(name, defined, compare)
    compare(f"{name}.warnings", [word for word, causes in _WARNINGS if undefined & set(causes)])


def _compare_unrounded(name: str, values: dict[str, float], compare: Comparison) -> None:
    compare.expect(*(f"{name}.unrounded.{word}" for word in values))
    for word, value in values.items():
        compare(f"{name}.unrounded.{word}", value)


def _agrees(domains: dict[str, Any], arrays: list[Tensor]) -> bool:
    for domain, stored in domains.items():
        scratch = Comparison("", dict(_leaves(stored)), TOLERANCES)
        scratch.note = lambda _reason: None  # type: ignore[method-assign]
        _check_scores("case", stored, arrays, domain, scratch)
        if not all(line.ok for line in scratch.finish()):
            return False
    return bool(domains)


def _leaves(stored: dict[str, Any]) -> Any:
    from formats.golden import leaves

    return leaves(stored, "case")
