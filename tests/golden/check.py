"""Compare this package with golden files: ``python tests/golden/check.py FILE_OR_DIR ...``.

One JSON line per stored value on standard output (``file, tensor, max_abs_err, tol, ok``), reasons on
standard error. Exit status 1 if anything is not ok, 2 if nothing was to be compared.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from formats import FORMATS
from formats.comparison import Comparison, Line
from formats.golden import read

IGNORED = "README.md"


def find_files(places: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Yield every file with the name its lines bear: relative to the folder it was found through."""
    for place in places:
        if place.is_dir():
            for path in sorted(path for path in place.rglob("*") if not path.is_dir()):
                yield path, path.relative_to(place).as_posix()
        else:
            yield place, place.name


def check_file(path: Path, name: str) -> list[Line]:
    """Return the verdict on every value that a file holds; one failing line if it cannot be read.

    Args:
        path: the file.
        name: how the lines name it.
    """
    # Whatever a file provokes, its own lines fail and the other files go on.
    try:
        golden = read(path)
        kinds = [kind for kind in FORMATS if kind.recognises(golden)]
        if len(kinds) != 1:
            raise ValueError("its content is of no known format")
        compare = Comparison(name, golden.entries(), kinds[0].TOLERANCES)
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        return [Line(name, None, None, None, ok=False)]
    try:
        kinds[0].check(golden, compare)
    except Exception as error:
        compare.fail("check", f"{type(error).__name__}: {error}")
    return compare.finish()


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the files named on the command line."""
    parser = argparse.ArgumentParser(description="Compare monai_ext with golden files, one JSON line a value.")
    parser.add_argument("places", nargs="+", type=Path, metavar="FILE_OR_DIR", help=f"{IGNORED} is ignored")
    verdicts: list[bool] = []
    for path, name in find_files(parser.parse_args(arguments).places):
        if path.name != IGNORED:
            for line in check_file(path, name):
                print(line, flush=True)
                verdicts.append(line.ok)
    if not verdicts:
        print("nothing to compare: no golden file found", file=sys.stderr)
        return 2
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
