"""Writing manifests: one entry a line, so that a change shows as the lines it changes."""

import json
import os
from pathlib import Path
from typing import Any

from monai_ext.base import ManifestError, replacing
from monai_ext.manifests.cards import card_content
from monai_ext.manifests.entries import entry_content
from monai_ext.manifests.manifest import SPLITS, Manifest
from monai_ext.manifests.reading import refuse, sift_manifest
from monai_ext.manifests.schema import VERSION

_WIDTH = 120


def manifest_content(manifest: Manifest) -> dict[str, Any]:
    """Return a manifest as the JSON object that `read_manifest` reads."""
    content: dict[str, Any] = {"schema_version": VERSION, "name": manifest.name}
    for key in ("title", "status"):
        if getattr(manifest, key):
            content[key] = getattr(manifest, key)
    content["datasets"] = {key: card_content(card) for key, card in manifest.datasets.items()}
    content["sources"] = {key: dict(value) for key, value in manifest.sources.items()}
    if manifest.labels is not None:
        content["labels"] = {str(number): name for number, name in manifest.labels.items()}
    for split in SPLITS:
        entries = [entry_content(entry) for entry in manifest.entries if entry.split == split]
        if entries:
            content[split] = entries
    return content


def write_manifest(path: str | os.PathLike[str], manifest: Manifest) -> None:
    """Write a manifest; the file appears only if it can be read again.

    Raises:
        ManifestError: it would not be valid.
        WriteError: the file could not be written.
    """
    text = _text(manifest_content(manifest)) + "\n"
    name = Path(path).name

    def verify(temporary: Path) -> None:
        again, problems = sift_manifest(temporary, name)
        refuse(problems, name)
        if len(again.entries) != len(manifest.entries):
            raise ManifestError(f"{name}: a split is not one of {', '.join(SPLITS)}; correct it", code="manifest.split")

    with replacing(path, verify=verify) as temporary:
        # Names with lone surrogates must reach the check above, which says what to do about them.
        temporary.write_text(text, encoding="utf-8", errors="surrogatepass")


def _text(value: Any, indent: int = 0) -> str:
    """Return JSON in which what fits on a line stands on one, as every entry does."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value or (indent and indent + len(line) <= _WIDTH) or indent > 3:
        return line
    space = " " * (indent + 1)
    if isinstance(value, list):
        # The items of a list are entries, relations and rules of layout: each a line, however long.
        body = ",\n".join(space + json.dumps(item, ensure_ascii=False) for item in value)
        return f"[\n{body}\n{' ' * indent}]"
    body = ",\n".join(f"{space}{json.dumps(key)}: {_text(item, indent + 1)}" for key, item in value.items())
    return f"{{\n{body}\n{' ' * indent}}}"
