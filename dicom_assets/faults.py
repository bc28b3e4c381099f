"""Exceptions that nobody foresaw: what may be said about them, and how a developer sees the rest.

Belongs here: type and place of an exception, and the one switch that prints it whole. The text of an exception is never
passed on: it may quote a file's name or a value, and so a patient. Does not belong here: errors that say our own
sentences (`settings.UserError`), and what Dagster is told (`defs.failures`).

DICOM_ASSETS_TRACEBACK=1 prints each such exception with its traceback on this process's own stderr, and nowhere else:
Dagster, which keeps what a step prints, does not get it.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Mapping
from types import FrameType

TRACEBACK_VARIABLE = "DICOM_ASSETS_TRACEBACK"
"""Set to 1, it prints unforeseen exceptions whole; what is printed may hold patient data."""

_OWN = "dicom_assets"


def _wanted(environment: Mapping[str, str] = os.environ) -> bool:
    return environment.get(TRACEBACK_VARIABLE, "") not in ("", "0")


# Kept apart from the moment that this is imported: Dagster turns descriptor 2 into a file while a run lasts.
_stderr = os.dup(2) if _wanted() else None


def describe(error: BaseException) -> str:
    """Type and place of an exception, such as `KeyError at dicom_assets.batch.context:batch:151 (in duckdb:execute:9)`.

    The place is the innermost one of this package, and in brackets where a library raised it; no message, no values.
    """
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [(frame, line) for frame, line in frames if _module(frame).split(".")[0] == _OWN]
    kind = type(error).__qualname__
    if not frames:
        return kind
    innermost = _place(*frames[-1])
    if not own:
        return f"{kind} at {innermost}"
    mine = _place(*own[-1])
    return f"{kind} at {mine}" if mine == innermost else f"{kind} at {mine} (in {innermost})"


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "?"))


def _place(frame: FrameType, line: int) -> str:
    return f"{_module(frame)}:{frame.f_code.co_name}:{line}"


def sentence(error: BaseException) -> str:
    """What is said of an exception that nobody foresaw, wherever it is said."""
    return (
        f"A fault that nobody foresaw: {describe(error)}. Its text is not shown, since it may hold patient data; "
        f"{TRACEBACK_VARIABLE}=1 prints it on stderr."
    )


def show(error: BaseException) -> None:
    """Prints an exception whole on the stderr that this process had at its start, if the environment asks for it."""
    if _stderr is None:
        return
    text = "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace")
    while text:
        text = text[os.write(_stderr, text) :]


def hush() -> None:
    """Lets threads and finalizers that end by an exception say its type and place instead of all of it."""

    def in_thread(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_value is not None and not isinstance(ended.exc_value, SystemExit):
            _say(ended.exc_value)

    def unraisable(ended: sys.UnraisableHookArgs) -> None:
        if ended.exc_value is not None:
            _say(ended.exc_value)

    threading.excepthook = in_thread
    sys.unraisablehook = unraisable


def _say(error: BaseException) -> None:
    show(error)
    if sys.stderr is not None:
        print(f"dicom-assets: {sentence(error)}", file=sys.stderr)
