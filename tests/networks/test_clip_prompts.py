import json

import pytest

from monai_ext.base import SettingError
from monai_ext.networks import ClassPrompts, PromptTable


def test_the_published_table_is_the_recorded_one(shared_goldens):
    recorded = json.loads((shared_goldens / "aa_clip" / "prompts.json").read_text())
    table = PromptTable.published()
    assert table.to_dict() == {key: recorded[key] for key in ("states", "templates", "special_class", "datasets")}
    for place, example in recorded["examples"].items():
        dataset, _, name = place.partition("/")
        prompts = table.of_class(name, dataset)
        assert table.real_name(name, dataset) == example["real_name"]
        assert (list(prompts.normal), list(prompts.abnormal)) == (example["normal"], example["abnormal"])


@pytest.fixture
def table() -> PromptTable:
    return PromptTable.from_dict(
        {
            "states": {"normal": ["{}"], "abnormal": ["a broken {}", "a {} with a hole"]},
            "templates": ["{}.", "a picture of {}."],
            "datasets": {
                "A": {"domain": "Medical", "classes": {"x": "lung", "y": "liver"}, "class_order": ["y", "x"]},
                "B": {"domain": "Industrial", "classes": {"x": "screw", "z": "{odd} name"}},
                "C": {"domain": "Industrial", "classes": {"z": "{odd} name"}},
            },
            "special_class": {"object": "thing"},
        }
    )


def test_names_go_into_states_and_states_into_templates(table):
    assert table.of_name("cup") == ClassPrompts(
        ("cup.", "a picture of cup."),
        ("a broken cup.", "a picture of a broken cup.", "a cup with a hole.", "a picture of a cup with a hole."),
    )


def test_braces_in_a_name_stay(table):
    assert table.of_class("z").normal[0] == "{odd} name."  # two data sets, one name


def test_order_and_domain_of_a_data_set(table):
    assert table.classes("A") == ("y", "x")
    assert (table.domain("A"), table.domain("B")) == ("Medical", "Industrial")


def test_special_classes_need_no_data_set(table):
    assert table.real_name("object", "A") == table.real_name("object") == "thing"


def test_a_table_survives_writing_and_reading(table, tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(table.to_dict()))
    assert PromptTable.read(path) == table


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda t: t.of_class("x"), r"class 'x': several data sets have it .*\(lung, screw\); name the data set too"),
        (lambda t: t.of_class("q"), r"class 'q': unknown; choose one of object, x, y, z, or add it"),
        (lambda t: t.of_class("q", "A"), r"class 'q': unknown in A; choose one of object, x, y, or add it"),
        (lambda t: t.of_class("x", "D"), r"data set 'D': unknown; choose one of A, B, C"),
        (lambda t: t.domain("D"), r"data set 'D': unknown"),
        (lambda t: t.of_name("  "), r"prompts: '  ' is no name; say what the image shows"),
    ],
)
def test_unknown_names_say_what_is_known(table, ask, sentence):
    with pytest.raises(SettingError, match=sentence):
        ask(table)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"states": {"normal": ["{}"]}}, r"p.json: prompts: the states are \['normal'\]; .*published_prompts.json"),
        ({"states": {"normal": ["{}"], "abnormal": []}}, r"abnormal is \(\); give a list of phrases"),
        ({"states": {"normal": "a {}", "abnormal": ["{}"]}}, r"normal is .*; give a list of phrases with one \{\}"),
        ({"templates": ["no place"]}, r"templates is \('no place',\)"),
        ({"templates": ["{} {}"]}, r"templates is \('\{\} \{\}',\)"),
        ({"templates": None}, r"p.json: not a JSON file of prompts"),
        ({"datasets": {"A": {"classes": {}}}}, r"p.json: not a JSON file of prompts \('domain'\)"),
    ],
)
def test_a_file_of_another_form_is_refused(table, tmp_path, change, sentence):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({**table.to_dict(), **change}))
    with pytest.raises(SettingError, match=sentence):
        PromptTable.read(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"[1]", b"\xff\xfe\x00"])
def test_a_file_that_is_no_json_is_refused(tmp_path, content):
    path = tmp_path / "p.json"
    path.write_bytes(content)
    with pytest.raises(SettingError, match=r"p.json: not a JSON file of prompts"):
        PromptTable.read(path)
    with pytest.raises(SettingError, match=r"absent.json: no such file of prompts"):
        PromptTable.read(tmp_path / "absent.json")


@pytest.mark.parametrize("sentences", [(), ("good", " "), "one sentence"])
def test_each_state_has_a_sentence(sentences):
    with pytest.raises(SettingError, match=r"prompts: abnormal is .*; give one sentence or more, none of them empty"):
        ClassPrompts(("fine",), sentences)
