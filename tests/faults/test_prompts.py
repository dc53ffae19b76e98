"""Prompts that CLIP cannot read whole or that say nothing: each is one typed sentence, before a network runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_ext.base import SettingError
from monai_ext.engines import class_prompts, prompt_table
from monai_ext.networks import ClassPrompts, PromptTable
from monai_ext.networks.clip_tokens import StrictTokenizer

GOOD = {"states": {"normal": ["{}"], "abnormal": ["a {} with a lesion"]}, "templates": ["a CT of {}."]}


def table(**changes: Any) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        (folder / "p.json").write_text(json.dumps({**GOOD, **changes}), encoding="utf-8")
        return prompt_table(str(folder / "p.json"))

    return read


def named(name: Any) -> Callable[[Path], Any]:
    return lambda _: class_prompts(name, PromptTable.published(), free_text=True)


BAD: dict[str, Callable[[Path], Any]] = {
    "over 77 tokens": lambda _: StrictTokenizer()(["liver " * 76]),
    "far over 77 tokens": lambda _: StrictTokenizer()(["liver " * 4000]),
    "long name in a template": lambda _: StrictTokenizer()(named("liver " * 70)(_).abnormal),
    "empty name": named(""),
    "blank name": named(" \t\n"),
    "name that is no text": lambda _: PromptTable.published().of_name(7),
    "control characters": named("liver\x00\x1b[2J"),
    "line break in a name": named("liver\nspleen"),
    "half a letter": named("liver\udc00"),
    "name without a letter": named("\u200b\u200d"),
    "empty sentence": lambda _: ClassPrompts(("a liver.", ""), ("a lesion.",)),
    "sentence that is no text": lambda _: ClassPrompts((5,), ("a lesion.",)),
    "no sentence": lambda _: ClassPrompts((), ("a lesion.",)),
    "placeholder missing": table(templates=["a CT of it."]),
    "placeholder twice": table(templates=["{} and {}"]),
    "state missing": table(states={"normal": ["{}"]}),
    "state empty": table(states={"normal": [], "abnormal": ["{}"]}),
    "phrases that are no list": table(templates="a CT of {}."),
    "control characters in a template": table(templates=["a CT\x07 of {}."]),
    "no JSON": lambda folder: ((folder / "p.json").write_bytes(b"\xff{"), prompt_table(str(folder / "p.json"))),
    "nested without end": lambda folder: (
        (folder / "p.json").write_text("[" * 100_000),
        prompt_table(str(folder / "p.json")),
    ),
    "no file": lambda folder: prompt_table(str(folder / "none.json")),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_prompt_is_refused(tmp_path, case, record_property):
    found = None
    try:
        BAD[case](tmp_path)
    except Exception as error:
        found = error
    outcome = "silent" if found is None else "caught" if isinstance(found, SettingError) else "crashed"
    record_property("fault", ["prompt", case, outcome])
    assert outcome == "caught", repr(found)
    assert found.code.startswith("setting.")
    assert str(tmp_path) not in str(found)
    assert str(found).isprintable()


@pytest.mark.parametrize("name", ["a liver", "Zwölffingerdarm", "肝臓", "a {} of braces", "liver " * 40])
def test_a_good_prompt_is_read_whole(name, record_property):
    prompts = class_prompts(name, PromptTable.published(), free_text=True)
    ids = StrictTokenizer()([prompts.normal[0], prompts.abnormal[0]])
    record_property("fault", ["good prompt", name, "passed" if ids.shape == (2, 77) else "silent"])
    assert ids.shape == (2, 77)
    assert name.split()[0] in prompts.normal[0]
