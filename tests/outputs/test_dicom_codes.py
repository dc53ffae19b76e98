"""Codes of labels: those of pydicom's own dictionary, and none where there is none."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
from pydicom.sr import _concepts_dict as dictionary

import monai_ext
from monai_ext.outputs.dicom_codes import codes_of, private_code

TABLE = json.loads((files("monai_ext.outputs") / "dicom_codes.json").read_text())
# pydicom 2.4 lists fewer concepts of SNOMED CT than pydicom 3.
VERTEBRAE = {entry["code"] for entry in TABLE["structures"] if entry["names"][0].startswith("vertebrae")}


def told(name: str) -> tuple[str, str | None]:
    codes = codes_of(name)
    return codes.kind.meaning, codes.side.meaning if codes.side else None


def test_every_code_is_in_pydicoms_dictionary_under_its_meaning() -> None:
    known: dict[str, set[str]] = {}
    for meanings in dictionary.concepts["SCT"].values():
        for code, (meaning, *_) in meanings.items():
            known.setdefault(code, set()).add(meaning.casefold())
    entries = [*TABLE["categories"].values(), *TABLE["sides"].values(), *TABLE["structures"]]
    of_snomed = [entry for entry in entries if "scheme" not in entry]
    assert len(of_snomed) > 60
    for entry in of_snomed:
        if entry["code"] in known or entry["code"] not in VERTEBRAE:
            assert entry["meaning"].casefold() in known[entry["code"]], entry


def test_no_name_stands_twice() -> None:
    names = [frozenset(name.split()) for entry in TABLE["structures"] for name in entry["names"]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("config", ["inference", "tiny"])
def test_every_label_of_the_bundle_has_a_code(config: str) -> None:
    folder = Path(monai_ext.bundle_path("hi_end_mae_ct_segmentation")) / "configs"
    labels = json.loads((folder / f"{config}.json").read_text())["labels"]
    for number, name in labels.items():
        if number != "0":
            assert not codes_of(name).kind.code.startswith("N-"), name
            assert codes_of(name).category.meaning == "Anatomical Structure"


@pytest.mark.parametrize(
    ("name", "meaning", "side"),
    [
        ("right kidney", "Kidney", "Right"),
        ("kidney_left", "Kidney", "Left"),
        ("LEFT ADRENAL GLAND", "Adrenal gland", "Left"),
        ("Lungs", "Lung", "Bilateral"),
        ("lung_middle_lobe_right", "Middle lobe of right lung", None),
        ("lung_upper_lobe_left", "Upper lobe of lung", "Left"),
        ("oesophagus", "Esophagus", None),
        ("vertebrae_L2", "L2 vertebra", None),
        ("candidate", "Lesion", None),
    ],
)
def test_spellings(name: str, meaning: str, side: str | None) -> None:
    assert told(name) == (meaning, side)


def test_a_lesion_is_no_anatomy() -> None:
    assert codes_of("candidate").category.meaning == "Morphologically Abnormal Structure"


@pytest.mark.parametrize("name", ["left liver", "liver segment 8", "thing", "kidney stone", "Ж", ""])
def test_what_is_not_known_gets_a_code_of_our_own(name: str) -> None:
    codes = codes_of(name)
    assert (codes.category.scheme, codes.kind.scheme, codes.side) == ("99MONAIEXT", "99MONAIEXT", None)
    assert len(codes.kind.code) <= 16


def test_our_own_codes_are_told_apart_and_last() -> None:
    assert private_code("A  thing") == private_code("A  thing")
    assert private_code("one").code != private_code("two").code
    assert private_code("thing").code == "N-5de94d691ae3"  # archives keep what was written once
