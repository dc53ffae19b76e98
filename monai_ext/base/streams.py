"""What a terminal prints where it cannot show a letter."""

import io
import sys


def print_any_name() -> None:
    r"""Let names that the terminal's encoding lacks be printed as ``\xe9``, instead of ending the run.

    File names may hold any bytes, and a terminal may be set to ASCII; a summary of a thousand scans is not to
    fail for one name.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
