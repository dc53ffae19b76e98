"""What must be the same when a run goes on, kept in its checkpoints: settings, ranks, the data themselves."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from monai_ext.base import SettingError, world

DataRecord = Sequence[tuple[str, str]]
_SHOWN = 3


def make_record(settings: Mapping[str, Any], data: DataRecord | None) -> dict[str, Any]:
    """Return the record of this run, of plain types alone.

    Args:
        settings: by name.
        data: name and checksum of each scan, in order; ``None`` where they are not compared.
    """
    record = {"settings": {name: _plain(value) for name, value in settings.items()}, "ranks": world()}
    return record if data is None else record | {"data": [[name, sha256] for name, sha256 in data]}


def compare_settings(before: Mapping[str, Any], now: Mapping[str, Any], place: str) -> None:
    """Refuse to go on with other settings, which would be another run under the name of the first.

    What only one of them knows is not compared: versions of this package may differ in that.

    Args:
        before: the record of the checkpoint.
        now: that of this run.
        place: the checkpoint's name.

    Raises:
        SettingError: naming each setting.
    """
    old = {"ranks": before.get("ranks", now["ranks"]), **before.get("settings", {})}
    new = {"ranks": now["ranks"], **now["settings"]}
    changed = [
        f"{name} was {_shown(old[name])} and is now {_shown(new[name])}"
        for name in new
        if name in old and old[name] != new[name]
    ]
    if changed:
        raise SettingError(
            f"{place}: {'; '.join(changed)}; resume with the same, or start a new run in another output_dir with the "
            "weights of this one as pretrained",
            code="setting.resume",
        )


def compare_data(before: Mapping[str, Any], now: Mapping[str, Any], bad: Collection[str], place: str) -> None:
    """Refuse to go on with other data.

    Args:
        before: the record of the checkpoint.
        now: that of this run.
        bad: scans that the run passed over, and that may have been mended since.
        place: the checkpoint's name.

    Raises:
        SettingError: naming scans.
    """
    if "data" not in before or "data" not in now:
        return
    old, new = ([(name, "" if name in bad else sha256) for name, sha256 in one["data"]] for one in (before, now))
    if old != new:
        raise SettingError(
            f"{place}: the training data are not those of the run: {_differences(old, new)}; put them back, or start "
            "a new run in another output_dir with the weights of this one as pretrained",
            code="setting.resume_data",
        )


def _differences(before: DataRecord, now: DataRecord) -> str:
    old, new = _by_name(before), _by_name(now)
    parts = {
        "gone": [name for name in old if name not in new],
        "new": [name for name in new if name not in old],
        "replaced": [name for name in new if name in old and old[name] != new[name]],
    }
    told = [f"{_some(names)} {'is' if len(names) == 1 else 'are'} {what}" for what, names in parts.items() if names]
    return ", ".join(told) or "they come in another order"


def _by_name(data: DataRecord) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, sha256 in data:  # pictures of two folders may share a name
        found.setdefault(name, []).append(sha256)
    return found


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def _plain(value: Any) -> Any:
    """Return the value as JSON would give it back: a checkpoint holds nothing else, and a list equals a tuple."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value)
