"""The command `fpemu`: formats | show | explain | diff | quantize | dequantize | doctor.

Results go to standard output. What the user got wrong is one line on standard error and exit
code 2, and nothing has been written; an interrupt is exit code 130.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

USER_ERRORS = (ValueError, TypeError, OSError, ImportError, MemoryError)


def main() -> NoReturn:
    """Run the command with the process's arguments, and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    try:
        from fpemu.cli import _app
    except ImportError as error:
        return _complain(f"{error}; install what the command needs with pip install 'fpemu[cli]'")
    try:
        return _app.run(arguments)
    except (_app.UsageError, *USER_ERRORS) as error:
        return _complain(_message(error))
    except (KeyboardInterrupt, _app.Abort):
        _complain("interrupted; nothing was written")
        return 130


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    shown = getattr(error, "format_message", None)  # usage errors keep their hints there
    return str(shown() if shown else error) or type(error).__name__


def _complain(message: str) -> int:
    print("fpemu:", " ".join(message.split()), file=sys.stderr)
    return 2
