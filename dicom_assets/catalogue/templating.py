"""Templates, and the answer that a page is.

Belongs here: how values get into a page, and the headers of every page. Does not belong here: single pages.

Whatever stands in a page has gone through `shown`: control characters are escaped, as on a terminal, then markup. What
comes from outside is never made Markup.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from dicom_assets.catalogue.static_files import StaticFiles
from dicom_assets.printing import visible
from dicom_assets.serve.addresses import address
from dicom_assets.serve.exchange import Caller

FOLDER = Path(__file__).parent / "templates"

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
"""Of every page: nothing from elsewhere, no script in the page itself, nothing kept by the browser."""

SAME_ORIGIN = {"Referrer-Policy": "same-origin"}
"""Of a page with a form that posts: without a referrer browsers say that such a form comes from nowhere."""

_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


class Templates:
    """The templates of the catalogue."""

    def __init__(self, files: StaticFiles) -> None:
        """files: those that pages name by `static('…')`."""
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(FOLDER),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            finalize=shown,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters |= {one.__name__: one for one in (size, number, day, moment, clock, person)}
        self._files = files

    def page(
        self,
        template: str,
        root: str,
        caller: Caller,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **values: Any,
    ) -> Response:
        """A page. root: see `Visit`. values: of the template."""

        def static(name: str) -> str:
            return root + self._files.address(name)

        def at(*uids: str) -> str:
            return address(root, uids)

        def below(base: str, *uids: str) -> str:
            return address(root + base, uids)

        made = self._environment.get_template(template)
        text = made.render(root=root, caller=caller, static=static, at=at, below=below, **values)
        return HTMLResponse(text, status, {**HEADERS, **(headers or {})})


def shown(value: Any) -> Any:
    """What stands in a page for a value: nothing for None, and texts without control characters."""
    if value is None:
        return ""
    if isinstance(value, Markup | jinja2.Undefined):
        return value
    if isinstance(value, list | tuple):
        return ", ".join(str(shown(one)) for one in value)
    return visible(value) if isinstance(value, str) else value


def size(value: int | None) -> str:
    """Bytes for people: 12.3 MB."""
    if value is None:
        return ""
    amount, unit = float(value), 0
    while amount >= 1_000 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1_000, unit + 1
    return f"{amount:.1f} {_UNITS[unit]}" if unit else f"{value} B"


def number(value: int | None) -> str:
    """A count for people: 12,345."""
    return "" if value is None else f"{value:,}"


def day(value: date | None) -> str:
    """A date as 2024-01-31; of a time, that of UTC."""
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d}"
    return "" if value is None else value.isoformat()


def moment(value: datetime | None) -> str:
    """A time as 2024-01-31 14:05:09 UTC."""
    return "" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def clock(value: str | None) -> str:
    """A time of day as columns have it, to the second."""
    return "" if value is None else value.split(".")[0]


def person(value: str | None) -> str:
    """A name of a person (PS3.5 6.2.1.2) as people write it: family name, comma, the rest."""
    if not value:
        return ""
    family, *others = value.split("=")[0].split("^")
    rest = " ".join(part for part in others if part)
    return f"{family}, {rest}" if family and rest else family or rest
