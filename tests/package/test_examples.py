"""Every ``>>>`` example in docstrings and in documents does what it shows."""

import doctest
import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import monai_ext

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("bundles/*/docs/*.md")]
# "..." for the parts that differ, and no trailing blanks to get wrong.
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def in_docstrings() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for found in pkgutil.walk_packages(monai_ext.__path__, "monai_ext."):
        needs_extra = found.name.startswith("monai_ext.label.") and not importlib.util.find_spec("monailabel")
        if not found.name.endswith("__main__") and not needs_extra:  # those are looked at where the extra is installed
            yield from (test for test in finder.find(importlib.import_module(found.name)) if test.examples)


def in_documents() -> Iterator[doctest.DocTest]:
    for path in DOCUMENTS:
        blocks = re.findall(r"^```\w*\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        name = str(path.relative_to(REPOSITORY))
        # One document is one session: later blocks may use what earlier ones made.
        yield doctest.DocTestParser().get_doctest("\n".join(b for b in blocks if ">>>" in b), {}, name, name, 0)


def run(test: doctest.DocTest) -> None:
    report: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append)
    assert not report, "".join(report)


def test_the_examples_of_docstrings_run() -> None:
    tests = list(in_docstrings())
    assert {"monai_ext.base.files.case_id", "monai_ext.networks.sizes.visible_count"} <= {t.name for t in tests}
    for test in tests:
        run(test)


def test_the_examples_of_documents_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for test in in_documents():
        run(test)


def test_an_example_that_is_wrong_fails() -> None:
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    with pytest.raises(AssertionError, match="Expected"):
        run(test)
