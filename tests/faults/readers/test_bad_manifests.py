"""Bad manifests: no JSON, JSON of another form, and paths that lead out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

UNKNOWN = {"value": "unknown", "confidence": "unknown", "source": []}
GOOD: dict[str, Any] = {
    "schema_version": "1.0",
    "name": "one_set",
    "title": "One set",
    "status": "Made up for the tests.",
    "datasets": {"a": {"title": UNKNOWN, "licence": UNKNOWN, "commercial_use": UNKNOWN}},
    "sources": {},
    "training": [
        {"id": "x1", "image": "x/1.nii.gz", "dataset": "a"},
        {"id": "x2", "image": "x/2.nii.gz", "dataset": "a"},
    ],
    "test": [{"id": "x3", "image": "x/3.nii.gz", "dataset": "a"}],
}
TEXT = json.dumps(GOOD)


def changed(**fields: object) -> str:
    return json.dumps(GOOD | fields)


def first(**fields: object) -> str:
    return changed(training=[GOOD["training"][0] | fields, GOOD["training"][1]])


BAD: dict[str, str | bytes] = {
    "nothing": "",
    "half": TEXT[:200],
    "text behind": TEXT + "x",
    "two manifests": TEXT * 2,
    "no UTF-8": TEXT.encode().replace(b"One set", b"One \xff\xfe"),
    "UTF-16": TEXT.encode("utf-16"),
    "pickle": b"\x80\x04K\x01.",
    "a list": "[1, 2]",
    "a number": "3",
    "nested without end": "[" * 200_000,
    "objects nested without end": '{"a":' * 100_000,
    "a number of a million digits": '{"schema_version": ' + "9" * 1_000_000 + "}",
    "NaN": TEXT.replace('"x1"', "NaN"),
    "a key twice": TEXT.replace('"training"', '"test": [], "training"', 1),
    "another version": changed(schema_version="2.0"),
    "version as a number": changed(schema_version=1.0),
    "no version": json.dumps({key: value for key, value in GOOD.items() if key != "schema_version"}),
    "no data sets": changed(datasets={}),
    "an entry as text": changed(training=["x/1.nii.gz"]),
    "a list as an object": changed(training={"0": GOOD["training"][0]}),
    "path above": first(image="../SENTINEL/1.nii.gz"),
    "absolute path": first(image="/SENTINEL/1.nii.gz"),
    "path of Windows": first(image="C:\\SENTINEL\\1.nii.gz"),
    "zero byte in a path": first(image="x\0.nii"),
    "line break in an id": first(id="x\n1"),
    "id as a path": first(id="../x1"),
    "id twice": first(id="x2"),
    "patient in two splits": changed(
        training=[GOOD["training"][0] | {"group": "p"}], test=[GOOD["test"][0] | {"group": "p"}]
    ),
    "image in two splits": first(image="x/3.nii.gz"),
    "weight infinite": first(weight=float("inf")),
    "weight without end": TEXT.replace('"id": "x1"', '"id": "x1", "weight": ' + "9" * 400),
    "checksum of words": first(sha256="none"),
    "unknown data set": first(dataset="b"),
    "unknown key": first(lable="y.nii"),
}


@pytest.mark.parametrize("bad", BAD)
def test_manifest(tmp_path: Path, limited, judged, bad: str) -> None:
    path = tmp_path / "list.json"
    content = BAD[bad]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    judged("manifests", bad, limited("read_manifest", path), str(tmp_path))


PLACES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("bad", PLACES)
def test_place(tmp_path: Path, limited, judged, bad: str) -> None:
    PLACES[bad](tmp_path / "list.json")
    judged("manifests", bad, limited("read_manifest", tmp_path / "list.json"), str(tmp_path))


def test_the_good_one_is_read(tmp_path, limited):
    (tmp_path / "list.json").write_text(TEXT, encoding="utf-8")
    found = limited("read_manifest", tmp_path / "list.json")
    assert [entry[1] for entry in found.value] == ["x1", "x2", "x3"]
