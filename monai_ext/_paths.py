"""Where the bundles and manifests lie: inside the wheel, or beside the package in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def bundle_path(name: str) -> str:
    """Return the folder of a shipped bundle, as text because bundle configurations join it with ``+``.

    Args:
        name: a folder name such as ``"hi_end_mae_ct_pretrain"``.

    Raises:
        ValueError: no bundle of that name is shipped; the sentence lists those that are.
    """
    return str(_shipped("bundles", name))


def manifest_path(name: str) -> str:
    """Return the file of a shipped data manifest, for example ``"README.md"``.

    Raises:
        ValueError: no manifest of that name is shipped; the sentence lists those that are.
    """
    return str(_shipped("data_manifests", name))


def _shipped(kind: str, name: str) -> Path:
    # A wheel carries the folder inside the package; a checkout and an editable install see the repository's.
    for root in (_PACKAGE / kind, _PACKAGE.parent / kind):
        if root.is_dir():
            known = sorted(p.name for p in root.iterdir() if not p.name.startswith((".", "_")))
            if name in known:
                return root / name
            raise ValueError(f"{kind}: no {name!r} is shipped; choose one of {', '.join(known) or 'none'}")
    raise ValueError(f"{kind}: the folder is missing from this installation; reinstall monai-ext")
