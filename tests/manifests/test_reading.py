"""Manifests are read whole; what is wrong with one is told by place, all of it counted."""

import json
import time
from dataclasses import replace

import pytest
from jsonschema import Draft7Validator
from monai.data import load_decathlon_datalist

from monai_ext.base import ManifestError
from monai_ext.base.files import UNSEEN
from monai_ext.manifests import (
    is_manifest,
    manifest_content,
    manifest_schema,
    read_datalist,
    read_manifest,
    read_shipped,
    sift_manifest,
    write_manifest,
)
from monai_ext.manifests.entries import entry_problem

ENTRY = {"id": "a", "image": "a.nii.gz", "dataset": "spleens"}
BAD_ENTRIES = {
    "no object": ("a.nii.gz", "manifest.form", "an entry is an object"),
    "misspelt": ({**ENTRY, "lable": "b.nii"}, "manifest.field", "'lable' is no key of an entry; correct it"),
    "no image": ({"id": "a", "dataset": "spleens"}, "manifest.field", "it has no image; every entry needs"),
    "label alone": (
        {"id": "a", "dataset": "spleens", "label": "b"},
        "manifest.label_alone",
        "a label without an image",
    ),
    "absolute": ({**ENTRY, "image": "/data/Doe^J/ct.nii"}, "manifest.outside_root", "path of its image ('ct.nii') is"),
    "parent": ({**ENTRY, "label": "x/../../ct.nii"}, "manifest.outside_root", "give it relative to the root"),
    "parent at the end": ({**ENTRY, "image": "x/.."}, "manifest.outside_root", "give it relative"),
    "backslash": ({**ENTRY, "image": "Doe^J\\ct.nii"}, "manifest.path", "path of its image ('ct.nii') is not"),
    "drive": ({**ENTRY, "image": "C:/ct.nii"}, "manifest.path", "drive letter"),
    "zero byte": ({**ENTRY, "image": "a\0.nii"}, "manifest.path", "control character"),
    "no UTF-8": ({**ENTRY, "image": "a\udcff.nii"}, "manifest.path", "('a_.nii') is not relative and plain"),
    "empty": ({**ENTRY, "image": ""}, "manifest.path", "give it relative"),
    "several": ({**ENTRY, "image": ["a.nii"]}, "manifest.image", "image is ['a.nii']; give it relative"),
    "id with a folder": ({**ENTRY, "id": "Doe/a"}, "manifest.id", "id is 'Doe/a'; give a plain name"),
    "hidden id": ({**ENTRY, "id": ".a"}, "manifest.id", "give a plain name"),
    "long id": ({**ENTRY, "id": "a" * 121}, "manifest.id", "at most 120 characters"),
    "line break after the id": ({**ENTRY, "id": "a\n"}, "manifest.id", "id is 'a\\n'; give a plain name"),
    "control character of 8 bits": ({**ENTRY, "id": "a\x9b31m"}, "manifest.id", "id is 'a\\x9b31m'; give a plain name"),
    "order of writing reversed": ({**ENTRY, "id": "a\u202eb"}, "manifest.id", "id is 'a\\u202eb'; give a plain name"),
    "no width": ({**ENTRY, "id": "a\u200bb"}, "manifest.id", "id is 'a\\u200bb'; give a plain name"),
    "no width, joined": ({**ENTRY, "group": "p\u2060"}, "manifest.group", "group is 'p\\u2060'; give"),
    "byte order mark": ({**ENTRY, "class_name": "\ufeffliver"}, "manifest.class_name", "class_name is '\\ufeffliver'"),
    "line break after the path": ({**ENTRY, "image": "a.nii\n"}, "manifest.path", "control character"),
    "line break after the patient": ({**ENTRY, "group": "p3\n"}, "manifest.group", "group is 'p3\\n'; give"),
    "line break after the checksum": ({**ENTRY, "sha256": "0f" * 32 + "\n"}, "manifest.sha256", "give 64 lower-case"),
    "number as id": ({**ENTRY, "id": 7}, "manifest.id", "id is 7; give a plain name"),
    "set": ({**ENTRY, "dataset": ["x"]}, "manifest.dataset", "dataset is ['x']; give the key"),
    "group": ({**ENTRY, "group": 3}, "manifest.group", "group is 3; give the patient's name in this list as text"),
    "checksum": ({**ENTRY, "sha256": "0F" * 32}, "manifest.sha256", "give 64 lower-case hexadecimal digits"),
    "negative": ({**ENTRY, "weight": -0.5}, "manifest.weight", "weight is -0.5; give a finite number from 0 on"),
    "weight as text": ({**ENTRY, "weight": "1"}, "manifest.weight", "weight is '1'; give a finite number"),
    "true": ({**ENTRY, "weight": True}, "manifest.weight", "weight is True; give a finite number"),
    "abnormal": ({**ENTRY, "abnormal": 2}, "manifest.abnormal", "abnormal is 2; give 0 for a normal picture"),
    "abnormal, true": ({**ENTRY, "abnormal": True}, "manifest.abnormal", "abnormal is True"),
}
GOOD_ENTRIES = {
    "least": ENTRY,
    "own key": {**ENTRY, "x_scanner": {"kVp": 120}},
    "dots within": {**ENTRY, "image": "a..b/c.nii", "label": "./..a/b.nii"},
    "letters": {**ENTRY, "id": "größe 5 (2)", "group": "München", "class_name": "Nuß"},
    "nothing weighs": {**ENTRY, "weight": 0, "abnormal": 1.0},
}


