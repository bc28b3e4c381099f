"""The page of an instance: its whole header with names, where it lies, its versions, what was found wrong with it.

Belongs here: gathering, and the page. Does not belong here: what a header says (`header_elements`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from starlette.responses import Response

from dicom_assets.catalogue.header_elements import Element, count, elements, matching, uid_name
from dicom_assets.catalogue.object_errors import errors_of
from dicom_assets.catalogue.page import Page
from dicom_assets.catalogue.row_reading import Row, rows
from dicom_assets.catalogue.series_page import ORDER
from dicom_assets.catalogue.viewer_links import viewers
from dicom_assets.catalogue.visit import Visit
from dicom_assets.dicom.header import RECEIVED
from dicom_assets.schema.attributes import Level
from dicom_assets.schema.codes import CODES
from dicom_assets.schema.correction_tables import RECEIVED as RECEIVED_AS
from dicom_assets.schema.keys import study_key
from dicom_assets.serve.newest import newest
from dicom_assets.serve.places import flat_source
from dicom_assets.serve.problems import not_found
from dicom_assets.serve.served import Scope, Snapshot

MOST = 2_000
"""Lines of a header that are shown."""

MOST_SEARCHED = 200_000
"""Lines of a header that are searched."""

MOST_VERSIONS = 200
_LONGEST_SEARCH = 200

_VERSION = (
    *("batch_id", "object_id", "source", "operation", "version_at", "sequence", "ingested_at", "uri", "member", "size"),
    *("content_digest", "issues", "SOPInstanceUID"),
)


@dataclass(frozen=True)
class Instance:
    """What a page of an instance shows.

    total: elements of the header. lines: of it, or those that a search finds. is_cut: whether there are more of these.
    changed: by attribute what the object says and what corrections have made of it. versions: rows of flat_metadata,
    the newest first.
    """

    row: Row
    header_form: str | None
    total: int
    lines: Sequence[Element]
    is_cut: bool
    changed: Sequence[tuple[str, object, object]]
    versions: Sequence[Row]
    errors: Sequence[Row]
    before: str | None
    behind: str | None

    @property
    def digest(self) -> str | None:
        """That of the current header."""
        mine = (self.row["batch_id"], self.row["object_id"])
        found = (one["content_digest"] for one in self.versions if (one["batch_id"], one["object_id"]) == mine)
        return next(found, None)


async def show(visit: Visit) -> Response:
    """One instance."""
    uids = visit.uids
    find = visit.request.query_params.get("find", "").strip()[:_LONGEST_SEARCH]
    found = await visit.ask(lambda: gather(visit.snapshot(["ingestion_errors"]), uids, find))
    return visit.page(
        "instance.html",
        uids=uids,
        instance=found,
        row=found.row,
        find=find,
        most_searched=MOST_SEARCHED,
        is_received=found.header_form == RECEIVED,
        viewers=viewers(visit, uids["study"], uids["series"]),
        uid_name=uid_name,
        codes=CODES,
    )


def gather(snapshot: Snapshot, uids: dict[str, str], find: str = "") -> Instance:
    """Everything of an instance. find: words that lines of the header must have. Raises Refusal (404). Blocks."""
    own = newest(snapshot, Level.INSTANCE, uids)
    with snapshot.cursor() as connection:
        found = rows(connection, f"SELECT * FROM {own.sql}", own.parameters)
    if not found:
        raise not_found("instance")
    row = found[0]
    header, form = _header(snapshot, row, uids)
    lines = _lines(header, find) if header else []
    versions = _versions(snapshot, row)
    before, behind = _neighbours(snapshot, uids)
    return Instance(
        row,
        form,
        count(header) if header else 0,
        lines[:MOST],
        len(lines) > MOST,
        _changed(row),
        versions,
        errors_of(snapshot, versions),
        before,
        behind,
    )


def _lines(header: str, find: str) -> list[Element]:
    """The lines of a header that a search finds, one more than are shown of them."""
    found = elements(header)
    return [*islice(matching(islice(found, MOST_SEARCHED), find) if find else found, MOST + 1)]


def _header(snapshot: Snapshot, row: Row, uids: dict[str, str]) -> tuple[str | None, str | None]:
    """The stored header of the current object, and its form."""
    columns = ("batch_id", "object_id", "operation", "header", "header_form")
    with snapshot.cursor() as connection:
        found = connection.execute(
            f"SELECT header, header_form FROM {flat_source(snapshot, [row], uids, columns)} "
            "WHERE batch_id = ? AND object_id = ? AND operation = 'upsert'",
            [row["batch_id"], row["object_id"]],
        ).fetchall()
    return found[0] if found else (None, None)


def _versions(snapshot: Snapshot, row: Row) -> list[Row]:
    """Every version of an instance that the lake has from the source of its current one, the newest first.

    row: of `instance`, which the caller may see; its versions stand in the study that its object names.
    """
    key = study_key(row["source"], row["received_study_instance_uid"] or row["StudyInstanceUID"])
    whole = snapshot.within(Scope())
    with snapshot.cursor() as connection:
        batches = connection.execute(
            f"SELECT batch_id FROM {whole.scan('batch_study', {'study_key': [key]})}"
        ).fetchall()
        names = {row["batch_id"], *(name for (name,) in batches)}
        source = whole.scan("flat_metadata", {"batch_id": sorted(names), "study_key": [key]}, _VERSION)
        return rows(
            connection,
            f"SELECT * FROM {source} WHERE SOPInstanceUID = ? "
            f"ORDER BY version_at DESC, sequence DESC, object_id DESC LIMIT {MOST_VERSIONS}",
            [row["SOPInstanceUID"]],
        )


def _neighbours(snapshot: Snapshot, uids: dict[str, str]) -> tuple[str | None, str | None]:
    """The instances before and behind one in its series."""
    series = {name: uids[name] for name in ("study", "series")}
    own = newest(snapshot, Level.INSTANCE, series, columns=("InstanceNumber",))
    with snapshot.cursor() as connection:
        found = connection.execute(
            "SELECT * EXCLUDE (SOPInstanceUID) FROM (SELECT SOPInstanceUID, "
            f"lag(SOPInstanceUID) OVER (ORDER BY {ORDER}), lead(SOPInstanceUID) OVER (ORDER BY {ORDER}) "
            f"FROM {own.sql}) WHERE SOPInstanceUID = ?",
            [*own.parameters, uids["instance"]],
        ).fetchall()
    return found[0] if found else (None, None)


def _changed(row: Row) -> list[tuple[str, object, object]]:
    """Attributes that corrections have changed: name, what the object says, what the lake says."""
    if not row["corrections"]:
        return []
    return [(now, row[said], row[now]) for said, now in RECEIVED_AS.items() if row[said] != row[now]]


PAGES = (Page("/studies/{study}/series/{series}/instances/{instance}", show),)
