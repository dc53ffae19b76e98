"""How ``python -m monai.bundle`` ends when the user gave something that cannot be used."""

import os
import signal
import sys
import threading
from types import TracebackType

from monai_ext.base import input_error_in, lost_a_rank, print_any_name, tell_torchrun


def end_in_a_sentence() -> None:
    """Let the command line of MONAI's bundles end in the sentence of an `InputError`, with exit code 2.

    MONAI wraps what goes wrong in a configuration, so that the sentence stands in the middle of a hundred
    lines. Any other error keeps its traceback, and its first cause is told once more at the end; an
    interruption says how to go on (exit code 130), also one that falls into the clearing up of a loader.
    Programs that run a bundle from Python are left alone: they catch the error themselves.
    """
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if main is not None and main.name == "monai.bundle.__main__":
        sys.excepthook = _tell
        sys.unraisablehook = _pass_interruptions_on
        print_any_name()


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    cause = input_error_in(error)
    if cause is not None:
        # Not sys.stderr, which torch replaces around this hook once ranks have joined.
        print(f"error: {_sentence(cause)}", file=sys.__stderr__)
        tell_torchrun(_sentence(cause))
        raise SystemExit(2)  # the interpreter takes the exit code from its hook
    if lost_a_rank(error):
        print("error: another rank has ended; its own message tells why", file=sys.__stderr__)
        raise SystemExit(1)
    if issubclass(kind, KeyboardInterrupt):
        print("\ninterrupted: files are whole or absent; a training goes on with --resume true", file=sys.__stderr__)
        raise SystemExit(130)
    sys.__excepthook__(kind, error, trace)
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    if first is not error:  # what came first stands far above
        print(f"\nIt began with {type(first).__name__}: {first}", file=sys.__stderr__)


def _pass_interruptions_on(unraisable: "sys.UnraisableHookArgs") -> None:
    # Python drops what is raised in __del__, where torch's loaders wait for their workers at the end of each
    # epoch: Ctrl-C then was lost. Once more, a moment later, it reaches the run itself.
    if unraisable.exc_type is not None and issubclass(unraisable.exc_type, KeyboardInterrupt):
        # A real signal: one that is only noted would not end a wait, such as that for a worker's next batch.
        again = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(unraisable)


def _sentence(error: BaseException) -> str:
    # An error from a loader's worker process arrives as the text of its traceback, "module.Kind: sentence" last.
    last = str(error).rstrip().rpartition("\n")[2]
    return last.removeprefix(f"{type(error).__module__}.{type(error).__qualname__}: ")
