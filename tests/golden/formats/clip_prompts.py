"""Prompts: a table with example sentences, and the token ids of sentences."""

import torch

from formats.comparison import Comparison
from formats.golden import Golden
from monai_ext.base import SettingError
from monai_ext.networks import ClassPrompts, PromptTable
from monai_ext.networks.clip_tokens import StrictTokenizer

TOLERANCES = ()

_STATES = ("normal", "abnormal")
_WORDS = ("order",)  # explains the order of the sentences to a reader; the examples show it


def recognises(golden: Golden) -> bool:
    """Tell by the content: states and templates, or ids under the names of a data set, a class and a state."""
    if golden.tensors:
        return all(name.count("/") == 2 and name.rpartition("/")[2] in _STATES for name in golden.tensors)
    return {"states", "templates"} <= golden.content.keys()


def check(golden: Golden, compare: Comparison) -> None:
    """Put the sentences together, or into tokens."""
    if golden.tensors:
        _check_tokens(golden, compare)
    else:
        _check_table(golden, compare)


def table_for(golden: Golden, dataset: str) -> PromptTable:
    """Return the table of prompts beside a file if it has the data set, else the published one."""
    for sibling in golden.siblings():
        if recognises(sibling) and not sibling.tensors and dataset in sibling.content.get("datasets", {}):
            return PromptTable.from_dict(sibling.content)
    return PromptTable.published()


def _check_table(golden: Golden, compare: Comparison) -> None:
    table = PromptTable.from_dict(golden.content)
    compare.words(*_WORDS)
    compare.expect("states.normal", "states.abnormal", "templates")
    for name, phrases in table.to_dict()["states"].items():
        compare(f"states.{name}", phrases)
        compare(f"n_prompts.{name}", len(getattr(table.of_name("any"), name)))
    compare("templates", list(table.templates))
    for name, real_name in table.special.items():
        compare(f"special_class.{name}", real_name)
    for dataset in table.datasets:
        compare(f"datasets.{dataset}.domain", table.domain(dataset))
        compare(f"datasets.{dataset}.class_order", list(table.classes(dataset)))
        for name in table.classes(dataset):
            compare(f"datasets.{dataset}.classes.{name}", table.real_name(name, dataset))
    for example in golden.content.get("examples", {}):
        dataset, _, name = example.partition("/")
        prompts: ClassPrompts = table.of_class(name, dataset)
        compare(f"examples.{example}.real_name", table.real_name(name, dataset))
        for state in _STATES:
            compare.expect(f"examples.{example}.{state}")
            compare(f"examples.{example}.{state}", list(getattr(prompts, state)))


def _check_tokens(golden: Golden, compare: Comparison) -> None:
    for name, stored in golden.tensors.items():
        dataset, label, state = name.split("/")
        compare.expect(*(f"{dataset}/{label}/{other}" for other in _STATES))
        try:
            prompts = table_for(golden, dataset).of_class(label, dataset)
        except SettingError as error:
            compare.fail(name, str(error))
            continue
        ids = StrictTokenizer(context_length=stored.shape[1])(getattr(prompts, state))
        compare(name, ids if stored.dtype == torch.int32 else torch.full_like(ids, -1))