def test_everything_that_a_manifest_says_is_read(good, write_json):
    assert is_manifest(good)
    manifest = read_manifest(write_json(good))
    spleens, livers = manifest.datasets["spleens"], manifest.datasets["livers"]
    assert (spleens.title, spleens.licence, spleens.commercial_use) == ("Spleens", "CC-BY-4.0", "yes")
    assert (livers.title, livers.licence, livers.commercial_use) == ("livers", "unknown", "unknown")
    assert (spleens.evaluation, livers.evaluation) == (False, True)
    assert spleens.label_names == manifest.labels == {0: "background", 1: "spleen"}
    assert spleens.counts["labelled_train"].value == 41
    assert (spleens.facts["licence"].note, spleens.facts["licence"].source) == ("as of 2020", ("PAGE",))
    assert (spleens.contains[0].dataset, spleens.contains[0].severity) == ("livers", "low")
    assert (spleens.layout[0].label, spleens.layout[0].group) == ("labelsTr/{id}.nii.gz", None)
    second, third, fifth, seventh = manifest.entries
    assert (second.group, second.weight, second.split) == ("spleen_2", 1, "training")
    assert (third.patient, third.weight, third.label) == (("spleens", "p3"), 2.5, None)
    assert (fifth.patient, fifth.split, fifth.sha256) == (("livers", "p3"), "test", "0f" * 32)
    assert (seventh.class_name, seventh.abnormal) == ("liver", 1)


def test_what_is_written_is_read_again_the_same(good, write_json, tmp_path):
    manifest = read_manifest(write_json(good))
    write_manifest(tmp_path / "again.json", manifest)
    assert json.loads((tmp_path / "again.json").read_text()) == good
    assert read_manifest(tmp_path / "again.json") == manifest


def test_nothing_invalid_is_written(good, write_json, tmp_path):
    manifest = read_manifest(write_json(good))
    entries = [replace(manifest.entries[0], image="../a.nii"), *manifest.entries[1:]]
    with pytest.raises(ManifestError, match=r"training\[0\] \(spleen_2\): the path of its image"):
        write_manifest(tmp_path / "bad.json", replace(manifest, entries=entries))
    assert not (tmp_path / "bad.json").exists()


def test_monai_reads_a_manifest_as_a_datalist(good, write_json):
    path = write_json(good)
    first, second = load_decathlon_datalist(str(path), True, "training")
    assert first["image"] == str(path.parent / "imagesTr/2.nii.gz")
    assert first["label"] == str(path.parent / "labelsTr/2.nii.gz")
    assert second["dataset"] == "spleens"
    assert [entry.case for entry in read_datalist(path)] == ["spleen_2", "spleen_3", "liver 5", "x7"]


@pytest.mark.parametrize("name", BAD_ENTRIES)
def test_an_entry_that_cannot_be_is_told_by_its_place(good, write_json, name):
    entry, code, sentence = BAD_ENTRIES[name]
    good["training"].insert(1, entry)
    manifest, (problem,) = sift_manifest(write_json(good))
    assert [kept.id for kept in manifest.entries] == ["spleen_2", "spleen_3", "liver 5", "x7"]
    assert problem.code == code
    assert str(problem).startswith("training[1]")
    assert sentence in str(problem)
    assert "Doe^J" not in str(problem)
    with pytest.raises(ManifestError, match=r"^list\.json, training\[1\]"):
        read_manifest(write_json(good))


def test_no_number_is_no_weight(good, write_json):
    for value in (float("nan"), float("inf"), 10**400):
        good["training"][1]["weight"] = value
        with pytest.raises(
            ManifestError, match=r"training\[1\] \(spleen_3\): weight is (nan|inf|10+\.\.\.); give a finite"
        ):
            read_manifest(write_json(good))


def test_quick_rules_and_schema_agree():
    schema = manifest_schema()
    validator = Draft7Validator({**schema["definitions"]["entry"], "definitions": schema["definitions"]})
    for entry, _, sentence in BAD_ENTRIES.values():
        assert not validator.is_valid(entry), entry
        assert sentence in str(entry_problem(entry, "training[1]", ["spleens"]))
    for entry in GOOD_ENTRIES.values():
        assert validator.is_valid(entry), entry
        assert entry_problem(entry, "training[1]", ["spleens"]) is None, entry


