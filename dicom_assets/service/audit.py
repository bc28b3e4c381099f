"""Whether the lake holds what a service holds: counts per study compared, differences listed, and what mends them.

Belongs here: the comparison, a pure function over two sets of counts, and the entries of a repair. Does not belong
here: reading the lake's tables and writing findings (`defs`), searching a server (`dicomweb`).

What is on its way is no difference: studies that changed since the last window that is due are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from dicom_assets.landing.change_windows import parse_entry
from dicom_assets.landing.store import partition_source
from dicom_assets.service.client import ServiceClient
from dicom_assets.service.dicomweb import (
    Key,
    count_studies,
    entry,
    instance_metadata,
    instances_of,
    key_of,
    orthanc_window,
)
from dicom_assets.service.feed import FeedPage, Window, read_window
from dicom_assets.settings import ServiceSettings

StudyKey = tuple[str, str]
"""A source and a Study Instance UID."""

PAGE = 200
"""Entries in one page of a repair."""


class Difference(StrEnum):
    """How lake and server differ in a study. MISSING: not in the lake. EXTRA: not on the server any more."""

    MISSING = "missing"
    EXTRA = "extra"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class Finding:
    """One study in which lake and server differ, with the instances that each counts."""

    source: str
    study: str
    difference: Difference
    server_instances: int
    lake_instances: int


@dataclass(frozen=True, slots=True)
class LakeInstance:
    """An instance of the lake, as a repair needs it."""

    key: Key
    version_at: datetime


def compare(
    server: Mapping[StudyKey, int], lake: Mapping[StudyKey, int], under_way: Iterable[StudyKey] = ()
) -> list[Finding]:
    """The studies whose counts differ, sorted; those under way are left out. A pure function."""
    left_out = set(under_way)
    findings = []
    for source, study in sorted((server.keys() | lake.keys()) - left_out):
        there, here = server.get((source, study), 0), lake.get((source, study), 0)
        if there != here:
            difference = Difference.MISSING if not here else Difference.EXTRA if not there else Difference.DIFFERS
            findings.append(Finding(source, study, difference, there, here))
    return findings


def partitions_of(client: ServiceClient) -> tuple[str | None, ...]:
    """The data partitions to look into: those of the settings, else those that the service names; None for none.

    A service whose data partitions are off answers this question with an error, and its resources have no partition
    in their paths.
    """
    service = client.service
    if service.partitions or service.kind == "dicomweb":
        return service.partitions or (None,)
    reply = client.get(
        f"{service.api}/partitions", what="the data partitions", accepted=(200, 204, 400, 403, 404, 405), quote=True
    )
    found = reply.objects() if reply.status == 200 else []
    names = [value for one in found for name, value in one.items() if name.lower() == "partitionname"]
    return tuple(str(name) for name in names) or (None,)


def source_of(service: ServiceSettings, partition: str | None) -> str:
    """Name of the source that a partition is in the lake."""
    return service.name if partition is None else partition_source(service.name, partition)


@dataclass(frozen=True, slots=True)
class ServerCounts:
    """What a server holds: instances by study, the sources that were looked into, its time before it was asked."""

    studies: dict[StudyKey, int]
    sources: tuple[str, ...]
    at: datetime


def server_counts(client: ServiceClient) -> ServerCounts:
    """Instances by study as the server counts them.

    A study whose number the server does not give, or gives as none, is counted by its instances.
    """
    partitions = partitions_of(client)
    at = server_time(client, partitions[0])
    counts: dict[StudyKey, int] = {}
    for partition in partitions:
        source = source_of(client.service, partition)
        for found in count_studies(client, partition):
            number = found.instances or len(instances_of(client, found.study, partition))
            if number:
                counts[source, found.study] = number
    return ServerCounts(counts, tuple(source_of(client.service, one) for one in partitions), at)


def server_time(client: ServiceClient, partition: str | None) -> datetime:
    """The server's own clock, so that what a repair says is ordered among the server's changes."""
    path = client.dicomweb("studies", partition)
    reply = client.get(path, {"limit": 1}, what="the server's time", accept="application/dicom+json")
    return client.clock(reply)


def under_way(client: ServiceClient, since: datetime, until: datetime) -> set[StudyKey]:
    """Studies that changed since a moment: their windows have not been read yet.

    A server that is followed by study date has no list of changes; nothing is known to be under way there.
    """
    service = client.service
    if since >= until or (service.kind == "dicomweb" and service.follow == "study-date"):
        return set()
    window = Window(since, until)
    read = orthanc_window if service.kind == "dicomweb" else read_window
    entries = (parse_entry(one) for page in read(client, window, metadata=False) for one in page.entries)
    return {(one.source(service.name), one.study) for one in entries}


def repair_pages(
    client: ServiceClient, findings: Iterable[Finding], lake: Mapping[StudyKey, Iterable[LakeInstance]]
) -> Iterator[FeedPage]:
    """Entries that make the lake what the server is, in the studies of these findings and in no others.

    lake: the instances that the lake has of each study. The server is asked anew, instance by instance: what it has
    and the lake has not is an Update with its metadata, what it has no longer is a Delete. Their time is the server's
    before it was asked, or just after the version that they delete, so that any later change of the feed wins.
    """
    by_source = {source_of(client.service, partition): partition for partition in partitions_of(client)}
    sequence = 0
    entries = []
    for finding in findings:
        if finding.source not in by_source:
            continue
        partition = by_source[finding.source]
        at = server_time(client, partition)
        there = instances_of(client, finding.study, partition)
        here = {one.key: one for one in lake.get((finding.source, finding.study), ())}
        for metadata in instance_metadata(client, there - here.keys(), partition):
            sequence += 1
            entries.append(entry(key_of(client, metadata), sequence, at, metadata, partition=partition))
        for key in sorted(here.keys() - there):
            sequence += 1
            moment = max(at, here[key].version_at.astimezone(UTC) + timedelta(microseconds=1))
            entries.append(entry(key, sequence, moment, None, action="Delete", partition=partition))
        while len(entries) >= PAGE:
            yield FeedPage(entries[:PAGE])
            entries = entries[PAGE:]
    if entries:
        yield FeedPage(entries)
