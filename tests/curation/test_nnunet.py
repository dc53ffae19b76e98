"""Folders in nnU-Net's form come in and go out, and come back the same."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from monai_ext.base import ManifestError, WriteError
from monai_ext.curation import export_nnunet, import_nnunet
from monai_ext.manifests import read_manifest, write_manifest

SPLEEN = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "spleen": 1}, "file_ending": ".nii.gz"}


@pytest.fixture
def raw(tmp_path):
    """``Dataset009_Spleen``: three labelled cases, two of test, one of them labelled, and junk."""
    folder = tmp_path / "raw" / "Dataset009_Spleen"
    for name in (
        *(f"imagesTr/spleen_{n}_0000.nii.gz" for n in (2, 3, 11)),
        *(f"labelsTr/spleen_{n}.nii.gz" for n in (2, 3, 11)),
        *(f"imagesTs/spleen_{n}_0000.nii.gz" for n in (1, 7)),
        "labelsTs/spleen_7.nii.gz",
        "imagesTr/._spleen_2_0000.nii.gz",
        "imagesTr/notes.txt",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    (folder / "dataset.json").write_text(json.dumps({**SPLEEN, "numTraining": 3, "licence": "CC-BY-SA 4.0"}))
    return folder


def cases(manifest):
    return {(entry.id, entry.split, entry.label is not None) for entry in manifest.entries}


def test_a_folder_becomes_a_manifest(raw, tmp_path):
    result = import_nnunet(raw, tmp_path / "raw" / "list.json")
    manifest = read_manifest(tmp_path / "raw" / "list.json")
    assert manifest == result.manifest
    assert cases(manifest) == {
        *((f"spleen_{n}", "training", True) for n in (2, 3, 11)),
        ("spleen_1", "test", False),
        ("spleen_7", "test", True),
    }
    assert manifest.entries[0].image == "Dataset009_Spleen/imagesTr/spleen_11_0000.nii.gz"
    assert manifest.labels == {0: "background", 1: "spleen"}
    card = manifest.datasets["spleen"]
    assert (card.licence, card.confidence("licence"), card.commercial_use) == ("CC-BY-SA 4.0", "medium", "unknown")
    assert card.value("modality") == "CT"
    assert not result.left_out


def test_a_shipped_data_set_lends_its_licence(raw):
    manifest = import_nnunet(raw, raw / "manifest.json", dataset="msd_spleen").manifest
    assert {entry.dataset for entry in manifest.entries} == {"msd_spleen"}
    assert manifest.datasets["msd_spleen"].licence == "CC-BY-SA-4.0"
    with pytest.raises(
        ManifestError, match=r"^spleen: no data set of that id is shipped; leave --dataset out, or give"
    ):
        import_nnunet(raw, raw / "manifest.json", dataset="spleen")


@pytest.mark.parametrize("copy", [False, True])
def test_what_goes_out_comes_back_the_same(raw, tmp_path, copy):
    first = import_nnunet(raw, raw / "manifest.json", dataset="msd_spleen").manifest
    held = [replace(one, split="validation") if one.id == "spleen_3" else one for one in first.entries]
    write_manifest(raw / "manifest.json", replace(first, entries=tuple(held)))
    folder = tmp_path / "nnUNet_raw" / "Dataset123_SPLEEN"
    result = export_nnunet(raw / "manifest.json", folder, copy=copy)
    assert (result.training, result.validation, result.test, result.left_out) == (2, 1, 2, {})
    again = import_nnunet(folder, folder / "manifest.json", dataset="msd_spleen").manifest
    assert cases(again) == {(one.id, one.split, one.label is not None) for one in held}
    assert (again.labels, set(again.datasets)) == (first.labels, set(first.datasets))
    told = json.loads((folder / "dataset.json").read_text())
    assert {key: told[key] for key in SPLEEN} == SPLEEN
    assert told["numTraining"] == len(list((folder / "imagesTr").iterdir())) == 3
    image = folder / "imagesTr" / "spleen_2_0000.nii.gz"
    assert image.is_symlink() != copy
    assert image.read_bytes() == b"imagesTr/spleen_2_0000.nii.gz"
    assert [path.name for path in folder.parent.iterdir()] == ["Dataset123_SPLEEN"]
    if not copy:
        (tmp_path / "raw").rename(tmp_path / "moved_raw")
        assert not image.exists()
        (tmp_path / "moved_raw").rename(tmp_path / "raw")
        os.rename(tmp_path, tmp_path.with_name(tmp_path.name + "_moved"))  # both together
        assert (tmp_path.with_name(tmp_path.name + "_moved") / image.relative_to(tmp_path)).exists()


def test_what_cannot_be_trained_on_is_left_out_and_counted(raw, tmp_path):
    (raw / "labelsTr/spleen_3.nii.gz").rename(raw / "labelsTr/spleen_99.nii.gz")
    (raw / "imagesTr/-a_0000.nii.gz").write_bytes(b"")
    result = import_nnunet(raw, raw / "manifest.json")
    assert result.left_out == {
        "its name cannot be an id": ["-a"],
        "an image of imagesTr without a label": ["spleen_3"],
        "a label without an image": ["spleen_99"],
    }
    entries = result.manifest.entries
    changed = [replace(entries[0], split="unassigned"), replace(entries[1], label=None), *entries[2:]]
    write_manifest(raw / "manifest.json", replace(result.manifest, entries=tuple(changed)))
    with pytest.raises(ManifestError, match="no labelled scan in training; nnU-Net trains on labels"):
        export_nnunet(raw / "manifest.json", tmp_path / "Dataset001_A")
    changed = [replace(entries[0], split="unassigned"), *entries[1:]]
    write_manifest(raw / "manifest.json", replace(result.manifest, entries=tuple(changed)))
    assert export_nnunet(raw / "manifest.json", tmp_path / "Dataset001_A").left_out == {
        "it is in no split": [entries[0].id]
    }


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"file_ending": None}, "no file_ending such as '.nii.gz'"),
        ({"file_ending": "/../x"}, "no file_ending such as '.nii.gz'"),
        ({"channel_names": ["CT"]}, "no channel_names such as"),
        ({"channel_names": {"1": "T1"}}, r"no channel 0; it has 1 \(T1\)"),
        ({"channel_names": {"9" * 5000: "CT"}}, "no channel_names such as"),
        ({"channel_names": {"0": "C\nT"}}, r"channel 0 is called 'C\\nT'; give it a name"),
        ({"labels": {}}, "no labels such as"),
        ({"labels": {"background": 0, "liver": 1, "spleen": 1}}, "label 1 is called 'liver' and 'spleen'; give each"),
        ({"labels": {"background": 0, "liver": 1.0}}, r"label 'liver' is '1\.0'; give a whole number from 0"),
        ({"labels": {"background": 0, "liver": -1}}, "label 'liver' is '-1'; give a whole number from 0"),
        ({"labels": {"background": "0", "liver": "1"}}, "label 'background' is '0'; give a whole number"),
        ({"labels": {"background": 0, "": 1}}, "label 1 is called ''; give it a name"),
    ],
)
def test_a_wrong_dataset_json_is_one_sentence(raw, change, sentence):
    (raw / "dataset.json").write_text(json.dumps({**SPLEEN, **change}))
    with pytest.raises(ManifestError, match=rf"^dataset.json: {sentence}"):
        import_nnunet(raw, raw / "manifest.json")


def test_a_wrong_folder_is_one_sentence(raw, tmp_path):
    with pytest.raises(ManifestError, match=r"^raw: no dataset.json in it; give a folder in nnU-Net's form"):
        import_nnunet(raw.parent, raw / "manifest.json")
    for content in ("[]", "[" * 100_000, '[{"val": "spleen_2"}]', '[{"val": [["spleen_2"]]}]'):
        (raw / "splits_final.json").write_text(content)
        with pytest.raises(ManifestError, match=r"^splits_final.json: not a list such as"):
            import_nnunet(raw, raw / "manifest.json")
    (raw / "splits_final.json").unlink()
    (tmp_path / "lists").mkdir()
    with pytest.raises(ManifestError, match=r"^Dataset009_Spleen: its scans lie outside the root"):
        import_nnunet(raw, tmp_path / "lists" / "manifest.json")
    (raw / "dataset.json").write_text(json.dumps({**SPLEEN, "file_ending": ".nrrd"}))
    with pytest.raises(ManifestError, match=r"no image such as imagesTr/CASE_0000.nrrd; check file_ending"):
        import_nnunet(raw, raw / "manifest.json")


def test_cases_that_only_the_split_names_are_told(raw):
    (raw / "splits_final.json").write_text(json.dumps([{"train": [], "val": ["spleen_2", "spleen_3", "liver_1"]}]))
    (raw / "labelsTr/spleen_3.nii.gz").unlink()
    result = import_nnunet(raw, raw / "manifest.json")
    assert result.left_out == {
        "an image of imagesTr without a label": ["spleen_3"],
        "named by splits_final.json, but no case of imagesTr": ["liver_1"],
    }
    assert [entry.id for entry in result.manifest.entries if entry.split == "validation"] == ["spleen_2"]


def test_a_list_of_data_sets_is_no_data_set(raw):
    with pytest.raises(ManifestError, match=r"^lists/voco_10k: no data set of that id is shipped"):
        import_nnunet(raw, raw / "manifest.json", dataset="lists/voco_10k")


def test_an_empty_licence_is_none(raw):
    (raw / "dataset.json").write_text(json.dumps({**SPLEEN, "licence": ""}))
    assert import_nnunet(raw, raw / "manifest.json").manifest.datasets["spleen"].licence == "unknown"


def test_the_list_of_cases_replaces_no_file_of_nnunet(raw):
    with pytest.raises(ManifestError, match=r"^dataset.json: a file that is no manifest is there already"):
        import_nnunet(raw, raw / "dataset.json")


def test_label_0_is_the_background_whatever_it_is_called(raw, tmp_path):
    exported(raw, tmp_path, labels={0: "air", 1: "spleen"})
    told = json.loads((tmp_path / "Dataset001_A" / "dataset.json").read_text())
    assert told["labels"] == {"background": 0, "spleen": 1}


def test_a_place_where_no_folder_can_be_made_is_told(raw):
    import_nnunet(raw, raw / "manifest.json")
    with pytest.raises(WriteError, match=r"^(Dataset001_A: could not|proc: cannot) be written.*; .*choose a writable"):
        export_nnunet(raw / "manifest.json", "/proc/Dataset001_A")  # where even root makes no folder


def test_regions_have_no_names_and_other_channels_can_be_taken(raw):
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    (raw / "dataset.json").write_text(
        json.dumps({**SPLEEN, "channel_names": {"0": "T1", "1": "FLAIR"}, "labels": labels})
    )
    (raw / "imagesTr/spleen_2_0001.nii.gz").write_bytes(b"")
    result = import_nnunet(raw, raw / "manifest.json", channel=1)
    assert [entry.image for entry in result.manifest.entries] == ["imagesTr/spleen_2_0001.nii.gz"]
    assert result.manifest.labels == {0: "background", 2: "core"}
    with pytest.raises(
        ManifestError, match=r"manifest.json: label 1 has no name, and nnU-Net takes labels without gaps"
    ):
        export_nnunet(raw / "manifest.json", raw.parent / "Dataset001_A")


def exported(raw: Path, tmp_path: Path, **changes: object) -> None:
    manifest = import_nnunet(raw, raw / "manifest.json").manifest
    write_manifest(raw / "manifest.json", replace(manifest, **changes))
    export_nnunet(raw / "manifest.json", tmp_path / "Dataset001_A")


def test_an_export_that_cannot_be_is_one_sentence_and_leaves_nothing(raw, tmp_path):
    manifest = import_nnunet(raw, raw / "manifest.json").manifest
    first, *others = manifest.entries
    with pytest.raises(ManifestError, match=r"^spleen_11: nnU-Net takes files of one ending .* this is .mha and"):
        moved = replace(first, image="a.mha")
        exported(raw, tmp_path, entries=(*others[:1], moved, *others[1:]))
    with pytest.raises(ManifestError, match=r"^spleen_11: a file of it is not there; check the list with"):
        exported(raw, tmp_path, entries=(replace(first, label="labelsTr/none.nii.gz"), *others))
    with pytest.raises(ManifestError, match="two labels have one name"):
        exported(raw, tmp_path, labels={1: "a", 2: "a"})
    card = manifest.datasets["spleen"]
    bare = {"spleen": replace(card, facts={k: v for k, v in card.facts.items() if k != "label_names"})}
    with pytest.raises(ManifestError, match="the labels of spleen have no names, or not the same; put them under"):
        exported(raw, tmp_path, labels=None, datasets=bare)
    with pytest.raises(ManifestError, match=r"^Spleen: nnU-Net's folders are called like Dataset123_NAME"):
        export_nnunet(raw / "manifest.json", tmp_path / "Spleen")
    with pytest.raises(ManifestError, match=r"^Dataset009_Spleen: it is there already; give another name"):
        export_nnunet(raw / "manifest.json", raw)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    from monai_ext.cli.app import main

    monkeypatch.setattr(sys, "argv", ["monai_ext", "manifest", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_both_commands_tell_what_they_did(raw, tmp_path, monkeypatch, capsys):
    listed, folder = str(raw / "manifest.json"), str(tmp_path / "Dataset042_A")
    assert run(monkeypatch, "import-nnunet", str(raw), listed, "--dataset", "msd_spleen") == 0
    assert "3 training, 2 test" in capsys.readouterr().out
    assert run(monkeypatch, "export-nnunet", listed, folder) == 0
    assert "nnUNetv2_plan_and_preprocess -d 42" in capsys.readouterr().out
    assert run(monkeypatch, "export-nnunet", listed, folder) == 2
    assert "Dataset042_A: it is there already" in capsys.readouterr().err
    (raw / "labelsTr/spleen_3.nii.gz").unlink()
    assert run(monkeypatch, "import-nnunet", str(raw), listed) == 1
    assert "left out: 1: an image of imagesTr without a label (spleen_3)" in capsys.readouterr().err
