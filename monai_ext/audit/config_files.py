"""Configurations of a bundle: read as data, each entry judged as MONAI would use it."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from monai_ext.audit.arguments import why_not_argument, why_not_path, why_not_reader, why_not_text
from monai_ext.audit.expressions import CODE_ARGUMENTS, FINDS_CODE, ExpressionReader, why_not_handed_on
from monai_ext.audit.findings import Findings
from monai_ext.audit.monai_names import full_names
from monai_ext.audit.names import why_not_name
from monai_ext.audit.references import Entries, absolute, imports_of

MOST_BYTES, MOST_ENTRIES, MOST_DEPTH = 16 * 2**20, 100_000, 100
_GIVEN = {"monai": {"monai"}, "torch": {"torch"}, "np": {"numpy"}, "numpy": {"numpy"}}  # by MONAI to every expression
_MODES = ("default", "callable", "partial")
_WRITES = re.compile(
    r"(output|save|log|cache|export|ckpt|model)_?(dir|path|folder|file)?|folder|filename", re.IGNORECASE
)
_READS = re.compile(r".*(dir|path|folder|file|root|weights|list)", re.IGNORECASE)
_FETCHES = ("monai_ext.engines.build_clip", "monai_ext.engines.open_localizer")  # CLIP, where its weights are a tag


class _ConfigError(ValueError):
    """A configuration that cannot be judged."""


def load(path: Path) -> Any:
    """Read JSON or YAML as plain data.

    Raises:
        ValueError: too large, damaged, with a key twice, or with tags that make objects; the text says which.
    """
    if path.stat().st_size > MOST_BYTES:
        raise _ConfigError(f"larger than {MOST_BYTES >> 20} MB, too large to judge")
    try:
        text = path.read_bytes().decode("utf-8")
        if path.suffix.lower() == ".json":
            return json.loads(text, object_pairs_hook=_once)
        return _yaml(text)
    except (RecursionError, MemoryError) as error:
        raise _ConfigError("nested too deeply to judge") from error
    except UnicodeDecodeError as error:
        raise _ConfigError("no UTF-8 text") from error
    except (yaml.YAMLError, ValueError) as error:
        raise _ConfigError(f"cannot be read ({str(error).splitlines()[0]})") from error


def entries(content: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield id, key and value of everything in a configuration, mappings and lists before what they hold.

    Raises:
        ValueError: more entries, or deeper ones, than can be judged.
    """
    waiting: list[tuple[str, Any, Any, int]] = [("", "", content, 0)]
    seen = 0
    while waiting:
        place, key, value, depth = waiting.pop()
        seen += 1
        if seen > MOST_ENTRIES or depth > MOST_DEPTH:
            raise _ConfigError("nested too deeply or too large to judge")
        yield place, key, value
        if isinstance(value, Mapping | list):
            pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
            inside = [(_joined(place, one), one, item, depth + 1) for one, item in pairs]
            waiting += reversed(inside)