def test_what_is_wrong_between_entries_is_told_for_each(good, write_json):
    good["training"].append({**ENTRY, "id": "Spleen_2"})
    good["training"].append({**ENTRY, "id": "liver_5b", "dataset": "livers", "group": "p3"})
    good["validation"] = [{**ENTRY, "id": "again", "image": "imagesTr/2.nii.gz", "dataset": "kidneys"}]
    good["unassigned"].append({**ENTRY, "id": "again", "image": "./imagesTr//2.nii.gz"})
    manifest, problems = sift_manifest(write_json(good))
    assert [problem.code for problem in problems] == [
        "manifest.dataset",
        "manifest.duplicate_id",
        "manifest.patient_in_two_splits",
        "manifest.image_in_two_splits",
    ]
    sentences = " ".join(map(str, problems))
    assert (
        "validation[0] (again): dataset 'kidneys' is not described in this file (it has livers, spleens)" in sentences
    )
    assert "training: the id 'Spleen_2' is given twice (first in training, as 'spleen_2')" in sentences
    assert "test (liver 5): patient 'p3' of livers is in training already (liver_5b)" in sentences
    assert "unassigned (again): image file is in training already (spleen_2)" in sentences
    assert len(manifest.entries) == 6
    with pytest.raises(ManifestError, match=r"^list\.json: 4 problems: validation.* \| and 1 more$"):
        read_manifest(write_json(good))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema_version": "2.0"}, r"schema_version is '2.0', but this package reads 1.x \(it writes 1.0\); install"),
        ({"schema_version": 1}, r"schema_version is '1', but"),
        ({"datasets": {}}, r"datasets: "),
        ({"datasets": []}, r"datasets: is list, not object"),
        ({"training": {"/data/Doe^J/ct.nii": 1}}, r"training: is dict, not array"),
        ({"Training": []}, r"the file: has 'Training', which is none of schema_version, name"),
        ({"name": "broken\n"}, r"name: 'broken\\n' does not match"),
        ({"name": "no name"}, r"name: 'no name' does not match"),
        ({"labels": {"spleen": 1}}, r"labels: "),
        ({"labels": {"0": "background", "00": "spleen"}}, r"labels: "),
    ],
)
def test_a_wrong_head_is_refused(good, write_json, change, sentence):
    with pytest.raises(ManifestError, match=rf"^list\.json.*{sentence}") as caught:
        read_manifest(write_json({**good, **change}))
    assert "Doe^J" not in str(caught.value)


def test_a_wrong_fact_is_told_by_its_place(good, write_json):
    good["datasets"]["spleens"]["commercial_use"]["value"] = "perhaps"
    del good["datasets"]["livers"]["licence"]["confidence"]
    with pytest.raises(
        ManifestError, match=r"2 problems: datasets.livers.licence: 'confidence' is a required"
    ) as caught:
        read_manifest(write_json(good))
    assert "datasets.spleens.commercial_use.value: 'perhaps' is not one of" in str(caught.value)


def test_a_source_that_is_not_there_is_told(good, write_json):
    good["datasets"]["spleens"]["contains"][0]["source"] = ["ELSEWHERE"]
    with pytest.raises(ManifestError, match=r"source 'ELSEWHERE' is named by a fact but missing from sources"):
        read_manifest(write_json(good))


def test_a_later_minor_version_may_say_more(good, write_json):
    good["schema_version"], good["further"] = "1.3", {"a": 1}
    good["datasets"]["livers"]["scanners"] = 3
    good["training"][0]["kVp"] = 120
    manifest = read_manifest(write_json(good))
    assert len(manifest.entries) == 4
    assert "further" not in manifest_content(manifest)


def test_a_datalist_is_no_manifest(write_json):
    datalist = {"training": [{"image": "a.nii"}]}
    assert not is_manifest(datalist)
    with pytest.raises(ManifestError, match=r"^list\.json: no schema_version, so it is no manifest"):
        read_manifest(write_json(datalist))
    with pytest.raises(ManifestError, match=r"^nonesuch: no manifest of that name is shipped; choose one of"):
        read_shipped("nonesuch")


def test_ten_thousand_entries_are_no_work_for_the_schema(good, write_json):
    # The general validator takes 30 times as long; the bound is loose, for machines are shared.
    good["training"] = [{**ENTRY, "id": f"s{n}", "image": f"i/{n}.nii.gz", "weight": 1.5} for n in range(10_007)]
    path = write_json(good)
    started = time.perf_counter()
    assert len(read_manifest(path).entries) == 10_009
    quick = time.perf_counter() - started
    validator = Draft7Validator({**manifest_schema()["definitions"]["entry"]})
    started = time.perf_counter()
    assert all(validator.is_valid(entry) for entry in good["training"][:1000])
    assert quick < 5 * (time.perf_counter() - started)


def test_the_schema_and_the_code_name_the_same_unseen_characters():
    schema = json.dumps(manifest_schema(), ensure_ascii=False)
    places = schema.count(r"\\x7f-\\x9f\\u200b")
    assert places == schema.count(UNSEEN.replace("\\", "\\\\")) == 4
