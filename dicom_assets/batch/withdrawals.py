"""What is gone at a source: noticed by an audit, and with `deletions = "follow"` gone from the current tables as well.

Belongs here: comparing a source with what is current of it, claiming batches of deletes, and staging such a batch.
Does not belong here: when audits are made (`defs`), whether a source looks emptied (`landing.looks`).

An object is gone when a listing of its whole source lacks it and it is not there when it is asked for: a pattern that
leaves it out does not make it gone. A member is gone as well when something that lacks it was read whole in the place
of its archive. Nothing is gone below a place that could not be listed, of a source that looks
emptied, and of what mode `organize` has moved.

A delete is an object of a batch like any other. Its claim names the place of what is gone, and which instances that
held stands in `{lake}/_withdrawals/{audit}.parquet`, written first. Its row in flat_metadata says `delete`; the place
counts as claimed again, so that what lay there is not current any more, and that something else of the same instance
is, wherever it lies. A file that comes back is claimed again by that same rule, and is current again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.presence import watch
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect, quoted
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.landing.claims import BatchKind, Claim, ClaimLog, stamp
from dicom_assets.landing.looks import Looks, SourceEmptied, Watch, looks_emptied, scope_of, sentence
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.refusals import CODE, ERASED
from dicom_assets.landing.store import ORGANIZED, LandingStore, ObjectError, ObjectRef, object_id
from dicom_assets.schema.codes import CODES, Kind, Outcome
from dicom_assets.schema.registry import SOURCE_AUDIT, TIMESTAMP
from dicom_assets.settings import Settings, SourceSettings
from dicom_assets.storage.files import LakeFiles

FOLDER = "_withdrawals"
GONE = "gone "
"""What the etag of a delete begins with; the audit that found it follows."""
LEFT_OUT = "left out "
"""The same, of a delete of members: what lies in the place of their archive stays."""
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_TEXTS = ("claimed_id", "object_id", "source", "uri", "member", "study_key", *_UIDS)
PLAN = pa.schema([pa.field(name, pa.string()) for name in _TEXTS])
"""One row per instance that a delete withdraws. claimed_id: the object of the claim, a file or an archive."""

_CURRENT = """
-- one row per current instance of a source whose place is not listed
SELECT instance.object_id, instance.source, uri, member, study_key, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID
FROM instance ANTI JOIN listed USING (uri)
WHERE split_part(instance.source, '/', 1) = {source} AND uri IS NOT NULL
ORDER BY uri, member
"""

_LEFT_OUT = """
-- one row per current instance in an archive whose place is listed and that something has replaced which lacks it;
-- not where that is an archive that could not be read whole, nested ones included
SELECT instance.object_id, instance.source, instance.uri, instance.member, study_key, StudyInstanceUID,
    SeriesInstanceUID, SOPInstanceUID
FROM instance
SEMI JOIN listed ON listed.uri = instance.uri
JOIN raw_files AS own USING (batch_id, object_id)
JOIN overwritten AS last
    ON last.source = instance.source AND last.uri = instance.uri AND last.member IS NULL
    AND last.claimed_at > own.claimed_at
