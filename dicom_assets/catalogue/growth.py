"""What a lake holds and how it has grown: studies by date and modality, objects and errors by when they came.

Belongs here: counting, and the periods that time is divided into. Does not belong here: drawing (`plots`), what may be
seen of studies (`serve.served`) and of books (`seen_books`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from dicom_assets.catalogue.row_reading import rows
from dicom_assets.catalogue.seen_books import SeenBooks
from dicom_assets.schema.codes import Outcome, Severity
from dicom_assets.serve.served import Snapshot

MOST_PERIODS = 40
"""Of one plot: more bars than these cannot be told apart."""
MOST_KINDS = 6
"""Kinds that a plot tells apart; the others are put together."""
OTHERS = "others"
UNKNOWN = "not given"


@dataclass(frozen=True, slots=True)
class Holdings:
    """What of one source is current. bytes: of its objects where they lie."""

    source: str
    studies: int
    series: int
    instances: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a lake holds now, as far as it may be seen.

    patients: different PatientIDs with their issuers. nameless: studies without one. studies: different Study Instance
    UIDs; one that lies in two sources counts once here, and in each of `sources`. newest_at: when the newest object was
    claimed. newest_study: the latest date of a study, of those that are not in the future.
    """

    patients: int
    nameless: int
    studies: int
    series: int
    instances: int
    bytes: int
    newest_at: datetime | None
    newest_study: date | None
    sources: Sequence[Holdings]


def standing(snapshot: Snapshot, now: datetime | None = None) -> Standing:
    """What a lake holds. Raises LakeError, Stopped."""
    today = (now or datetime.now(UTC)).date()
    columns = ("source", "StudyInstanceUID", "PatientID", "IssuerOfPatientID", "StudyDate", "series_count",
               "instance_count", "size", "updated_at")  # fmt: skip
    study = snapshot.scan("study", columns=columns)
    with snapshot.cursor() as connection:
        (whole,) = rows(connection, _STANDING.format(study=study), [today])
        of_sources = rows(connection, _SOURCES.format(study=study))
    sources = [Holdings(**one) for one in of_sources]
    return Standing(
        **whole,
        series=sum(one.series for one in sources),
        instances=sum(one.instances for one in sources),
        bytes=sum(one.bytes for one in sources),
        sources=sources,
    )


_STANDING = """
SELECT
    count(DISTINCT (PatientID, coalesce(IssuerOfPatientID, ''))) FILTER (PatientID IS NOT NULL) AS patients,
    count(DISTINCT StudyInstanceUID) FILTER (PatientID IS NULL) AS nameless,
    count(DISTINCT StudyInstanceUID) AS studies,
    max(updated_at) AS newest_at,
    max(StudyDate) FILTER (StudyDate <= $1) AS newest_study
FROM {study}
"""

_SOURCES = """
SELECT
    source, count(*) AS studies, sum(series_count)::BIGINT AS series, sum(instance_count)::BIGINT AS instances,
    coalesce(sum(size), 0)::BIGINT AS bytes
FROM {study}
GROUP BY source
ORDER BY source
"""


@dataclass(frozen=True, slots=True)
class Course:
    """Counts by period and kind: what a plot shows.

    periods: their names, in order, without a gap. kinds: the most frequent first. counts: of each kind, by period.
    left_out: what has no time.
    """

    unit: str
    periods: Sequence[str]
    kinds: Sequence[str]
    counts: Mapping[str, Sequence[int]]
    left_out: int = 0

    @property
    def totals(self) -> list[int]:
        """Of each period, all kinds together."""
        return [sum(self.counts[kind][at] for kind in self.kinds) for at in range(len(self.periods))]


def studies_by_modality(snapshot: Snapshot) -> Course:
    """Studies by their date and by what made them; one of several modalities is told as such, `CT+PT`.

    Objects that are no images (SR, PR, KO and their like) name no kind beside a modality that does. Raises LakeError.
    """
    study = snapshot.scan("study", columns=("StudyInstanceUID", "StudyDate", "ModalitiesInStudy"))
    with snapshot.cursor() as connection:
        found = connection.execute(_STUDIES.format(study=study), [[*_NO_IMAGES]]).fetchall()
    return course([(day, kind or UNKNOWN, count) for day, kind, count in found])


