"""Any DICOMweb server as a source: what it holds by QIDO-RS, what it says by WADO-RS, Orthanc's own list of changes.

Belongs here: paging through what servers list, metadata of studies and instances, and turning both into entries like
those of a change feed. Does not belong here: HTTP (`client`), landing (`changes`).

Servers page differently. Some cap the limit without saying so: pages are read until one is empty. Some ignore limit
and offset and give everything at once: a page longer than asked for is taken as all there is. Some ignore the offset
alone, so that the same page would come for ever: that is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from dicom_assets.service.client import ServiceClient
from dicom_assets.service.errors import AnswerInvalid, AnswerTooLarge, ServiceError
from dicom_assets.service.feed import V1_SLACK, FeedPage, Window, iso
from dicom_assets.service.paths import fits_in_path, resource

DICOM_JSON = "application/dicom+json"
STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
INSTANCES_OF_STUDY = "00201208"
FEW_INSTANCES = 8
"""Up to so many instances of one study are asked for one by one, more together with their study."""
CHANGES_LIMIT = 1_000

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class StudyCount:
    """A study as the server counts it; instances is None where it does not say."""

    study: str
    instances: int | None


def search(
    client: ServiceClient, path: str, key: str, params: Mapping[str, str] | None = None, partition: str | None = None
) -> Iterator[dict[str, Any]]:
    """QIDO-RS results of a path (`studies`, `studies/{uid}/instances`), each once, told apart by the UID `key`.

    Raises AnswerInvalid when the server ignores the offset.
    """
    seen: set[str] = set()
    limit = client.service.page_size
    offset = 0
    what = f"a search for {path.rsplit('/', 1)[-1]}"
    while True:
        reply = client.get(
            client.dicomweb(path, partition),
            {**(params or {}), "limit": limit, "offset": offset},
            what=f"{what} from {offset}",
            accept=DICOM_JSON,
        )
        found = [(uid_of(client, item, key), item) for item in reply.objects()]
        fresh = [(uid, item) for uid, item in found if uid not in seen]
        if found and not fresh:
            raise AnswerInvalid(
                client.name, reply.what, "The page repeats earlier ones: the server ignores offset.", reply.status
            )
        for uid, item in fresh:
            seen.add(uid)
            yield item
        if not found or len(found) > limit:
            return
        offset += len(found)


def uid_of(client: ServiceClient, item: Mapping[str, Any], key: str) -> str:
    """A UID of a result. Raises AnswerInvalid."""
    uid = value_of(item, key)
    if not isinstance(uid, str) or not uid.strip():
        raise AnswerInvalid(client.name, "a search", f"A result has no {key}.")
    return uid.strip()


def value_of(item: Mapping[str, Any], key: str) -> Any:
    """First value of an element of DICOM JSON, None where there is none."""
    element = item.get(key)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def count_studies(client: ServiceClient, partition: str | None = None) -> Iterator[StudyCount]:
    """Every study of the server with its NumberOfStudyRelatedInstances."""
    fields = {"includefield": INSTANCES_OF_STUDY}
    for item in search(client, "studies", STUDY, fields, partition):
        count = value_of(item, INSTANCES_OF_STUDY)
        number = int(count) if isinstance(count, (int, float)) or (isinstance(count, str) and count.isdigit()) else None
        yield StudyCount(uid_of(client, item, STUDY), number)


def instances_of(client: ServiceClient, study: str, partition: str | None = None) -> set[Key]:
    """Keys of the instances of one study; empty when the server does not have it."""
    try:
        found = list(search(client, resource(client.name, "studies", study, "instances"), INSTANCE, None, partition))
    except ServiceError as error:
        if error.status == 404:
            return set()
        raise
    return {(study, uid_of(client, item, SERIES), uid_of(client, item, INSTANCE)) for item in found}


def study_metadata(client: ServiceClient, study: str, partition: str | None = None) -> Iterator[dict[str, Any]]:
    """Metadata of every instance of a study; series by series when the study is too large for one answer.

    Nothing when the server does not have it (any more).
    """
    try:
        yield from _metadata(client, resource(client.name, "studies", study), "a study", partition)
    except AnswerTooLarge:
        for item in list(search(client, resource(client.name, "studies", study, "series"), SERIES, None, partition)):
            series = uid_of(client, item, SERIES)
            path = resource(client.name, "studies", study, "series", series)
            yield from _metadata(client, path, "a series", partition)


def instance_metadata(
    client: ServiceClient, keys: Iterable[Key], partition: str | None = None
) -> Iterator[dict[str, Any]]:
    """Metadata of these instances; those that the server does not have are left out."""
    by_study: dict[str, set[Key]] = {}
    for key in keys:
        by_study.setdefault(key[0], set()).add(key)
    for study, wanted in sorted(by_study.items()):
        if len(wanted) > FEW_INSTANCES:
            for item in study_metadata(client, study, partition):
                if key_of(client, item) in wanted:
                    yield item
        else:
            for _, series, instance in sorted(wanted):
                path = resource(client.name, "studies", study, "series", series, "instances", instance)
                yield from _metadata(client, path, "an instance", partition)


def _metadata(client: ServiceClient, path: str, of: str, partition: str | None) -> list[dict[str, Any]]:
    reply = client.get(
        client.dicomweb(f"{path}/metadata", partition),
        what=f"metadata of {of}",
        accept=DICOM_JSON,
        accepted=(200, 204, 404, 410),
    )
    return [] if reply.status in (404, 410) else reply.objects()


def key_of(client: ServiceClient, metadata: Mapping[str, Any]) -> Key:
    """Study, Series and SOP Instance UID of an instance's metadata."""
    return tuple(uid_of(client, metadata, key) for key in (STUDY, SERIES, INSTANCE))  # type: ignore[return-value]


