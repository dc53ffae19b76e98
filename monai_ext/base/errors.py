"""Errors that a user can act on: one sentence with the place, the value and the way out."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    Args:
        message: one sentence, naming the case, the value and what to do; no parent paths, no DICOM tags.
        code: a stable, dotted word for programs, such as ``"scan.truncated"``.
        case: base name or manifest id of the scan concerned, if one is.
    """

    def __init__(self, message: str, *, code: str = "input", case: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.case = case

    def __reduce__(self) -> tuple[object, ...]:
        # Worker processes send errors back pickled; the default form would lose the keywords.
        return _rebuild, (type(self), str(self), self.code, self.case)


def _rebuild(kind: type[InputError], message: str, code: str, case: str | None) -> InputError:
    return kind(message, code=code, case=case)


class ScanError(InputError):
    """A scan cannot be read, or reading it would be silently wrong."""


class GeometryError(ScanError):
    """Shape, spacing, orientation or affine of a scan is unusable or contradicts another one."""


class LabelError(InputError):
    """A label volume holds something else than the classes it should."""


class WeightsError(InputError):
    """Weights are missing, of another size, or not safe to load."""


class StoreError(InputError):
    """A volume store is missing, torn or made by other settings."""


class ManifestError(InputError):
    """A manifest or datalist is malformed or points outside its root."""


class SettingError(InputError):
    """A number or word in a configuration or on the command line is out of range."""


class RunError(InputError):
    """A run met more trouble than its settings allow, or than it can go on with."""


class WriteError(InputError):
    """An output could not be written whole; nothing half-written remains."""


def input_error_in(error: BaseException | None) -> InputError | None:
    """Return the first `InputError` among an error and its causes: MONAI wraps what goes wrong in a configuration."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error
