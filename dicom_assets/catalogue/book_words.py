"""How times and rows of the books are written for people and for spreadsheets.

Belongs here: words for durations, and a CSV file as an answer. Does not belong here: what all pages write alike
(`templating`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from markupsafe import Markup, escape
from starlette.responses import Response

from dicom_assets.printing import csv_text

_UNITS = ((365 * 86_400, "year"), (30 * 86_400, "month"), (86_400, "day"), (3_600, "hour"), (60, "minute"))


def age(since: datetime | None, now: datetime | None = None) -> str:
    """How long ago something was, in its largest unit: `3 days`, `under a minute`; empty where it is not known."""
    if since is None:
        return ""
    seconds = ((now or datetime.now(UTC)) - since).total_seconds()
    for length, unit in _UNITS:
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "under a minute"


def duration(seconds: float | None) -> str:
    """How long something took: `3.2 s`, `4 min 5 s`, `2 h 10 min`."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def spoken(text: str) -> Markup:
    """A sentence of ours, with what stands between backquotes as code."""
    said = [
        Markup("<code>{}</code>").format(part) if at % 2 else escape(part) for at, part in enumerate(text.split("`"))
    ]
    return Markup("").join(said)


def breakable(code: str) -> Markup:
    """A reason code that may be broken between its words."""
    return Markup("_<wbr>").join(code.split("_"))


def csv_answer(name: str, titles: Sequence[str], rows: Sequence[Sequence[object]]) -> Response:
    """Rows as a file that a spreadsheet can open without harm. name: of the file, without patient data."""
    text = csv_text(titles, [[_plain(value) for value in row] for row in rows], on_terminal=False)
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"', "Cache-Control": "no-store"}
    return Response(text, 200, headers, "text/csv")


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return " ".join(value) if isinstance(value, list | tuple) else value
