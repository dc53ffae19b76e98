"""Keeping pydicom silent: it warns of values that break the standard and logs them, word for word."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_quiet: ContextVar[bool] = ContextVar("quiet_pydicom", default=False)


def _pass(_: logging.LogRecord) -> bool:
    return not _quiet.get()


# A filter that stays and asks who is calling: other threads keep their messages, and none is lost for good.
for _name in ("pydicom", "pydicom.pixels.utils", "pydicom.pixels.decoders.base", "pydicom.pixels.encoders.base"):
    logging.getLogger(_name).addFilter(_pass)


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Let pydicom neither warn nor log; both would quote what a header says of the patient."""
    token = _quiet.set(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _quiet.reset(token)
