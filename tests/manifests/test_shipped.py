"""The shipped descriptions have the form, name their sources, and agree with one another and with the facts."""

import json
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from monai_ext.manifests import DatasetCard, Fact, manifest_schema, read_manifest, read_shipped, shipped_manifests

NAMES = sorted(shipped_manifests())
LISTS = [name for name in NAMES if name.startswith("lists/")]
SETS = [name for name in NAMES if name not in LISTS]
BENCHMARKS = ["btcv", "amos22", "flare22", "word", "ct_org", "sliver07"]
PICTURES = {
    "bmad_brain": "Brain",
    "bmad_liver": "Liver",
    "bmad_retina": "Retina",
    "btad": "BTAD",
    "cvc_300": "Colon_cvc300",
    "cvc_clinicdb": "Colon_clinicDB",
    "cvc_colondb": "Colon_colonDB",
    "kvasir_seg": "Colon_Kvasir",
    "mpdd": "MPDD",
    "mvtec_ad": "MVTec",
    "visa": "VisA",
}


def card(name: str) -> DatasetCard:
    return read_shipped(name).datasets[name]


def all_facts(described: DatasetCard) -> list[Fact]:
    return [
        *described.facts.values(),
        *described.counts.values(),
        *described.roles.values(),
        *described.splits.values(),
    ]


def test_the_schema_is_one():
    Draft7Validator.check_schema(manifest_schema())
    assert len(SETS) == 44
    assert len(LISTS) == 5


@pytest.mark.parametrize("name", NAMES)
def test_a_description_has_the_form_and_no_more_sources_than_it_names(name):
    path = shipped_manifests()[name]
    content = json.loads(path.read_text(encoding="utf-8"))
    Draft7Validator(manifest_schema()).validate(content)
    manifest = read_manifest(path)
    assert manifest.name == path.stem
    assert manifest.status
    assert not manifest.entries
    text = json.dumps(content["datasets"])
    assert {key for key in manifest.sources if f'"{key}"' not in text} == set()


@pytest.mark.parametrize("name", SETS)
def test_what_rests_on_general_knowledge_alone_is_not_called_certain(name):
    described = card(name)
    for fact in [*all_facts(described), *described.contains, *described.overlaps]:
        if fact.source == ("background",):
            assert fact.confidence in ("low", "unknown")
            assert getattr(fact, "value", "relation") is None or "not confirmed" in (fact.note or "")
    if described.facts["commercial_use"].source == ("background",):
        assert described.commercial_use != "yes"


@pytest.mark.parametrize("name", SETS)
def test_a_set_does_not_relate_to_itself_and_its_layout_is_whole(name):
    described = card(name)
    related = [relation.dataset for relation in (*described.contains, *described.overlaps)]
    assert name not in related
    assert len(set(related)) == len(related)
    for rule in described.layout:
        words = set(re.findall(r"\{([a-z]+)\}", rule.image))
        for template in (rule.label, rule.id, rule.group, rule.class_name):
            assert set(re.findall(r"\{([a-z]+)\}", template or "")) <= words, rule


def test_lists_say_of_each_set_what_its_own_description_says():
    for name in LISTS:
        for key, short in read_shipped(name).datasets.items():
            whole = card(key)
            assert {fact: whole.facts[fact] for fact in short.facts} == short.facts
            assert "taken" in short.counts


def test_the_lists_add_up():
    totals = {
        name: sum(short.counts["taken"].value or 0 for short in read_shipped(name).datasets.values()) for name in LISTS
    }
    assert totals["lists/voco_10k"] == 10_500
    assert totals["lists/open_mix_10_6k"] == 10_629
    assert totals["lists/abdominal_pool"] == 5_241
    paper = read_shipped("lists/hi_end_mae_10k")
    assert "could NOT be recovered" in paper.status
    assert {short.counts["taken"].value for short in paper.datasets.values()} == {None, 0}


def test_known_leaks_are_encoded():
    atlas = {relation.dataset: relation for relation in card("abdomenatlas10mini").contains}
    for name, number in {"amos22": 200, "word": 120, "btcv": 47, "ct_org": 140, "flare22": 50}.items():
        assert atlas[name].what.startswith(f"{number} volumes")
        assert atlas[name].severity == "high"
    assert any(fnmatch("BDMAP_00000001", name) for name in card("abdomenatlas10mini").value("file_names"))
    assert "lits" in {relation.dataset for relation in card("ct_org").contains}
    assert "lits" in {relation.dataset for relation in card("abdomenct1k").contains}
    assert [relation.dataset for relation in card("cvc_colondb").contains] == ["cvc_300"]
    assert "flare22" in {relation.dataset for relation in card("flare23").contains}
    for name in (*BENCHMARKS, *PICTURES):
        assert card(name).evaluation == (name != "visa")


def test_kidneys_keep_their_sides():
    assert (card("amos22").label_names[2], card("word").label_names[3]) == ("right kidney", "left kidney")
    assert (card("btcv").label_names[10], card("amos22").label_names[10]) == (
        "portal vein and splenic vein",
        "pancreas",
    )


def facts_of(folder: Path, name: str, key: str = "datasets") -> dict:
    content = json.loads((folder / "datasets" / name).read_text(encoding="utf-8"))
    return {item["id"]: item for item in content[key]}


def test_counts_of_volumes_are_those_of_the_facts(shared_facts):
    checked = 0
    for name, fact in facts_of(shared_facts, "pretraining_ct.json").items():
        for key, count in fact["ct_volumes"].items():
            if isinstance(count.get("value"), int):
                told = card(name).counts[key]
                assert (told.value, told.source) == (count["value"], tuple(count["source"])), (name, key)
                checked += 1
    assert checked > 80


def test_classes_of_the_benchmarks_are_those_of_the_facts(shared_facts):
    for name, fact in facts_of(shared_facts, "segmentation_benchmarks.json", "benchmarks").items():
        described = card({"amos22_ct": "amos22"}.get(name, name))
        assert described.label_names == {int(key): value for key, value in fact["classes"]["value"].items()}
        assert described.facts["label_names"].confidence == fact["classes"]["confidence"]


def test_pictures_and_prompts_are_those_of_the_facts(shared_facts):
    facts = facts_of(shared_facts, "anomaly.json")
    assert set(PICTURES.values()) == set(facts)
    for name, key in PICTURES.items():
        described, fact = card(name), facts[key]
        assert described.value("prompt_set") == key
        for kind in ("normal", "abnormal", "total"):
            assert described.counts[kind].value == fact["counts"][kind]
        prompts = {item["class_name"]: item["real_name_in_prompt"] for item in fact["classes"]}
        assert described.value("prompt_names") == prompts
        if len(prompts) > 1:
            for item in fact["classes"]:
                assert described.counts[f"normal.{item['class_name']}"].value == item["normal"]
                assert described.counts[f"abnormal.{item['class_name']}"].value == item["abnormal"]
