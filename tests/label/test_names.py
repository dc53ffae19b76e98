"""Ids and tags of clients before they become paths."""

from collections.abc import Callable
from enum import StrEnum

import pytest

from monai_ext.base import ManifestError
from monai_ext.label.names import ending_of, image_id, label_tag, series_uid, session_id


class Tag(StrEnum):
    FINAL = "final"


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (image_id, "phantom_test_00"),
        (image_id, "CT 3 mm (Lunge) ü"),
        (image_id, "a..b"),
        (label_tag, "final"),
        (label_tag, "heat-map_2"),
        (series_uid, "1.2.840.113619.2.55"),
        (session_id, "8f14e45f-ceea-467f-9575-1b2c3d4e5f60"),
    ],
)
def test_plain_ones_are_returned(check: Callable[[object], str], value: str) -> None:
    assert check(value) == value


@pytest.mark.parametrize(
    ("check", "values"),
    [
        (
            image_id,
            ["", ".", "..", ".hidden", "a/b", "../a", "a\\b", "a\0b", "a\nb", "x" * 201, "😀" * 51, None, 3, "\udcfc"],
        ),
        (label_tag, ["", "..", "a/b", "-x", "a b", "ä", "x" * 33, None, 3, "final\n"]),
        (series_uid, ["", "1..2", "1.2.", ".1", "1.2/..", "a.b", "1" * 65, None, 1.2, "1.2\n", "１.2"]),
        (session_id, ["", "..", "a" * 36, "8f14e45f-ceea-467f-9575-1b2c3d4e5f60/..", None]),
    ],
)
def test_others_are_refused(check: Callable[[object], str], values: list[object]) -> None:
    for value in values:
        with pytest.raises(ManifestError) as caught:
            check(value)
        assert len(str(caught.value)) < 200
        assert str(caught.value).isprintable()


def test_the_servers_own_tags_are_taken() -> None:
    assert label_tag(Tag.FINAL) == "final"


def test_uploads_end_like_volumes() -> None:
    assert ending_of("Scan.NII.GZ", (".nii.gz", ".nii")) == ".nii.gz"
    for name in ("x.py", "x.nii.gz.sh", "", None):
        with pytest.raises(ManifestError, match=r"ends in none of \.nii\.gz"):
            ending_of(name, (".nii.gz",))
