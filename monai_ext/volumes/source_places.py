"""How a store says where a scan came from: its base name, and its folders as digits, for folders name patients."""

import hashlib


def told_place(relative: str) -> str:
    """Return a path from the root as a sidecar may hold it: eight digits instead of all folders.

    >>> told_place("Doe^Jane/2024/ct.nii.gz")
    'cc6f6b49/ct.nii.gz'
    >>> told_place("ct.nii.gz")
    'ct.nii.gz'
    """
    folders, _, name = relative.rpartition("/")
    return f"{hashlib.sha256(folders.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}/{name}" if folders else name


def is_place(told: str, relative: str) -> bool:
    """Tell whether a sidecar means this path; those of earlier versions hold it in the clear."""
    return told in (told_place(relative), relative)
