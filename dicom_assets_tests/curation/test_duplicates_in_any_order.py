"""Duplicates whatever the order: batches published in any order, places claimed again, batches run once more.

Belongs here: staged rows, published, against plain Python and against making every group anew. Does not belong here:
files (`test_duplicates`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import permutations
from random import Random
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings

from dicom_assets.batch.checks.contract import CheckContext
from dicom_assets.batch.checks.duplicate_checks import DUPLICATE_RULES, groups_hold_the_batch, members_are_alike
from dicom_assets.batch.publish import publish_flat
from dicom_assets.curation.digest_index import keys_of
from dicom_assets.curation.duplicates import make_again, publish_duplicates
from dicom_assets.dicom.stable import stable_digest_of
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, scan
from dicom_assets.lake.staging import RAW_STAGED, SCHEMAS, Part, Staging
from dicom_assets.schema.keys import content_digest, study_key
from dicom_assets.schema.registry import BATCHES, DUPLICATE, RAW_FILES
from dicom_assets_tests.support.dicoms import uid
from dicom_assets_tests.support.lakes import contents
from dicom_assets_tests.support.seeds import seeds
from dicom_assets_tests.support.versions import NOON, batch_name

TABLES = ("duplicate", "batch_digest")


@dataclass(frozen=True)
class Arrival:
    """What a batch finds at a place. instance: None where it is no DICOM object. pixels: None where they are unread."""

    place: str
    instance: int | None
    image: int
    patient: str
    pixels: int | None
    batch: int = 0

    @property
    def object_id(self) -> str:
        """Names the arrival."""
        return f"{self.batch:04x}{self.place:>16}"

    @property
    def header(self) -> bytes:
        """Its header."""
        told = {"00080018": ("UI", uid(1, 1, self.instance or 0)), "00100020": ("LO", self.patient)}
        told |= {"00200013": ("IS", self.image)}
        return orjson.dumps({key: {"vr": vr, "Value": [value]} for key, (vr, value) in told.items()})

    def row(self) -> dict[str, Any]:
        """Its row of flat_metadata."""
        pixels = None if self.pixels is None else f"{self.pixels:032x}"
        return {
            "batch_id": batch_name(self.batch), "object_id": self.object_id, "source": "landing", "uri": self.place,
            "operation": "upsert", "version_at": NOON, "sequence": 0, "study_key": study_key("landing", uid(1)),
            "issues": [], "ingested_at": NOON + timedelta(hours=self.batch), "size": 1, "header": self.header.decode(),
            "StudyInstanceUID": uid(1), "SeriesInstanceUID": uid(1, 1), "SOPInstanceUID": uid(1, 1, self.instance or 0),
            "content_digest": content_digest(self.header), "stable_digest": stable_digest_of(self.header),
            "pixel_digest": pixels,
            "bytes_digest": None if pixels is None else content_digest(self.header + pixels.encode()),
        }  # fmt: skip


WORLDS = 12
"""Cases in one lake, which have no place, instance, image and pixels in common."""


def batches(chance: Random) -> list[list[Arrival]]:
    """Batches of arrivals, of each world at few places, with few instances, images and pixels, so that they meet."""
    drawn: list[list[Arrival]] = [[] for _ in range(4)]
    for world in range(10, 10 * WORLDS + 10, 10):
        for number in range(chance.randint(2, 4)):
            for place in chance.sample("abcdef", chance.randint(1, 4)):
                drawn[number].append(
                    Arrival(
                        place=f"{world}{place}",
                        instance=chance.choice([None, world + 1, world + 1, world + 2, world + 3]),
                        image=world + chance.randint(1, 2),
                        patient=chance.choice(["P1", "P2"]),
                        pixels=chance.choice([None, world + 1, world + 2]),
                        batch=number,
                    )
                )
    return [own for own in drawn if own]


def expected(everything: Iterable[Arrival]) -> set[tuple[str, frozenset[str]]]:
    """The groups by plain Python: kind, and the members' object_ids."""
    latest = {one.place: one for one in sorted(everything, key=lambda one: one.batch)}
    there = [one for one in latest.values() if one.instance is not None]
    found: list[tuple[str, list[Arrival]]] = []

    def look(kind: str, by: Any, read: bool, is_one: Any) -> None:
        alike: dict[Any, list[Arrival]] = defaultdict(list)
        for one in there:
            alike[by(one)].append(one)
        for same in alike.values():
            known = {one.pixels for one in same} - {None}
            parts: dict[Any, list[Arrival]] = defaultdict(list)
            for one in same:
                parts[one.pixels if read and len(known) > 1 else None].append(one)
            found.extend((kind, part) for part in parts.values() if len(part) > 1 and is_one(part))

    def several(part: Sequence[Arrival]) -> bool:
        return len({one.header for one in part}) > 1 or len({one.pixels for one in part} - {None}) > 1

    look("bytes", lambda one: one.header, True, lambda _: True)
    look("sop_instance", lambda one: one.instance, False, several)
    look("header", lambda one: one.image, True, several)
    there = [one for one in there if one.pixels is not None]
    look("pixels", lambda one: one.pixels, False, lambda part: len({one.instance for one in part}) > 1)
    return {(kind, frozenset(one.object_id for one in part)) for kind, part in found}


