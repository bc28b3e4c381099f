"""Studies as people look for them: what a form asks for, and the rows that are found.

Belongs here: the fields, their SQL, the closed list of orders. Does not belong here: how one attribute is matched and
which row stands for a study (`serve.matching`, `serve.newest`), the page (`search_page`).

People do not write wildcards: a text is found wherever it stands in a value, whatever case and accents. What describes
equipment or body is asked of the series: a study is found when one of its series has all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from dicom_assets.catalogue.row_reading import Row, rows
from dicom_assets.lake.quoting import named
from dicom_assets.schema.attributes import Level
from dicom_assets.serve.matching import Condition, containing
from dicom_assets.serve.newest import newest
from dicom_assets.serve.served import Snapshot

PAGE = 50
"""Studies of a page."""

_LONGEST = 200
_COUNTS = ("series_count", "instance_count", "size", "updated_at")

COLUMNS = (
    *("StudyInstanceUID", "StudyDate", "StudyTime", "PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDescription", "ModalitiesInStudy", "AccessionNumber", "patient_count", *_COUNTS),
)
"""Of a study, those that a list of studies shows."""

_FOLDED = "lower(strip_accents({}))"
SORTS: Mapping[str, tuple[str, ...]] = {
    "date": ('"StudyDate"', '"StudyTime"'),
    "patient": (_FOLDED.format('"PatientName"'), '"PatientID"'),
    "id": ('"PatientID"',),
    "description": (_FOLDED.format('"StudyDescription"'),),
    "modality": ('"ModalitiesInStudy"',),
    "accession": ('"AccessionNumber"',),
    "series": ("series_count",),
    "images": ("instance_count",),
    "size": ("size",),
    "arrived": ("updated_at",),
}
"""What studies can be sorted by, and the SQL for it."""

_NEWEST_FIRST = ("date", "series", "images", "size", "arrived")
"""Orders of which the largest comes first unless the other way is asked for."""

_OF_SERIES = ("Manufacturer", "ManufacturerModelName", "StationName")


@dataclass(frozen=True)
class Search:
    """What somebody looks for. sort: a key of SORTS, with a minus sign for the other way. page: from 1."""

    patient: str = ""
    since: str = ""
    until: str = ""
    modality: str = ""
    body: str = ""
    description: str = ""
    accession: str = ""
    scanner: str = ""
    source: str = ""
    sort: str = "date"
    page: int = 1
    wrong: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def asked(self) -> dict[str, str]:
        """The fields that say something."""
        return {one.name: value for one in fields(self) if one.name in FIELDS and (value := getattr(self, one.name))}

    @property
    def order(self) -> str:
        """The key of SORTS."""
        return self.sort.removeprefix("-")

    @property
    def is_descending(self) -> bool:
        """Whether the largest comes first."""
        return (self.order in _NEWEST_FIRST) != self.sort.startswith("-")

    def query(self, **changed: object) -> str:
        """The query of an address for this search, with other values in place of some."""
        values: dict[str, object] = {**self.asked, "sort": self.sort, "page": self.page, **changed}
        return urlencode({k: v for k, v in values.items() if (k, v) not in (("sort", "date"), ("page", 1)) and v})

    def from_the_first(self) -> Search:
        """The same, its first page."""
        return replace(self, page=1)

    def sorted_by(self, key: str) -> str:
        """The query of the same search in another order; in the other direction where it has this one."""
        return self.query(sort=f"-{key}" if self.sort == key else key, page=1)


FIELDS = ("patient", "since", "until", "modality", "body", "description", "accession", "scanner", "source")


def read(parameters: QueryParams) -> Search:
    """The search of a request. What cannot be understood is left out, and told by field in `wrong`."""
    values = {name: parameters.get(name, "").strip()[:_LONGEST] for name in FIELDS}
    wrong = {}
    for name in ("since", "until"):
        if values[name] and _day(values[name]) is None:
            wrong[name] = "A date such as 2024-01-31 is needed."
    sort = parameters.get("sort", "date")
    if sort.removeprefix("-") not in SORTS:
        sort = "date"
    page = parameters.get("page", "1")
    number = int(page) if page.isascii() and page.isdigit() and len(page) < 9 else 1
    return Search(**values, sort=sort, page=max(number, 1), wrong=wrong)


@dataclass(frozen=True)
class Studies:
    """What is found. total: how many in all. rows: those of the page."""

    total: int
    rows: Sequence[Row]


def find(snapshot: Snapshot, search: Search, limit: int = PAGE) -> Studies:
    """The studies that a search finds, one page of them. Blocks."""
    conditions = _conditions(snapshot, search)
    is_counted = search.order in ("series", "images", "size", "arrived")
    own = newest(snapshot, Level.STUDY, counted=is_counted, columns=COLUMNS)
    where = " AND ".join(f"({one.sql})" for one in conditions) or "true"
    parameters = [*own.parameters, *(value for one in conditions for value in one.parameters)]
    way = "DESC" if search.is_descending else "ASC"
    order = ", ".join([*(f"{sql} {way} NULLS LAST" for sql in SORTS[search.order]), "StudyInstanceUID"])
    with snapshot.cursor() as connection:
        ((total,),) = connection.execute(f"SELECT count(*) FROM {own.sql} WHERE {where}", parameters).fetchall()
        offset = min(search.page - 1, max(total - 1, 0) // limit) * limit
        found = rows(
            connection,
            f"SELECT {', '.join(map(named, COLUMNS))} FROM {own.sql} WHERE {where} ORDER BY {order} "
            f"LIMIT {limit} OFFSET {offset}",
            parameters,
        )
    if not is_counted and len(snapshot.seen) > 1:
        found = _with_counts(snapshot, found)
    return Studies(total, found)


def _with_counts(snapshot: Snapshot, found: list[Row]) -> list[Row]:
    """Rows with what is counted over all sources that hold a study."""
    wanted = newest(snapshot, Level.STUDY, {"study": [row["StudyInstanceUID"] for row in found]}, columns=COLUMNS)
    sql = f"SELECT StudyInstanceUID, {', '.join(_COUNTS)} FROM {wanted.sql}"
    with snapshot.cursor() as connection:
        counts = {row["StudyInstanceUID"]: row for row in rows(connection, sql, wanted.parameters)}
    return [{**row, **counts.get(row["StudyInstanceUID"], {})} for row in found]


def _conditions(snapshot: Snapshot, search: Search) -> list[Condition]:
    found = [] if not search.patient else [_patient(search.patient)]
    for name, comparison in (("since", ">="), ("until", "<=")):
        if (bound := _day(getattr(search, name))) is not None:
            found.append(Condition(f'"StudyDate" {comparison} ?', (bound,)))
    modalities = [part for part in search.modality.upper().replace(",", " ").split() if part]
    if modalities:
        found.append(Condition('list_has_any("ModalitiesInStudy", ?)', (modalities,)))
    for name, column in (("description", "StudyDescription"), ("accession", "AccessionNumber")):
        if text := getattr(search, name):
            found.append(containing(named(column), text))
    if search.body or search.scanner:
        found.append(_of_series(snapshot, search))
    return found


def _patient(text: str) -> Condition:
    """By the words of a name in any order, or by a part of the ID."""
    words = [containing('"PatientName"', word) for word in text.replace("^", " ").replace(",", " ").split()]
    by_name = " AND ".join(one.sql for one in words) or "false"
    by_id = containing('"PatientID"', text)
    return Condition(
        f"({by_name}) OR {by_id.sql}", (*(value for one in words for value in one.parameters), *by_id.parameters)
    )


def _of_series(snapshot: Snapshot, search: Search) -> Condition:
    """Studies with a series of that body part from that scanner."""
    rows = newest(snapshot, Level.SERIES, counted=False, columns=("BodyPartExamined", *_OF_SERIES))
    terms, parameters = ["true"], [*rows.parameters]
    if search.body:
        one = containing('"BodyPartExamined"', search.body)
        terms.append(one.sql)
        parameters += one.parameters
    for word in search.scanner.split():
        text = f"concat_ws(' ', {', '.join(map(named, _OF_SERIES))})"
        one = containing(text, word)
        terms.append(one.sql)
        parameters += one.parameters
    sql = f"StudyInstanceUID IN (SELECT StudyInstanceUID FROM {rows.sql} AS series WHERE {' AND '.join(terms)})"
    return Condition(sql, tuple(parameters))


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
