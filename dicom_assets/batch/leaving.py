"""What a batch gives back before its books close, to be claimed again: see `landing.returns`.

Belongs here: which objects leave a batch, and taking their rows out of its staging; which ones are reported as absent.
Does not belong here: the log of returns, claiming them again (`landing.claims`).

What could not be read for an outside reason leaves before anything but raw_files is published. It is in the log first,
and then its staged rows go; a batch that is cut off in between and run again does not expand what stands in the log. An
archive or window file leaves with all of its members, whichever of them could not be read: it is read again whole. It
leaves also when some members were read and it was gone or changed for the others, so that no member is ever read by two
batches.

What a batch has brought into the tables does not leave when the batch is run again and cannot read it just then: the
batch pauses, and its rows stay. The same holds when the whole source is away. What was replaced or is gone since is
staged from the tables before (`own_rows`), and is read as far as its batch is concerned.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect
from dicom_assets.lake.staging import SCHEMAS, Part, Staging, object_ids
from dicom_assets.landing.refusals import CODE, ERASED
from dicom_assets.landing.returns import ReturnLog, returned
from dicom_assets.schema.codes import ABSENT, OUTSIDE, WAITING, Outcome

_STAGED = (Part.RAW, Part.LEDGER, Part.FLAT, Part.CLINICAL, Part.CORRECTION, Part.ERRORS)
_BROUGHT = frozenset((Outcome.INGESTED, Outcome.DELETED))


def own_manifest(manifest: pa.Table, log: ReturnLog) -> tuple[pa.Table, Mapping[str, str]]:
    """The objects that are the batch's own, and codes of those that it must not read again: absent ones, erased ones.

    What was absent may be claimed by another batch by now. Raises LakeError.
    """
    rows = log.of_batch(manifest["batch_id"][0].as_py())
    left = rows.filter(rows["waits"])["object_id"].combine_chunks()
    absent = rows.filter(pc.invert(rows["waits"]))
    own = manifest.filter(pc.invert(pc.is_in(manifest["object_id"], value_set=left)))
    erased = own.filter(pc.starts_with(own["uri"], ERASED))["object_id"].to_pylist()
    codes = dict(zip(absent["object_id"].to_pylist(), absent["code"].to_pylist(), strict=True))
    return own, codes | dict.fromkeys(erased, CODE)


def leave(
    lake: Lake, staging: Staging, manifest: pa.Table, log: ReturnLog, pauses: tuple[float, ...]
) -> Mapping[str, int]:
    """Lets objects leave that could not be read; how many objects and members there were by what was said of them.

    manifest: as it was claimed. pauses: see `landing.returns.returned`. Raises LakeError.
    """
    ledger = staging.read(Part.LEDGER, ["object_id", "outcome", "code"])
    earlier = _left(log, staging.batch_id)
    suspects = pc.any(pc.or_(pc.equal(ledger["outcome"], WAITING), _is_absent(ledger))).as_py()
    if not suspects and not earlier:
        return {}
    containers = _containers(staging)
    codes = _leaving(ledger, containers)
    if codes:
        brought = _brought(lake, staging, containers)
        codes = {one: code for one, code in codes.items() if brought is not None and one not in brought}
    if codes:
        leaving = manifest.filter(pc.is_in(manifest["object_id"], value_set=pa.array(list(codes), pa.string())))
        log.write(staging.batch_id, returned(leaving, codes, pauses, datetime.now(UTC), waits=True))
    gone = {*codes, *earlier}
    ids = pa.array([one for one, owner in containers.items() if owner in gone], pa.string())
    if not len(ids):
        return {}
    for part in _STAGED:
        _take_out(staging, part, ids)
    taken = ledger.filter(pc.is_in(ledger["object_id"], value_set=ids))["outcome"].value_counts().to_pylist()
    return {count["values"]: count["counts"] for count in taken}


def report_absent(staging: Staging, manifest: pa.Table, log: ReturnLog, pauses: tuple[float, ...]) -> None:
    """Enters in the log what was not there as it was claimed, before the books close. Raises LakeError."""
    ledger = staging.read(Part.LEDGER, ["object_id", "outcome", "code"])
    absent = ledger.filter(_is_absent(ledger))
    if not len(absent):
        return
    containers = _containers(staging)
    brought = {containers.get(one) for one in object_ids(ledger.filter(_is_brought(ledger)))}
    codes = {
        owner: code
        for one, code in zip(object_ids(absent), absent["code"].to_pylist(), strict=True)
        if (owner := containers[one]) not in brought
    }
    rows = manifest.filter(pc.is_in(manifest["object_id"], value_set=pa.array(list(codes), pa.string())))
    log.write(staging.batch_id, returned(rows, codes, pauses, datetime.now(UTC), waits=False))


def _leaving(ledger: pa.Table, containers: Mapping[str, str]) -> dict[str, str]:
    """The objects of the manifest that are to leave, with the reason; none when the whole source is away."""
    unread: dict[str, str] = {}
    absent: dict[str, str] = {}
    read: set[str] = set()
    members: defaultdict[str, int] = defaultdict(int)
    for row in ledger.to_pylist():
        owner = containers[row["object_id"]]
        members[owner] += owner != row["object_id"]
        if row["code"] in OUTSIDE:
            unread.setdefault(owner, row["code"])
        elif row["code"] in ABSENT:
            absent.setdefault(owner, row["code"])
        elif row["outcome"] in _BROUGHT:
            read.add(owner)
    if "SOURCE_UNAVAILABLE" in unread.values():
        return {}
    torn = {owner: code for owner, code in absent.items() if members[owner] and owner in read}
    return {**torn, **unread}


def _containers(staging: Staging) -> dict[str, str]:
    """For each staged object the object of the manifest that it is or lies in."""
    raw = staging.read(Part.RAW, ["object_id", "container_id"])
    owners = pc.coalesce(raw["container_id"], raw["object_id"])
    return dict(zip(object_ids(raw), owners.to_pylist(), strict=True))


def _brought(lake: Lake, staging: Staging, containers: Mapping[str, str]) -> set[str] | None:
    """The objects of the manifest of which the batch has rows in the tables.

    None when it has rows of members whose container cannot be opened now, so that nobody knows which one that is.
    """
    tables = ["flat_metadata", "clinical"]
    with connect(lake, tables, within=staging.scope(*tables)) as connection:
        rows = connection.execute("SELECT object_id FROM flat_metadata UNION SELECT object_id FROM clinical").fetchall()
    found = {containers.get(one) for (one,) in rows}
    return None if None in found else {one for one in found if one is not None}


def _left(log: ReturnLog, batch_id: str) -> list[str]:
    rows = log.of_batch(batch_id)
    return object_ids(rows.filter(rows["waits"]))


def _is_absent(ledger: pa.Table) -> pa.ChunkedArray:
    return pc.is_in(ledger["code"], value_set=pa.array(sorted(ABSENT), pa.string()))


def _is_brought(ledger: pa.Table) -> pa.ChunkedArray:
    return pc.is_in(ledger["outcome"], value_set=pa.array(sorted(_BROUGHT), pa.string()))


def _take_out(staging: Staging, part: Part, ids: pa.Array) -> None:
    """Takes the rows of objects out of a part, file by file."""
    left = 0
    for name in staging.names(part):
        rows = pa.Table.from_batches(staging.files.arrow_batches(name), SCHEMAS[part])
        kept = rows.filter(pc.invert(pc.is_in(rows["object_id"], value_set=ids)))
        left += len(kept)
        if len(kept) < len(rows):
            staging.put(part, int(name.rpartition("/")[2].removesuffix(".arrow")), kept)
    if not left:
        staging.clear(part)
    staging.complete(part, left)