def aliases_of(contents: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return what each name of an import may stand for, over all configurations, for any may be merged with any."""
    found: dict[str, set[str]] = defaultdict(set, {name: set(paths) for name, paths in _GIVEN.items()})
    for content in contents.values():
        for _, _, value in entries(content):
            if isinstance(value, str) and value.startswith("$"):
                for name, path in (imports_of(value) or {}).items():
                    found[name].add(path)
    return dict(found)


def entries_of(contents: Mapping[str, Any]) -> Entries:
    """Return what stands at each id, over all configurations; MONAI files ``metadata.json`` below ``_meta_``."""
    found = []
    for file, content in contents.items():
        described = Path(file).name.startswith("metadata")
        for place, _, value in entries(content):
            found.append((place, value))
            if described:
                found.append((_joined("_meta_", place) if place else "_meta_", value))
    return Entries(found)


class ConfigJudge:
    """Judge the entries of configurations.

    Args:
        root: the bundle's folder.
        findings: what is found goes here.
        aliases: of `aliases_of`.
        held: of `entries_of`.
    """

    def __init__(self, root: Path, findings: Findings, aliases: Mapping[str, set[str]], held: Entries) -> None:
        self.root, self.findings, self.aliases, self.held = root, findings, aliases, held

    def judge(self, file: str, content: Any) -> None:
        """Judge one configuration, ``metadata.json`` too: MONAI evaluates what stands there as well."""
        for place, key, value in entries(content):
            last = re.split("::|#", str(key))[-1].removeprefix("+")
            if isinstance(key, str) and re.search(r"[$@%'\"()\[\]{}=;\n\r]", key):
                self.findings.add(file, place, "form", key, "a key with signs that MONAI puts into expressions")
            if isinstance(key, str) and not key.isascii() and key.isidentifier() and "_" in key:
                self.findings.add(file, place, "form", key, "a key with letters that look like others")
            if last == "_target_":
                self._target(file, place, value)
            elif last == "_mode_" and value not in _MODES:
                self.findings.add(file, place, "argument", str(value), "a mode that stops in a debugger, or unknown")
            elif isinstance(value, str):
                self._text(file, place, last, value)
            if isinstance(value, Mapping):
                self._component(file, place, value)

    def _target(self, file: str, place: str, target: Any) -> None:
        if not isinstance(target, str) or target.startswith(("@", "%", "$")):
            what = target if isinstance(target, str) else type(target).__name__
            reader = ExpressionReader(self.aliases, self.held, lambda *found: self.findings.add(file, place, *found))
            if isinstance(target, str) and target.startswith("$"):
                reader.read(target, place)
            self.findings.add(file, place, "target", what, "what it stands for is known only when it runs")
            return
        for name in full_names(target):
            self.findings.add(file, place, "target", name, why_not_name(name))
            if name in _FETCHES:
                self.findings.add(file, place, "network", "weights of CLIP, where they are named by a tag")

    def _component(self, file: str, place: str, value: Mapping[Any, Any]) -> None:
        target = value.get("_target_")
        if target is None:
            return
        ours = isinstance(target, str) and target.startswith("monai_ext.")  # none of it imports by name
        if target == "torch.load" and value.get("weights_only") is not True:
            why = "without weights_only=True it runs what a pickle says"
            self.findings.add(file, place, "argument", "torch.load", why)
        for path in sorted(self.held.handed_on(place)):
            if value.get("_mode_", "default") == "default" or path != target:
                self.findings.add(file, place, "argument", path, why_not_handed_on(path))
        finds_code = isinstance(target, str) and not ours and bool(FINDS_CODE.fullmatch(target.rpartition(".")[2]))
        if finds_code and value.get("_mode_", "default") != "default":
            why = "handed on, so what it will be given cannot be told"
            self.findings.add(file, place, "argument", str(value["_mode_"]), why)
        for name, given in value.items():
            constant = given if not isinstance(given, str) or not given.startswith(("$", "@", "%")) else ...
            why = why_not_argument(str(name), constant)
            if why and not ours:
                self.findings.add(file, _joined(place, name), "argument", f"{name}={given}", why)
            if (name in CODE_ARGUMENTS and not ours) or (finds_code and name == "name"):
                self._code_argument(file, _joined(place, name), str(name), given)

    def _code_argument(self, file: str, place: str, name: str, given: Any) -> None:
        for one in given if isinstance(given, list) else [given]:
            if name == "name" and isinstance(one, str) and re.fullmatch("[A-Z][A-Za-z0-9]*", one):
                continue
            if isinstance(one, str) and one.startswith(("$", "@", "%")):
                path = next(iter(self.aliases.get(one[1:].partition(".")[0], ())), None)
                if path and not why_not_name(f"{path}.{one[1:].partition('.')[2]}"):
                    continue
                self.findings.add(file, place, "argument", one, "it may name code that is imported, and cannot be told")
            elif isinstance(one, str):
                self.findings.add(file, place, "argument", one, why_not_reader(one))

    def _text(self, file: str, place: str, key: str, text: str) -> None:
        if text.startswith("$"):
            note = partial(self.findings.add, file, place)
            ExpressionReader(self.aliases, self.held, note).read(text, place)
        elif text.startswith("%"):
            self._macro(file, place, text)
        elif text.startswith("@"):
            self.findings.add(file, place, "reference", text)
            for path in sorted(self.held.handed_on(absolute(text, place)[1:])):
                self.findings.add(file, place, "reference", path, why_not_handed_on(path))
        elif not self._describes(file):
            for kind, why in why_not_text(text):
                self.findings.add(file, place, kind, text, why)
        self._path(file, place, key, text)

    def _macro(self, file: str, place: str, text: str) -> None:
        path = re.match(r"(.*\.(?:json|yaml|yml))(?=(?:::|#)|$)", text[1:], re.IGNORECASE)
        if path is None:
            self.findings.add(file, place, "reference", text)
            return
        inside = [self.root / path[1], (self.root / file).parent / path[1]]
        why = why_not_path(path[1]) or ("an absolute path" if Path(path[1]).is_absolute() else "")
        if not why and not any(one.is_file() for one in inside):
            why = "no file of this bundle"
        self.findings.add(file, place, "reference", text, why)

    def _path(self, file: str, place: str, key: str, text: str) -> None:
        kind = "write" if _WRITES.fullmatch(key) else "read" if _READS.fullmatch(key) else None
        if kind and text and not self._describes(file) and not text.startswith(("@", "%")):
            self.findings.add(file, place, kind, text, "" if text.startswith("$") else why_not_path(text))

    @staticmethod
    def _describes(file: str) -> bool:
        # Addresses of papers and the like; what is large has its own check.
        return Path(file).name.startswith(("metadata", "large_files"))


def _joined(place: str, key: Any) -> str:
    own = str(key).replace("#", "::").removeprefix("+" if not place else "")
    return f"{place}::{own}" if place else own


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise _ConfigError("a key stands twice, and which one counts depends on the reader")
    return dict(pairs)


def _yaml(text: str) -> Any:
    """Read YAML that makes plain data only, after looking at its nodes: merged aliases may grow without end."""
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        waiting, seen = [root], set()
        while waiting:
            node = waiting.pop()
            if id(node) in seen or not isinstance(node, yaml.CollectionNode):
                continue
            seen.add(id(node))
            if isinstance(node, yaml.SequenceNode):
                waiting += node.value
                continue
            names = [(name.tag, name.value) for name, _ in node.value if isinstance(name, yaml.ScalarNode)]
            if len(set(names)) < len(node.value):
                raise _ConfigError("a key stands twice or is no text, and what counts depends on the reader")
            if any(name.tag.endswith(":merge") and isinstance(item, yaml.SequenceNode) for name, item in node.value):
                raise _ConfigError("several mappings merged into one, which may grow without end")
            waiting += [item for _, item in node.value]
        return loader.construct_document(root) if root is not None else None
    finally:
        loader.dispose()
