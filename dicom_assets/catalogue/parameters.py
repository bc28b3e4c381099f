"""What the address of a page asks for: filters and pages, and addresses that ask for the same and something else.

Belongs here: reading parameters of a query, and writing them. Does not belong here: what they mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from urllib.parse import urlencode

from starlette.requests import Request

from dicom_assets.serve.problems import bad_parameter

_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Paging:
    """Where in a list a page is. number: from 1. before, after: queries of its neighbours, None where there is none."""

    number: int
    pages: int
    before: str | None
    after: str | None


class Parameters:
    """The parameters of one request; what is empty is as if it were not there."""

    def __init__(self, request: Request) -> None:
        """Nothing is judged yet."""
        self._given = {name: value.strip() for name, value in request.query_params.items() if value.strip()}

    def text(self, name: str) -> str:
        """A text. Raises Refusal (400)."""
        found = self._given.get(name, "")
        if len(found) > _LONGEST:
            raise bad_parameter(name, f"longer than {_LONGEST} characters.")
        return found

    def one_of(self, name: str, values: Iterable[str]) -> str:
        """One of some values, or nothing. Raises Refusal (400)."""
        found, known = self.text(name), [str(value) for value in values]
        if found and found not in known:
            raise bad_parameter(name, f"one of {', '.join(known)}.")
        return found

    def day(self, name: str) -> date | None:
        """A day. Raises Refusal (400)."""
        found = self.text(name)
        try:
            return date.fromisoformat(found) if found else None
        except ValueError:
            raise bad_parameter(name, "a day such as 2026-11-20.") from None

    def page(self) -> int:
        """The number of the page of a list, from 1. Raises Refusal (400)."""
        found = self.text("page") or "1"
        number = int(found) if found.isascii() and found.isdigit() and len(found) < 8 else 0
        if number == 0:
            raise bad_parameter("page", "a number from 1.")
        return number

    def but(self, **changed: str | int | None) -> str:
        """The same query with something else in it, `?a=b`; None takes a parameter away."""
        asked: Mapping[str, str | int | None] = {**self._given, **changed}
        return "?" + urlencode({name: value for name, value in asked.items() if value not in (None, "")})

    def paging(self, number: int, total: int, per_page: int) -> Paging:
        """Where a page is among those of a list."""
        pages = max(-(-total // per_page), 1)
        before = self.but(page=min(number - 1, pages)) if number > 1 else None
        return Paging(number, pages, before, self.but(page=number + 1) if number < pages else None)
