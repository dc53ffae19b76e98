"""What C libraries print while they decode: libjpeg tells of damage nowhere else, and goes on with made-up values."""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()


class Printed:
    """What was printed while the context of `printed_by_libraries` lasted; empty until it ends."""

    text: str = ""


@contextmanager
def printed_by_libraries() -> Iterator[Printed]:
    """Catch what is written to the descriptor of standard error, by whomever; one caller at a time.

    Other threads may write there meanwhile. The caller hands on what is not meant for it, with `hand_on`.
    """
    found = Printed()
    with _lock, tempfile.TemporaryFile() as caught:
        try:
            kept = os.dup(2)
        except OSError:  # a process without standard error, such as a service
            kept = None
        os.dup2(caught.fileno(), 2)
        try:
            yield found
        finally:
            if kept is None:
                os.close(2)
            else:
                os.dup2(kept, 2)
                os.close(kept)
            caught.seek(0)
            found.text = caught.read().decode("utf-8", "replace")


def hand_on(text: str) -> None:
    """Write to standard error what was caught from others."""
    if text:
        try:
            os.write(2, text.encode("utf-8", "replace"))
        except OSError:
            return  # there is no standard error, or nobody reads it any more
