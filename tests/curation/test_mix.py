"""A mix holds what was asked for, tells what it left out, and warns of what leaks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from monai.data import load_decathlon_datalist

from monai_ext.base import ManifestError, SettingError
from monai_ext.curation import MixPart, mix_manifests
from monai_ext.manifests import Fact, read_manifest, write_manifest


def weight_of(summary, dataset, split="training"):
    return sum(e.weight for e in summary.manifest.entries if e.dataset == dataset and e.split == split)


def test_paths_start_from_the_root_of_the_mix_and_monai_reads_it(listing, tmp_path):
    parts = [
        MixPart(listing("msd_spleen", 3, "spleen", label="labelsTr/spleen_{number}.nii.gz")),
        MixPart(listing("lidc", 2, "lung", image="LIDC-{number}/a/b/")),
    ]
    summary = mix_manifests(parts, tmp_path / "mix.json")
    assert read_manifest(tmp_path / "mix.json") == summary.manifest
    assert [entry.image for entry in summary.manifest.entries] == [
        *(f"msd_spleen/imagesTr/spleen_{number}.nii.gz" for number in (1, 2, 3)),
        *(f"lidc/LIDC-{number}/a/b/" for number in (1, 2)),
    ]
    assert summary.manifest.entries[0].label == "msd_spleen/labelsTr/spleen_1.nii.gz"
    first = load_decathlon_datalist(str(tmp_path / "mix.json"), True, "training")[0]
    assert first["image"] == str(tmp_path / "msd_spleen/imagesTr/spleen_1.nii.gz")
    (tmp_path / "lists").mkdir()
    below = mix_manifests(parts, tmp_path / "lists" / "mix.json", root=tmp_path)
    assert below.manifest == summary.manifest


def test_a_mix_is_the_same_each_time(listing, tmp_path):
    parts = [MixPart(listing("lidc", 5, "a"), "30%"), MixPart(listing("chaos_ct", 7, "a"), "1.7")]
    mix_manifests(parts, tmp_path / "mix.json")
    first = (tmp_path / "mix.json").read_bytes()
    mix_manifests(parts, tmp_path / "mix.json")
    assert (tmp_path / "mix.json").read_bytes() == first


def test_a_data_set_outside_the_root_is_told_without_its_folder(listing, tmp_path):
    path = listing("lidc", 2, "lung", folder="Doe_Jane")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "link").symlink_to(path.parent)
    with pytest.raises(ManifestError, match=r"^manifest.json: its scans lie outside the root of the mix; give --root"):
        mix_manifests([MixPart(path)], tmp_path / "lists" / "mix.json")
    with pytest.raises(ManifestError, match="links that lead out of it do not count") as caught:
        mix_manifests([MixPart(tmp_path / "lists" / "link" / "manifest.json")], tmp_path / "lists" / "mix.json")
    assert "Doe" not in str(caught.value)
    assert not (tmp_path / "lists" / "mix.json").exists()


def test_ids_and_patients_are_told_apart(listing, tmp_path):
    parts = [
        MixPart(listing("lidc", 2, "case", group="p{number}")),
        MixPart(listing("chaos_ct", 2, "Case", group="p{number}", split="test")),
        MixPart(listing("chaos_ct", 1, "case", folder="again", group="q")),
    ]
    entries = mix_manifests(parts, tmp_path / "mix.json").manifest.entries
    assert len({entry.id.casefold() for entry in entries}) == 5
    assert [entry.id for entry in entries if entry.dataset == "lidc"] == ["lidc-case_1", "lidc-case_2"]
    assert next(entry for entry in entries if entry.group == "q").id.startswith("chaos_ct-case_1-")
    assert {entry.group for entry in entries} == {"lidc:p1", "lidc:p2", "chaos_ct:p1", "chaos_ct:p2", "q"}
    assert [entry.split for entry in entries] == ["training"] * 3 + ["test"] * 2


def test_a_patient_stays_one_across_parts(listing, tmp_path):
    parts = [
        MixPart(listing("lidc", 1, "a", group="p")),
        MixPart(listing("lidc", 1, "b", folder="more", group="p", split="test")),
    ]
    with pytest.raises(ManifestError, match=r"^mix.json, test \(b_1\): patient 'p' of lidc is in training already"):
        mix_manifests(parts, tmp_path / "mix.json")
    assert not (tmp_path / "mix.json").exists()


def test_a_scan_of_two_lists_is_taken_once(listing, tmp_path):
    path = listing("lidc", 3, "a")
    summary = mix_manifests([MixPart(path), MixPart(path)], tmp_path / "mix.json")
    assert (len(summary.manifest.entries), summary.twice) == (3, 3)


def test_a_scan_is_the_same_however_its_path_is_written(listing, tmp_path):
    plain = listing("lidc", 3, "a")
    parts = [MixPart(plain), MixPart(listing("lidc", 3, "b", "other", image="./imagesTr//a_{number}.nii.gz"), None)]
    parts[1] = replace(parts[1], root=plain.parent)
    summary = mix_manifests(parts, tmp_path / "mix.json")
    assert (len(summary.manifest.entries), summary.twice) == (3, 3)


def test_a_label_that_only_a_later_part_has_is_kept(listing, tmp_path):
    bare = listing("lidc", 2, "a")
    kinds = [listing("lidc", 2, "a", name, label=f"{name}/a_{{number}}.nii.gz") for name in ("lungs", "nodules")]
    parts = [MixPart(path, root=bare.parent) for path in (bare, *kinds)]
    summary = mix_manifests(parts, tmp_path / "mix.json")
    assert [entry.label for entry in summary.manifest.entries] == [f"lidc/lungs/a_{n}.nii.gz" for n in (1, 2)]
    assert "2 scans have another label in another part; that of the first part given is kept" in summary.notes


def test_a_scan_in_two_splits_is_told_by_the_id_that_its_owner_gave(listing, tmp_path):
    path = listing("lidc", 1, "a")
    again = replace(MixPart(listing("lidc", 1, "a", "test", split="test")), root=path.parent)
    with pytest.raises(ManifestError, match=r"^a_1: its image is in training of one part and in test of another; keep"):
        mix_manifests([MixPart(path), again], tmp_path / "mix.json")
    assert len(mix_manifests([MixPart(path), again], tmp_path / "mix.json", splits=["test"]).manifest.entries) == 1


def test_two_folders_that_number_their_patients_alike_are_told(listing, tmp_path):
    parts = [MixPart(listing("lidc", 2, f"scan{n}", f"centre_{n}", group="p{number}")) for n in (1, 2)]
    (note,) = mix_manifests(parts, tmp_path / "mix.json").notes
    assert note.startswith("2 patients are named by several parts, such as that of scan1_1, and each is taken for one;")


def test_a_folder_that_is_not_there_is_told(listing, tmp_path):
    part = MixPart(listing("lidc", 1, "a"))
    for some, root in (([replace(part, root=tmp_path / "none")], None), ([part], tmp_path / "none")):
        with pytest.raises(ManifestError, match=r"^none: no such folder; give the one that the paths start from"):
            mix_manifests(some, tmp_path / "mix.json", root=root)


def test_one_file_is_of_one_data_set(listing, tmp_path):
    parts = [MixPart(listing("lidc", 1, "a")), MixPart(listing("luna16", 1, "a"), root=tmp_path / "lidc")]
    with pytest.raises(ManifestError, match=r"^a_1: one file is of lidc here and of luna16 there"):
        mix_manifests(parts, tmp_path / "mix.json")


def test_factors_multiply_and_shares_divide_each_split(listing, tmp_path):
    parts = [
        MixPart(listing("lidc", 5, "a"), "30%"),
        MixPart(listing("lidc", 3, "v", folder="held", split="validation"), "50%"),
        MixPart(listing("chaos_ct", 7, "b", weight=2.0), "1.5"),
        MixPart(listing("stoic21", 2, "c")),
    ]
    summary = mix_manifests(parts, tmp_path / "mix.json")
    assert weight_of(summary, "chaos_ct") == pytest.approx(7 * 2 * 1.5)
    assert weight_of(summary, "stoic21") == 2
    assert weight_of(summary, "lidc") / (weight_of(summary, "lidc") + 23) == pytest.approx(0.3, rel=1e-5)
    assert weight_of(summary, "lidc", "validation") == pytest.approx(3)  # alone in its split


def test_shares_alone_keep_their_ratio(listing, tmp_path):
    parts = [MixPart(listing("lidc", 5, "a"), "25%"), MixPart(listing("chaos_ct", 2, "b"), "50%")]
    summary = mix_manifests(parts, tmp_path / "mix.json")
    assert weight_of(summary, "chaos_ct") / weight_of(summary, "lidc") == pytest.approx(2, rel=1e-5)


@pytest.mark.parametrize(
    ("weights", "error", "sentence"),
    [
        (("60%", "50%"), ManifestError, r"the shares add up to 110%; give smaller ones"),
        (("100%", None), ManifestError, r"add up to 100%, which leaves nothing for the other parts"),
        (("0", "0%"), ManifestError, r"^every weight is 0, so that no scan could be drawn; give one part a factor"),
        (("-1", None), SettingError, r"^manifest.json=-1: no weight; give a factor such as 2.5 or a share"),
        (("nan", None), SettingError, r"no weight"),
        (("1e999", None), SettingError, r"no weight"),
    ],
)
def test_weights_that_cannot_be_are_one_sentence(listing, tmp_path, weights, error, sentence):
    paths = [listing("lidc", 5, "a"), listing("chaos_ct", 2, "b")]
    with pytest.raises(error, match=sentence):
        mix_manifests([MixPart(p, w) for p, w in zip(paths, weights, strict=True)], tmp_path / "mix.json")


def test_what_a_licence_filter_refuses_is_counted_with_the_reason(listing, tmp_path):
    parts = [
        MixPart(listing(name, count, name))
        for name, count in (("lidc", 5), ("stoic21", 3), ("segthor", 2), ("chaos_ct", 7))
    ]
    summary = mix_manifests(parts, tmp_path / "mix.json", commercial_ok=True)
    assert {entry.dataset for entry in summary.manifest.entries} == {"lidc"}
    assert summary.refused == {
        "stoic21": ("commercial use: no", 3),
        "segthor": ("commercial use: unknown", 2),
        "chaos_ct": ("commercial use: yes, but with low confidence", 7),
    }
    summary = mix_manifests(parts, tmp_path / "mix.json", licences=["cc-by-sa-4.0"])
    assert {entry.dataset for entry in summary.manifest.entries} == {"chaos_ct"}
    assert summary.refused["segthor"] == ("licence unknown", 2)
    with pytest.raises(ManifestError, match=r"nothing is left for the mix \(segthor: commercial use: unknown\); relax"):
        mix_manifests(parts[2:3], tmp_path / "none.json", commercial_ok=True)


def test_weights_that_no_number_holds_together_are_told(listing, tmp_path):
    with pytest.raises(ManifestError, match=r"^the weights are too large to be added up; give smaller ones"):
        mix_manifests([MixPart(listing("lidc", 3, "a", weight=1e308), "30%")], tmp_path / "mix.json")


@pytest.mark.parametrize(
    ("licence", "confidence", "commercial_ok", "reason"),
    [
        ("CC-BY-NC-4.0", "high", True, "commercial use: yes, but licence CC-BY-NC-4.0, which forbids it"),
        (None, "high", True, "commercial use: yes, but licence unknown"),
        ("CC-BY-4.0", "low", True, "licence CC-BY-4.0, but with low confidence"),
        ("CC-BY-4.0", "low", False, "licence CC-BY-4.0, but with low confidence"),
    ],
)
def test_a_licence_that_is_not_sure_is_no_permission(listing, tmp_path, licence, confidence, commercial_ok, reason):
    path = listing("luna16", 1, "a")
    relicensed(path, licence, confidence)
    parts = [MixPart(path), MixPart(listing("totalsegmentator", 1, "b"))]
    licences = () if commercial_ok else ["CC-BY-4.0"]
    summary = mix_manifests(parts, tmp_path / "mix.json", commercial_ok=commercial_ok, licences=licences)
    assert summary.refused == {"luna16": (reason, 1)}


def test_splits_and_data_sets_are_chosen(listing, tmp_path):
    parts = [MixPart(listing("lidc", 2, "a")), MixPart(listing("chaos_ct", 3, "b", split="test"))]
    assert len(mix_manifests(parts, tmp_path / "a.json", splits=["test"]).manifest.entries) == 3
    assert len(mix_manifests(parts, tmp_path / "a.json", exclude=["chaos_ct"]).manifest.entries) == 2
    with pytest.raises(SettingError, match="exclude: 'chaos' is not there; give one of chaos_ct, lidc"):
        mix_manifests(parts, tmp_path / "b.json", exclude=["chaos"])
    with pytest.raises(SettingError, match="split: 'train' is not there; give one of training"):
        mix_manifests(parts, tmp_path / "b.json", splits=["train"])
    assert not (tmp_path / "b.json").exists()


def test_an_evaluation_set_in_a_mix_is_told(listing, tmp_path):
    parts = [MixPart(listing("btcv", 3, "img")), MixPart(listing("lits", 5, "volume"))]
    leaks = mix_manifests(parts, tmp_path / "mix.json").leaks
    assert {(leak.dataset, leak.evaluation, leak.severity) for leak in leaks} >= {
        ("btcv", "btcv", "high"),
        ("lits", "ct_org", "high"),
        ("lits", "bmad_liver", "medium"),
    }
    assert [leak.severity for leak in leaks] == sorted(
        (leak.severity for leak in leaks), key=["high", "medium", "low"].index
    )
    only = mix_manifests(parts, tmp_path / "mix.json", evaluate_on=["CT_ORG"]).leaks
    assert [(leak.dataset, leak.count) for leak in only] == [("lits", 5)]
    assert not mix_manifests(parts, tmp_path / "mix.json", evaluate_on=["segthor"]).leaks
    with pytest.raises(SettingError, match="evaluate-on: 'CT-ORG' is no data set that is described; give ids such as"):
        mix_manifests(parts, tmp_path / "mix.json", evaluate_on=["CT-ORG"])


@pytest.mark.parametrize("image", ["BDMAP_0000{number}/ct.nii.gz", "x/BDMAP_0000{number}.nii.gz"])
def test_names_of_files_betray_a_set_under_another_name(listing, tmp_path, image):
    path = listing("totalsegmentator", 3, "s", image=image)
    leaks = mix_manifests([MixPart(path)], tmp_path / "mix.json", evaluate_on=["word", "amos22", "sliver07"]).leaks
    assert [(leak.dataset, leak.evaluation, leak.count, leak.by_name) for leak in leaks] == [
        ("abdomenatlas10mini", "amos22", 3, True),
        ("abdomenatlas10mini", "word", 3, True),
    ]


def test_a_folder_of_the_pool_betrays_its_set(listing, tmp_path):
    path = listing("totalsegmentator", 2, "s", image="Dataset024_WORD/imagesTr/x_{number}.nii.gz")
    (leak,) = mix_manifests([MixPart(path)], tmp_path / "mix.json", evaluate_on=["word"]).leaks
    assert (leak.dataset, leak.count, leak.by_name) == ("word", 2, True)


def test_a_mix_that_leaks_is_not_written_where_that_fails(listing, tmp_path):
    parts = [MixPart(listing("flare23", 3, "f")), MixPart(listing("chaos_ct", 3, "c"))]
    summary = mix_manifests(parts, tmp_path / "mix.json", fail_on_leakage=True)
    assert not summary.written
    assert not (tmp_path / "mix.json").exists()
    clean = mix_manifests(parts[1:], tmp_path / "mix.json", fail_on_leakage=True)
    assert clean.written
    assert (tmp_path / "mix.json").exists()


def test_sets_that_share_scans_are_told(listing, tmp_path):
    parts = [MixPart(listing("luna16", 2, "a")), MixPart(listing("lidc", 2, "b")), MixPart(listing("stoic21", 2, "c"))]
    summary = mix_manifests(parts, tmp_path / "mix.json")
    assert [(pair.first, pair.second) for pair in summary.shared] == [("lidc", "luna16")]


def relicensed(path: Path, licence: str | None, confidence: str = "high") -> Path:
    manifest = read_manifest(path)
    (name,) = manifest.datasets
    card = manifest.datasets[name]
    card = replace(card, facts={**card.facts, "licence": Fact(licence, confidence, ("ZOO-luna",))})
    write_manifest(path, replace(manifest, datasets={name: card}))
    return path


def test_one_data_set_has_one_licence(listing, tmp_path):
    parts = [MixPart(listing("lidc", 2, "a")), MixPart(relicensed(listing("lidc", 2, "b", folder="ours"), "MIT"))]
    with pytest.raises(ManifestError, match=r"lidc is MIT \(commercial use: yes\) here, but CC-BY-3.0 \(yes\) in mani"):
        mix_manifests(parts, tmp_path / "mix.json")


def test_sources_of_one_key_are_told_apart(listing, tmp_path):
    paths = [listing("lidc", 2, "a"), listing("luna16", 2, "b")]
    content = json.loads(paths[1].read_text())
    content["sources"]["OML"]["locator"] = "another catalogue"
    paths[1].write_text(json.dumps(content))
    manifest = mix_manifests([MixPart(path) for path in paths], tmp_path / "mix.json").manifest
    (key,) = manifest.datasets["luna16"].facts["body_region"].source
    assert manifest.sources[key]["locator"] == "another catalogue"
    assert "Awesome" in manifest.sources["OML"]["locator"]


def test_labels_are_named_where_all_parts_agree(listing, tmp_path):
    paths = [listing(name, 2, name, folder=name, label="l/{number}.nii") for name in ("msd_spleen", "msd_liver")]
    for path, names in zip(paths, ({"1": "spleen"}, {"1": "liver"}), strict=True):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "labels": names}))
    summary = mix_manifests([MixPart(path) for path in paths], tmp_path / "mix.json")
    assert summary.manifest.labels is None
    assert "name their labels differently" in summary.notes[0]
    alone = mix_manifests([MixPart(paths[0]), MixPart(listing("lidc", 2, "a"))], tmp_path / "mix.json")
    assert (alone.manifest.labels, alone.notes) == ({1: "spleen"}, [])


def test_a_mere_description_cannot_be_mixed(tmp_path):
    from monai_ext.manifests import shipped_manifests

    with pytest.raises(ManifestError, match=r"^lidc.json: describes data sets but lists no scans; download them"):
        mix_manifests([MixPart(shipped_manifests()["lidc"])], tmp_path / "mix.json")