def publish(lake: Lake, batch: Sequence[Arrival], before: Mapping[str, Sequence[str]]) -> Staging:
    """Publishes the metadata of a batch."""
    number = batch[0].batch
    staging = Staging(lake.files, batch_name(number))
    raw = [
        {"batch_id": batch_name(number), "object_id": one.object_id, "source": "landing", "uri": one.place,
         "etag": "1", "kind": "dicom" if one.instance is not None else "other",
         "claimed_at": NOON + timedelta(hours=number)}
        for one in batch
    ]  # fmt: skip
    rows = [one.row() for one in batch if one.instance is not None]
    ledger = [{**{name: row[name] for name in ("batch_id", "object_id", "kind")}, "outcome": "ingested",
               "judged_at": NOON} for row in raw]  # fmt: skip
    lake.replace("raw_files", [staging.batch_id], pa.Table.from_pylist(raw, schema=RAW_FILES.schema))
    for part, listed in ((Part.RAW, raw), (Part.LEDGER, ledger), (Part.FLAT, rows)):
        schema = RAW_STAGED if part is Part.RAW else SCHEMAS[part]
        staging.stage(part, pa.Table.from_pylist(listed, schema=schema))
    publish_flat(lake, staging, lambda: before)
    return staging


def deliver(lake: Lake, batch: Sequence[Arrival], before: Mapping[str, Sequence[str]]) -> None:
    """Publishes a batch and closes it; every blocking rule about its duplicates holds."""
    staging = publish(lake, batch, before)
    publish_duplicates(lake, staging)
    context = CheckContext(lake, staging)
    for rule in DUPLICATE_RULES:
        result = rule.rule(context)
        assert result.passed or not rule.blocking, (rule.name, result)
    assert groups_hold_the_batch(CheckContext(lake, staging)).passed
    close(lake, staging)
    staging.remove()


def close(lake: Lake, staging: Staging) -> None:
    """Closes the books of a batch."""
    row = {"batch_id": staging.batch_id, "source": "landing", "status": "closed", "seen": 0}
    lake.replace("batches", [staging.batch_id], pa.Table.from_pylist([row], schema=BATCHES.schema))


def claimed_before(batch: Sequence[Arrival], everything: Sequence[Sequence[Arrival]]) -> Mapping[str, Sequence[str]]:
    """By place of a batch the batches that had claimed it before."""
    found: dict[str, list[str]] = defaultdict(list)
    for one in batch:
        for own in everything[: one.batch]:
            found[one.place] += [batch_name(own[0].batch) for other in own if other.place == one.place]
    return {place: names for place, names in found.items() if names}


def groups(lake: Lake) -> set[tuple[str, frozenset[str]]]:
    """The groups that the table has."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in contents(lake, ("duplicate",))["duplicate"]:
        found[row["kind"], row["group_id"]].add(row["object_id"])
    return {(kind, frozenset(members)) for (kind, _), members in found.items()}


def all_keys(lake: Lake) -> pa.ChunkedArray:
    """Every key of every object."""
    with lake.cursor() as connection:
        found = arrow(connection, f"SELECT DISTINCT shared_key FROM ({keys_of(scan(lake, 'flat_metadata'))})")
    return found["shared_key"]


@pytest.mark.slow
@given(seeds())
@settings(max_examples=1, phases=(Phase.explicit, Phase.reuse, Phase.generate))
def test_groups_are_the_same_whatever_the_order_and_made_at_once(empty_lake, seed: int):
    chance = Random(seed)
    everything = batches(chance)
    wanted = expected(one for batch in everything for one in batch)
    found = []
    for order in (everything, chance.choice([*permutations(everything)][1:])):
        with tempfile.TemporaryDirectory() as folder:
            lake = Lake(shutil.copytree(empty_lake, f"{folder}/lake"), make=False)
            for batch in order:
                deliver(lake, batch, claimed_before(batch, everything))
            again = chance.choice(order)  # as after a kill
            deliver(lake, again, claimed_before(again, everything))
            assert groups(lake) == wanted
            found.append(contents(lake, TABLES))
            keys = all_keys(lake)
            had = sorted({row["shared_key"] for row in found[-1]["duplicate"]})
            lake.replace("duplicate", had, DUPLICATE.schema.empty_table())
            make_again(lake, keys)
            found.append(contents(lake, TABLES))
    assert all(one == found[0] for one in found)


@pytest.mark.slow
def test_a_batch_that_is_run_again_with_less_takes_its_objects_out_of_their_groups(empty_lake, tmp_path):
    lake = Lake(str(shutil.copytree(empty_lake, tmp_path / "lake")), make=False)
    first, second = Arrival("a", 1, 1, "P1", None), Arrival("b", 1, 1, "P1", None, batch=1)
    deliver(lake, [first], {})
    deliver(lake, [second], {})
    assert groups(lake) == {("bytes", frozenset({first.object_id, second.object_id}))}
    deliver(lake, [Arrival("b", None, 1, "P1", None, batch=1)], {})
    assert groups(lake) == set()


def test_what_two_open_batches_share_is_judged_by_the_one_that_closes_last(empty_lake, tmp_path):
    lake = Lake(str(shutil.copytree(empty_lake, tmp_path / "lake")), make=False)
    first = publish(lake, [Arrival("a", 1, 1, "P1", None)], {})
    publish_duplicates(lake, first)
    second = publish(lake, [Arrival("b", 1, 1, "P1", None, batch=1)], {})  # between two reads of the first
    for one in (first, second):
        assert members_are_alike(CheckContext(lake, one)).passed
    assert groups_hold_the_batch(CheckContext(lake, first)).passed
    close(lake, first)
    assert not groups_hold_the_batch(CheckContext(lake, second)).passed
    publish_duplicates(lake, second)
    assert groups_hold_the_batch(CheckContext(lake, second)).passed
