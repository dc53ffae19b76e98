"""The form of a manifest: a JSON Schema for its head, and the schema's rules for an entry as quick functions."""

import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from monai_ext._paths import manifest_path

VERSION = "1.0"
_TYPES: Mapping[str, tuple[type, ...]] = {"string": (str,), "number": (int, float)}


@cache
def manifest_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 7), shipped as ``data_manifests/manifest.schema.json``."""
    schema: dict[str, Any] = json.loads(Path(manifest_path("manifest.schema.json")).read_text(encoding="utf-8"))
    return schema


def head_problems(head: Mapping[str, Any], newer: bool) -> Iterator[tuple[str, str]]:
    """Validate everything but the entries against the schema.

    Args:
        head: the manifest with its lists of entries left empty.
        newer: of a later minor version, whose further keys are passed over.

    Yields:
        The place, such as ``"datasets.btcv.licence"``, and what is wrong there.
    """
    from jsonschema import Draft7Validator  # not above: reading one scan loads this room, and needs no schema

    for error in sorted(Draft7Validator(manifest_schema()).iter_errors(head), key=lambda error: list(error.path)):
        if newer and error.validator == "additionalProperties":
            continue
        yield ".".join(map(str, error.absolute_path)) or "the file", _told(error)


@cache
def entry_rules() -> tuple[dict[str, Callable[[Any], bool]], frozenset[str], re.Pattern[str]]:
    """Read the schema's rules for one entry.

    Validating ten thousand entries one by one with a general validator takes most of a minute; these functions
    take a tenth of a second and are made from the same file.

    Returns:
        By key a test of its value, the keys that must be there, and what further keys look like.

    Raises:
        NotImplementedError: the schema says about an entry what these functions do not understand.
    """
    entry = manifest_schema()["definitions"]["entry"]
    known = {"type", "required", "properties", "patternProperties", "additionalProperties"}
    if set(entry) - known or entry["additionalProperties"] or list(entry["patternProperties"].values()) != [{}]:
        raise NotImplementedError("the schema's entry has rules that no quick test stands for")
    rules = {key: _compiled(rule) for key, rule in entry["properties"].items()}
    return rules, frozenset(entry["required"]), re.compile("|".join(entry["patternProperties"]))


def _compiled(rule: Mapping[str, Any]) -> Callable[[Any], bool]:
    unknown = set(rule) - {"type", "pattern", "maxLength", "minimum", "enum"}
    if unknown:
        raise NotImplementedError(f"no quick test stands for {', '.join(sorted(unknown))} of the schema")
    types = _TYPES[rule["type"]] if "type" in rule else (object,)
    search = re.compile(rule["pattern"]).search if "pattern" in rule else None
    longest, least, allowed = rule.get("maxLength", math.inf), rule.get("minimum"), rule.get("enum")

    def fits(value: Any) -> bool:
        # True is 1 for Python, but not for JSON; NaN is no JSON at all, though Python reads it.
        if not isinstance(value, types) or isinstance(value, bool) or (allowed is not None and value not in allowed):
            return False
        if isinstance(value, str):
            return len(value) <= longest and (search is None or search(value) is not None)
        # Neither NaN nor infinite, nor an integer that no float can hold.
        return least is None or (isinstance(value, int | float) and least <= value <= sys.float_info.max)

    return fits


def _told(error: Any) -> str:
    # A validator's own sentence quotes the value, which may be a whole list of paths.
    if error.validator == "type":
        return f"is {type(error.instance).__name__}, not {error.validator_value}"
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        unknown = [key for key in error.instance if key not in known and not key.startswith("x_")]
        return f"has {', '.join(map(repr, unknown[:3]))}, which is none of {', '.join(known)} nor an own x_..."
    message = str(error.message)
    return message if len(message) <= 160 else message[:75] + " ... " + message[-75:]
