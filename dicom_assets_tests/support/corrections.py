"""Tables of corrections as tests write them.

Belongs here: rows with what a test is about, the rest made up. Does not belong here: where they are put (`landings`).
"""

from __future__ import annotations

import csv
import io

from dicom_assets.clinical.correction_reader import COLUMNS

MONDAY, TUESDAY = "2026-11-16T08:00:00Z", "2026-11-17T08:00:00Z"


def correction(scope: str, key: str, **said: str) -> dict[str, str]:
    """A row about `key`, said by somebody on Monday."""
    return {"scope": scope, "key": key, "corrected_by": "steward", "corrected_at": MONDAY, **said}


def link(prior: str, surviving: str, **said: str) -> dict[str, str]:
    """A row that says that one identifier is another one's."""
    return correction("patient_link", prior, PatientID=surviving, **said)


def table(*rows: dict[str, str]) -> str:
    """A CSV file of corrections."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue()