_NO_IMAGES = ("SR", "PR", "KO", "DOC", "REG", "SEG", "RWV", "FID", "PLAN", "AU", "OT")

_STUDIES = """
WITH known AS (
    SELECT StudyInstanceUID, min(StudyDate) AS day, list_sort(list_distinct(flatten(list(ModalitiesInStudy)))) AS every
    FROM {study}
    GROUP BY StudyInstanceUID
),
told AS (
    SELECT day, every, list_filter(every, lambda one: NOT list_contains($1, one)) AS images FROM known
)
SELECT day, array_to_string(CASE WHEN len(images) > 0 THEN images ELSE every END, '+') AS kind, count(*)
FROM told
GROUP BY ALL
"""


def objects_by_outcome(books: SeenBooks) -> Course:
    """Objects of closed batches by when their books closed, and by what became of them. Raises LakeError."""
    sums = ", ".join(f"sum({outcome})::BIGINT AS {outcome}" for outcome in Outcome)
    with books.batches() as connection:
        found = rows(
            connection, f"SELECT closed_at::DATE AS day, {sums} FROM seen_batch WHERE status = 'closed' GROUP BY day"
        )
    counted = [(one["day"], str(outcome), one[outcome]) for one in found for outcome in Outcome]
    return course(counted, kinds=[str(one) for one in Outcome])


def errors_by_severity(books: SeenBooks) -> Course:
    """Rows of ingestion_errors by when they were found. Raises LakeError."""
    with books.batches("ingestion_errors") as connection:
        found = connection.execute(_ERRORS).fetchall()
    return course(found, kinds=[str(one) for one in Severity])


_ERRORS = """
SELECT occurred_at::DATE AS day, severity, count(*)
FROM ingestion_errors SEMI JOIN seen_batch USING (batch_id)
GROUP BY ALL
"""


def course(counted: Iterable[tuple[date | None, str, int]], kinds: Sequence[str] | None = None) -> Course:
    """Counts by day and kind, put together by as short a period as `MOST_PERIODS` lets there be.

    kinds: those that there are, in order; without it the most frequent, and `others`.
    """
    known = [(day, kind, count) for day, kind, count in counted if count]
    left_out = sum(count for day, _, count in known if day is None)
    dated = [(day, kind, count) for day, kind, count in known if day is not None]
    if kinds is None:
        totals = Counter[str]()
        for _, kind, count in dated:
            totals[kind] += count
        most = [kind for kind, _ in sorted(totals.items(), key=lambda one: (-one[1], one[0]))]
        kinds = most if len(most) <= MOST_KINDS + 1 else [*most[:MOST_KINDS], OTHERS]
    if not dated:
        return Course("", [], [], {}, left_out)
    first, last = min(day for day, _, _ in dated), max(day for day, _, _ in dated)
    unit, periods, place = _periods(first, last)
    counts = {kind: [0] * len(periods) for kind in kinds}
    for day, kind, count in dated:
        counts[kind if kind in counts else OTHERS][place(day)] += count
    shown = [kind for kind in kinds if any(counts[kind])]
    return Course(unit, periods, shown, {kind: counts[kind] for kind in shown}, left_out)


def _periods(first: date, last: date) -> tuple[str, list[str], Callable[[date], int]]:
    """The periods from one day to another: what one is called, their names, and in which of them a day lies."""
    days = (last - first).days
    months = _month(last) - _month(first)
    if days < MOST_PERIODS:
        return "day", [f"{first + timedelta(days=n):%Y-%m-%d}" for n in range(days + 1)], lambda day: (day - first).days
    if months < MOST_PERIODS:
        return (
            "month",
            [_month_name(_month(first) + n) for n in range(months + 1)],
            lambda day: _month(day) - _month(first),
        )
    for span in (1, 2, 5, 10, 25, 100, 250):
        start = first.year // span * span
        count = (last.year - start) // span + 1
        if count <= MOST_PERIODS:
            break
    names = [
        str(start + n * span) if span == 1 else f"{start + n * span}–{start + n * span + span - 1}"
        for n in range(count)
    ]
    return "year" if span == 1 else f"{span} years", names, lambda day: (day.year - start) // span


def _month(day: date) -> int:
    return day.year * 12 + day.month - 1


def _month_name(number: int) -> str:
    return f"{number // 12:04d}-{number % 12 + 1:02d}"
