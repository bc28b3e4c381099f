"""The table of all numbers that are given out: name, kind, unit, labels, what they mean. The only list of them.

Belongs here: the table, and what makes a name a good one (OpenMetrics 1.0, Prometheus' practices of naming). Does not
belong here: how a number is found (`numbers`, `serve.metrics`), how it is written (`exposition`).

What follows from the books is a gauge though it seldom falls: a batch that is run again is counted anew, and what is
erased leaves the count. A counter that falls looks like one that has begun again at zero, and `rate()` would make a
million new objects of it; of a gauge one asks `delta()`, or `max_over_time()`.

Labels are bounded: sources, services, tokens of the settings; statuses, outcomes, codes, steps and tables of the code.
No label names an object, a batch, a patient, a path or a host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

PREFIX = "dicom_assets_"


class Kind(StrEnum):
    """How a number may move."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """One number with its labels.

    name: without `_total`, which the samples of a counter have behind it. unit: the last part of the name, if it has
    one. meaning: one sentence, its HELP. origin: what it is read from, for the docs; "" for the server's own.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    origin: str = ""

    @property
    def sample_name(self) -> str:
        """What a sample of it is called; those of a histogram have other endings."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name


def _gauge(name: str, labels: str, meaning: str, origin: str, unit: str = "") -> Family:
    return Family(PREFIX + name, Kind.GAUGE, meaning, tuple(labels.split()), unit, origin)


def _own(name: str, kind: Kind, labels: str, meaning: str, unit: str = "") -> Family:
    return Family(PREFIX + name, kind, meaning, tuple(labels.split()), unit)


_OF_THE_LAKE = (
    _gauge("batches", "source status", "Batches by status; claimed: not begun yet.", "books and claims"),
    _gauge("objects", "source outcome", "Objects and members of archives, by what became of them.", "books"),
    _gauge(
        "unaccounted_objects",
        "source",
        "Objects of closed batches that are neither ingested nor quarantined, ignored or deleted; always 0.",
        "books",
    ),
    _gauge("quarantined_objects", "source code", "Objects that are kept out, by reason code.", "ledger"),
    _gauge(
        "waiting_objects",
        "source waiting",
        "Objects that are not accounted for yet: unclaimed (seen, not claimed), claimed, open, paused, failed (as "
        "their batch is), unread (they could not be read and are read again).",
        "looks, claims, books, returns",
    ),
    _gauge(
        "oldest_waiting_seconds",
        "source waiting",
        "Since when the oldest of these waits: since it was claimed, returned, or first seen without being claimed.",
        "looks, claims, books, returns",
        "seconds",
    ),
    _gauge(
        "last_closed_timestamp_seconds",
        "source",
        "When the last batch closed its books, in seconds since 1970.",
        "books",
        "seconds",
    ),
    _gauge(
        "step_seconds",
        "source step",
        "Seconds that the steps of closed batches took, each in the run that closed it.",
        "books",
        "seconds",
    ),
    _gauge("clinical_rows", "source", "Clinical records in the lake.", "books"),
    _gauge("current_studies", "source", "Studies as they are now.", "study"),
    _gauge("current_series", "source", "Series as they are now.", "study"),
    _gauge("current_instances", "source", "Instances as they are now.", "study"),
    _gauge("current_bytes", "source", "Bytes of the objects of current instances, at their source.", "study", "bytes"),
    _gauge("source_objects", "source", "Objects that the last look at a source found.", "looks"),
    _gauge("source_emptied", "source", "1 when a source looks emptied and its batches wait, else 0.", "looks"),
    _gauge(
        "window_lag_seconds",
        "service",
        "How far the newest window of changes that was read lies behind the newest that is due; 0: in step.",
        "landed windows",
        "seconds",
    ),
    _gauge("event_messages", "source queue", "Messages in a storage queue, roughly; poison: unreadable.", "queue"),
    _gauge("event_lag_seconds", "source", "Age of the message that is next in a storage queue.", "queue", "seconds"),
    _gauge("table_rows", "table", "Rows of a table.", "Delta log"),
    _gauge("table_files", "table", "Data files that the newest version of a table names.", "Delta log"),
    _gauge("table_bytes", "table", "Bytes of these files.", "Delta log", "bytes"),
    _gauge("table_version", "table", "Number of the newest version of a table.", "Delta log"),
    _gauge("unmeasured", "part", "1 when a part of the numbers could not be read: lake, windows or events.", ""),
    _gauge(
        "measured_timestamp_seconds",
        "",
        "When these numbers were read, in seconds since 1970.",
        "",
        "seconds",
    ),
    _gauge("measuring_seconds", "", "How long reading them took.", "", "seconds"),
)

_OF_THE_SERVER = (
    _own("requests", Kind.COUNTER, "route method status", "Requests that were answered, by resource, method, status."),
    _own("broken_answers", Kind.COUNTER, "route", "Answers that ended before their end."),
    _own("sent_bytes", Kind.COUNTER, "route", "Bytes of bodies that were sent.", "bytes"),
    _own("request_seconds", Kind.HISTOGRAM, "route", "From head to end of an answer.", "seconds"),
    _own("requests_at_once", Kind.GAUGE, "", "Requests that are being answered."),
)

FAMILIES: Mapping[str, Family] = {one.name.removeprefix(PREFIX): one for one in (*_OF_THE_LAKE, *_OF_THE_SERVER)}
"""Every number by its name without the prefix."""

OF_THE_LAKE: tuple[Family, ...] = _OF_THE_LAKE
"""What is read from the lake, in the order in which it is written."""

OF_THE_SERVER: tuple[Family, ...] = _OF_THE_SERVER
"""What `dicom-assets serve` counts of itself."""