WHERE instance.source = {source} AND instance.member IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM validated_batch AS ledger JOIN raw_files AS there USING (batch_id, object_id)
    WHERE there.batch_id = last.batch_id AND there.uri = last.uri
        AND ledger.kind = 'archive' AND ledger.code IS DISTINCT FROM 'ARCHIVE_EXPANDED'
)
ORDER BY instance.uri, instance.member
"""


@dataclass(frozen=True)
class SourceAudit:
    """What an audit of one source found. listed: objects there; gone: schema PLAN without claimed_id and object_id.

    replaced: places in which archives lay and something else lies now.
    """

    source: str
    audit_id: str
    listed: int
    gone: pa.Table
    replaced: frozenset[str] = frozenset()

    @property
    def files(self) -> int:
        """How many files or archives are gone."""
        return len(self.gone["uri"].unique())


def audit(lake: Lake, looks: Looks, settings: Settings, source: SourceSettings) -> SourceAudit:
    """Compares a source with what is current of it, and keeps what is gone in `source_audit`.

    Raises SourceEmptied for a source that looks emptied, SourceUnavailable, LakeError.
    """
    store = open_store(source)
    looking = watch(looks, settings, store)
    before = looks.memory(source.name).believed
    parts = [batch.column("uri") for batch in looking()]
    listed = pa.table({"uri": pa.chunked_array(parts, pa.string())})
    with connect(lake, ["instance", "raw_files", "validated_batch", "overwritten"]) as connection:
        connection.register("listed", listed)
        missing = arrow(connection, _CURRENT.format(source=quoted(source.name)))
        left_out = arrow(connection, _LEFT_OUT.format(source=quoted(source.name)))
    places = [place.uri for place in looking.passed_over]
    gone_uris = pa.array(list(_gone(store, missing["uri"].unique().to_pylist(), places)), pa.string())
    found = SourceAudit(
        source.name,
        f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}",
        len(listed),
        pa.concat_tables([missing.filter(pc.is_in(missing["uri"], value_set=gone_uris)), left_out]),
        frozenset(left_out["uri"].to_pylist()),
    )
    if before is None or before.scope != scope_of(source):
        _require_measure(looks, looking, found)
    _keep(lake, found)
    return found


def _require_measure(looks: Looks, looking: Watch, found: SourceAudit) -> None:
    """Holds a first look, or the first with other patterns, against what the lake has of the source.

    There is no look that it could be compared with. Raises SourceEmptied.
    """
    now = looking.found
    if now is None:
        return
    was = replace(now, objects=found.listed + found.files - len(found.replaced))
    if looks_emptied(was, now, looking.limits):
        looks.remember(found.source, replace(looks.memory(found.source), believed=was, doubted=now))
        raise SourceEmptied(sentence(found.source, was, now))


def _gone(store: LandingStore, uris: Sequence[str], passed_over: Sequence[str]) -> Iterator[str]:
    """Those of some places where nothing is: each is asked for."""
    asked = [
        uri
        for uri in uris
        if not any(uri.startswith(place) for place in passed_over)
        and store.below_root(uri).split("/")[0] not in ORGANIZED
    ]
    refs = [ObjectRef(uri, "", 0) for uri in asked]
    for uri, opened in zip(asked, store.open_all(refs, 1), strict=True):
        if isinstance(opened, ObjectError):
            if opened.code == "OBJECT_GONE":
                yield uri
        else:
            opened.close()


def _keep(lake: Lake, found: SourceAudit) -> None:
    rows = [
        {"source": found.source, "audit_id": found.audit_id, "audited_at": datetime.now(UTC)}
        | {name: row[name] for name in ("object_id", "uri", "member")}
        for row in found.gone.to_pylist()
    ]
    with lake.committing(SOURCE_AUDIT.name):
        table = pa.Table.from_pylist(rows, schema=SOURCE_AUDIT.schema)
        lake.replace(SOURCE_AUDIT.name, [found.source], table)


def follow(lake: Lake, log: ClaimLog, settings: Settings, found: SourceAudit) -> list[Claim]:
    """Claims batches of deletes for what is gone, for whoever holds the right to claim. Raises LakeError."""
    if not len(found.gone):
        return []
    rows = found.gone.to_pylist()
    by_uri: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_uri.setdefault(row["uri"], []).append(row)
    etags = {uri: f"{LEFT_OUT if uri in found.replaced else GONE}{found.audit_id}" for uri in by_uri}
    for uri, own in by_uri.items():
        etag = etags[uri]
        claimed = object_id(found.source, uri, etag, None)
        for row in own:
            whole = row["member"] is None
            row |= {
                "claimed_id": claimed,
                "object_id": claimed if whole else object_id(found.source, uri, etag, row["member"]),
            }
    lake.files.put_parquet(f"{FOLDER}/{found.audit_id}.parquet", pa.Table.from_pylist(rows, schema=PLAN))
    claims: list[Claim] = []
    bound, uris = settings.claiming.batch_objects, list(by_uri)
    for start in range(0, len(uris), bound):
        some, now = uris[start : start + bound], datetime.now(UTC)
        told = [etags[uri] for uri in some]
        objects = [object_id(found.source, uri, etag, None) for uri, etag in zip(some, told, strict=True)]
        while True:
            newest = len(log)
            claim = log.append(_manifest(found.source, some, objects, told, now), newest)
            if claim is not None:
                claims.append(claim)
                break
    return claims


def _manifest(
    source: str, uris: Sequence[str], objects: Sequence[str], etags: Sequence[str], now: datetime
) -> pa.Table:
    count = len(uris)
    columns = {
        "object_id": objects,
        "uri": uris,
        "etag": etags,
        "size": pa.array([0] * count, pa.int64()),
        "modified_at": pa.array([now] * count, TIMESTAMP),
        "attempt": pa.array([1] * count, pa.int64()),
    }
    return stamp(pa.table(columns), source, now, BatchKind.DELETE)


def stage_claimed(manifest: pa.Table, staging: Staging) -> int:
    """Stages raw_files of a batch of deletes; how many rows there are. Raises LakeError."""
    plan = _plan(staging.files, manifest)
    rows: list[dict[str, Any]] = []
    for one in manifest.to_pylist():
        own = plan.get(one["object_id"], ())
        shared = {name: one[name] for name in ("batch_id", "source", "uri", "etag", "modified_at", "claimed_at")}
        is_archive = any(row["member"] is not None for row in own)
        is_erased = one["uri"].startswith(ERASED)
        verdict = CODE if is_erased else "ARCHIVE_EXPANDED" if is_archive else None
        kind = str(Kind.ERASED if is_erased else Kind.CHANGE)
        source = own[0]["source"] if own else one["source"]
        rows.append(shared | {"object_id": one["object_id"], "source": source, "size": one["size"], "kind": kind,
                              "verdict": verdict})  # fmt: skip
        rows += [
            shared
            | {"object_id": row["object_id"], "source": row["source"], "member": row["member"], "size": 0}
            | {"kind": str(Kind.CHANGE), "container_id": one["object_id"]}
            for row in own
            if row["member"] is not None
        ]
    staging.begin()
    staging.stage(Part.RAW, pa.Table.from_pylist(rows, schema=SCHEMAS[Part.RAW]))
    return len(rows)


def stage_judged(manifest: pa.Table, staging: Staging, run_id: str) -> Mapping[str, int]:
    """Stages what became of a batch of deletes; objects by outcome. Raises StagingMissing, LakeError."""
    plan = {row["object_id"]: row for own in _plan(staging.files, manifest).values() for row in own}
    ledger, flat, errors = [], [], []
    now = datetime.now(UTC)
    for raw in staging.read_whole(Part.RAW).to_pylist():
        code = raw["verdict"]
        outcome = Outcome.IGNORED if code else Outcome.DELETED
        named = {"batch_id": raw["batch_id"], "object_id": raw["object_id"]}
        ledger.append(named | {"outcome": str(outcome), "code": code, "kind": raw["kind"], "judged_at": now})
        if code:
            errors.append(
                named
                | {"stage": "read", "code": code, "record": 0, "severity": str(CODES[code].severity)}
                | {"detail": CODES[code].meaning, "uri": raw["uri"], "occurred_at": now, "run_id": run_id}
            )
        else:
            flat.append(_delete(raw, plan[raw["object_id"]]))
    for part, rows in (
        (Part.LEDGER, ledger),
        (Part.FLAT, flat),
        (Part.ERRORS, errors),
        (Part.CLINICAL, []),
        (Part.CORRECTION, []),
    ):
        staging.stage(part, pa.Table.from_pylist(rows, schema=SCHEMAS[part]))
    outcomes = [row["outcome"] for row in ledger]
    return {outcome: outcomes.count(outcome) for outcome in set(outcomes)}


def _delete(raw: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of flat_metadata."""
    return {
        **{name: raw[name] for name in ("batch_id", "object_id", "source", "uri", "member")},
        **{name: row[name] for name in ("study_key", *_UIDS)},
        "operation": "delete",
        "version_at": raw["claimed_at"],
        "sequence": 0,
        "issues": [],
        "ingested_at": raw["claimed_at"],
    }


def _plan(files: LakeFiles, manifest: pa.Table) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """What the objects of a claim withdraw, by object_id. Raises LakeError."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for etag in manifest["etag"].unique().to_pylist():
        if etag and etag.startswith((GONE, LEFT_OUT)):
            audit_id = etag.removeprefix(GONE).removeprefix(LEFT_OUT)
            for row in files.get_parquet(f"{FOLDER}/{audit_id}.parquet").to_pylist():
                found.setdefault(row["claimed_id"], []).append(row)
    return found