def entry(
    key: Key,
    sequence: int,
    at: datetime,
    metadata: dict[str, Any] | None,
    *,
    action: str = "Update",
    partition: str | None = None,
) -> dict[str, Any]:
    """An entry as a change feed would have it. Without metadata it says that the instance is gone."""
    found: dict[str, Any] = {
        "sequence": sequence,
        "studyInstanceUid": key[0],
        "seriesInstanceUid": key[1],
        "sopInstanceUid": key[2],
        "action": action,
        "timestamp": iso(at),
        "state": "Current" if metadata is not None else "Deleted",
    }
    if partition is not None:
        found["partitionName"] = partition
    if metadata is not None:
        found["metadata"] = metadata
    return found


def snapshot(
    client: ServiceClient, first: datetime, last: datetime, before: Iterable[Mapping[str, Any]] = ()
) -> Iterator[FeedPage]:
    """Everything the server holds of studies dated from `first` to `last`, a page for each study.

    before: the entries of the last snapshot of the same days. An instance whose metadata has not changed keeps its
    entry, sequence and time included, so that only what changed is a new object. Instances that are gone are left
    out, not deleted: that is the audit's to find.
    """
    kept = {
        (str(one.get("studyInstanceUid")), str(one.get("seriesInstanceUid")), str(one.get("sopInstanceUid"))): one
        for one in before
    }
    sequence = max((int(one.get("sequence", 0)) for one in kept.values()), default=0)
    at = datetime.now(UTC)
    dates = {"StudyDate": f"{first:%Y%m%d}-{last:%Y%m%d}"}
    for found in search(client, "studies", STUDY, dates):
        entries: list[dict[str, Any]] = []
        for metadata in study_metadata(client, uid_of(client, found, STUDY)):
            key = key_of(client, metadata)
            old = kept.get(key)
            if old is not None and _same(old.get("metadata"), metadata):
                entries.append(dict(old))
            else:
                sequence += 1
                entries.append(entry(key, sequence, at, metadata))
        entries.sort(key=lambda one: (str(one["seriesInstanceUid"]), str(one["sopInstanceUid"])))
        yield FeedPage(entries)


def _same(one: Any, other: Any) -> bool:
    return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)


@dataclass(frozen=True, slots=True)
class OrthancChange:
    """A new instance in Orthanc's list of changes, by Orthanc's own id."""

    sequence: int
    at: datetime
    orthanc_id: str


