import json
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from monai_ext.base import SettingError
from monai_ext.metrics import auroc, image_scores, published_image_scores, published_scores


@pytest.fixture(scope="module")
def recorded(shared_goldens: Path):
    folder = shared_goldens / "aa_clip"
    return load_file(folder / "metrics.safetensors"), json.loads((folder / "metrics.json").read_text())["cases"]


def test_recorded_scores(recorded):
    arrays, cases = recorded
    for case, domains in cases.items():
        given = [arrays[f"{case}.{name}"] for name in ("pixel_pred", "pixel_label", "image_pred", "image_label")]
        for domain, expected in domains.items():
            if "raises" in expected:
                with pytest.raises(ValueError, match=r"maps|detections: all are alike"):
                    published_scores(*given, domain)
                continue
            found = published_scores(*given, domain)
            words = {"image_auc": "image_auroc", "pixel_auc": "pixel_auroc"}
            for name, value in expected["unrounded"].items():
                assert getattr(found, words.get(name, name)) == pytest.approx(value, abs=1e-6)
            rows = {name: float(value) for name, value in expected["result"].items()}
            assert found.percent() == pytest.approx(rows, abs=1e-9, nan_ok=True)


def test_a_set_of_one_kind_is_0_as_published_and_nan_elsewhere():
    maps, detections = np.random.default_rng(0).random((3, 5, 7)), np.array([0.1, 0.5, 0.9])
    found = published_scores(maps, np.zeros((3, 5, 7)), detections, np.zeros(3), "Medical")
    assert math.isnan(found.pixel_auroc)
    assert (found.pixel_ap, found.image_auroc, found.image_ap) == (0, 0, 0)
    assert found.undefined == ("pixel_auroc", "pixel_ap", "image_auroc", "image_ap")
    assert math.isnan(auroc(np.zeros(3), detections))


def test_the_published_image_score_depends_on_the_set():
    maps, detections = np.random.default_rng(0).random((3, 5, 7)), np.array([0.1, 0.5, 0.9])
    alone = published_image_scores(maps[:2], detections[:2], "Industrial")
    assert not np.allclose(published_image_scores(maps, detections, "Industrial")[:2], alone)
    assert np.allclose(
        image_scores(maps, detections, "Industrial", 4)[:2], image_scores(maps[:2], detections[:2], "Industrial", 4)
    )


def test_a_score_of_one_image_is_the_probability_of_its_largest_value():
    logits = np.array([-1.5, 0.5])  # of the abnormal over the normal state, in each of 4 levels
    maps = np.full((2, 3, 3), -9.0)
    maps[:, 1, 2] = 4 * (logits + 1) / 2
    expected = 1 / (1 + np.exp(-logits))
    detections = np.array([0.2, 0.6])
    assert image_scores(maps, detections, "Medical", 4) == pytest.approx(expected)
    assert image_scores(maps, detections, "Industrial", 4) == pytest.approx((expected + detections) / 2)


def test_an_unknown_domain_is_refused():
    for score in (published_image_scores, lambda *a: image_scores(*a, 4)):
        with pytest.raises(SettingError, match=r"domain: 'Food' has no image score; choose one of Industrial, Medical"):
            score(np.zeros((1, 2, 2)), np.zeros(1), "Food")