def orthanc_changes(client: ServiceClient, window: Window) -> Iterator[list[OrthancChange]]:
    """Instances that arrived in a window, by Orthanc's `/changes`; its times are in UTC, to the second.

    The window's start is found by bisection, since `/changes` knows sequence numbers only.
    """
    newest = _changes(client, window, "last")
    since, last = 0, newest[-1][0] if newest else 0
    high = last
    while high - since > CHANGES_LIMIT:
        middle = (since + high) // 2
        found = _changes(client, window, f"since={middle}&limit=1")
        if found and found[0][1] < window.start - V1_SLACK:
            since = found[0][0]
        else:
            high = middle
    while since < last:
        found = _changes(client, window, f"since={since}&limit={CHANGES_LIMIT}")
        if not found:
            return
        new = [
            OrthancChange(number, at, str(change.get("ID", "")))
            for number, at, change in found
            if change.get("ChangeType") == "NewInstance" and window.start <= at < window.end
        ]
        if new:
            yield new
        if found[0][1] >= window.end + V1_SLACK:
            return
        if found[-1][0] <= since:
            raise AnswerInvalid(client.name, f"changes of {window}", "The list of changes does not advance.")
        since = found[-1][0]


def _changes(client: ServiceClient, window: Window, query: str) -> list[tuple[int, datetime, dict[str, Any]]]:
    reply = client.get(f"{client.service.orthanc_url}/changes?{query}", what=f"changes of {window}")
    answer = reply.json()
    try:
        return [
            (int(one["Seq"]), datetime.strptime(one["Date"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC), one)
            for one in answer["Changes"]
        ]
    except (KeyError, TypeError, ValueError):
        raise AnswerInvalid(client.name, reply.what, "The list of changes is not understood.", reply.status) from None


def orthanc_window(client: ServiceClient, window: Window, *, metadata: bool = True) -> Iterator[FeedPage]:
    """A window of Orthanc's changes as pages of entries; an instance that was deleted since leaves none."""
    series_keys: dict[str, tuple[str, str]] = {}
    for changes in orthanc_changes(client, window):
        newest = {change.orthanc_id: change for change in changes}
        by_key: dict[Key, OrthancChange] = {}
        for change in newest.values():
            key = _orthanc_key(client, change.orthanc_id, series_keys)
            if key is not None:
                by_key[key] = change
        if not metadata:
            yield FeedPage([entry(key, one.sequence, one.at, {}) for key, one in by_key.items()])
            continue
        # What no request can ask for is landed without metadata, and so quarantined; the rest is landed as ever.
        unfit = {key for key in by_key if not all(map(fits_in_path, key))}
        entries = [entry(key, by_key[key].sequence, by_key[key].at, {}, action="Create") for key in sorted(unfit)]
        for item in instance_metadata(client, by_key.keys() - unfit):
            found = by_key[key_of(client, item)]
            entries.append(entry(key_of(client, item), found.sequence, found.at, item, action="Create"))
        entries.sort(key=lambda one: int(one["sequence"]))
        if entries:
            yield FeedPage(entries)


def _orthanc_key(client: ServiceClient, orthanc_id: str, series_keys: dict[str, tuple[str, str]]) -> Key | None:
    """UIDs of an instance from Orthanc's ids; None when it is gone. Series are remembered."""
    found = _orthanc(client, "instances", orthanc_id)
    if found is None:
        return None
    parent = str(found.get("ParentSeries", ""))
    if parent not in series_keys:
        series = _orthanc(client, "series", parent)
        study = _orthanc(client, "studies", str(series.get("ParentStudy", ""))) if series else None
        if series is None or study is None:
            return None
        series_keys[parent] = (_main(client, study, "StudyInstanceUID"), _main(client, series, "SeriesInstanceUID"))
    return (*series_keys[parent], _main(client, found, "SOPInstanceUID"))


def _orthanc(client: ServiceClient, kind: str, orthanc_id: str) -> dict[str, Any] | None:
    what = f"one of Orthanc's {kind}"
    path = resource(client.name, kind, orthanc_id)
    reply = client.get(f"{client.service.orthanc_url}/{path}", what=what, accepted=(200, 404))
    found = reply.json() if reply.status == 200 else None
    return found if isinstance(found, dict) else None


def _main(client: ServiceClient, found: Mapping[str, Any], name: str) -> str:
    tags = found.get("MainDicomTags")
    uid = tags.get(name) if isinstance(tags, dict) else None
    if not isinstance(uid, str) or not uid:
        raise AnswerInvalid(client.name, "one of Orthanc's resources", f"It has no {name}.")
    return uid


def days(window: Window) -> Iterator[datetime]:
    """The days that a window touches."""
    for part in window.by_day():
        yield part.start.replace(hour=0, minute=0, second=0, microsecond=0)
