"""The index of places: which earlier claims had a uri, from summaries, from claims, and from both where one is torn."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from unittest import mock

import pyarrow as pa

from dicom_assets.lake.delta import Lake
from dicom_assets.landing.claims import MANIFEST, ClaimLog
from dicom_assets.landing.uri_index import UriIndex

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def manifest(number: int, *places: str) -> pa.Table:
    """What a claim says of a version at each of some places."""
    rows = [
        {
            "object_id": f"{number:04d}{at:016d}",
            "source": "landing",
            "uri": f"file:///{place}",
            "etag": f"{number}",
            "size": 1,
            "modified_at": NOON,
            "claimed_at": NOON,
        }
        for at, place in enumerate(places)
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema([field for field in MANIFEST if field.name != "batch_id"]))


class TestTheIndexOfPlaces:
    def _log(self, lake: Lake, claims: int) -> ClaimLog:
        log = ClaimLog(lake.files)
        for number in range(claims):
            assert log.append(manifest(number, "a", "b" if number % 2 else "c"), number) is not None
        return log

    def test_says_which_earlier_claims_had_a_uri(self, empty_lake, tmp_path):
        lake = Lake(shutil.copytree(empty_lake, tmp_path / "lake").as_posix(), make=False)
        log = self._log(lake, 5)
        names = [claim.batch_id for claim in log.claims()]
        places = UriIndex(lake.files, log)
        assert places.before(names[0]) == {}
        assert places.before(names[3]) == {"file:///a": names[:3], "file:///b": [names[1]]}

    def test_says_the_same_from_a_summary_and_without_one_that_is_torn(self, empty_lake, tmp_path, monkeypatch):
        lake = Lake(shutil.copytree(empty_lake, tmp_path / "lake").as_posix(), make=False)
        log = self._log(lake, 7)
        names = [claim.batch_id for claim in log.claims()]
        plain = UriIndex(lake.files, log).before(names[6])
        monkeypatch.setattr("dicom_assets.landing.uri_index.SUMMARISE_AFTER", 5)
        assert UriIndex(lake.files, log).before(names[6]) == plain
        (summary,) = (tmp_path / "lake" / "_places").rglob("*.bin")
        assert UriIndex(lake.files, log).before(names[6]) == plain
        os.truncate(summary, 0)
        assert UriIndex(lake.files, log).before(names[6]) == plain

    def test_a_process_of_its_own_for_each_batch_reads_few_claims_again(self, empty_lake, tmp_path, monkeypatch):
        """What stands behind the summary is kept as well: digests of all its claims are what a batch would wait for."""
        lake = Lake(shutil.copytree(empty_lake, tmp_path / "lake").as_posix(), make=False)
        log = self._log(lake, 12)
        names = [claim.batch_id for claim in log.claims()]
        plain = {name: UriIndex(lake.files, log).before(name) for name in names}
        for setting, claims in (("SUMMARISE_AFTER", 8), ("KEEP_AFTER", 3)):
            monkeypatch.setattr(f"dicom_assets.landing.uri_index.{setting}", claims)
        read = mock.Mock(wraps=lake.files.get_parquet)
        grown = ClaimLog(lake.files)
        for upto in range(1, 13):
            monkeypatch.setattr(grown, "claims", lambda upto=upto: log.claims()[:upto])
            read.reset_mock()
            with mock.patch.object(lake.files, "get_parquet", read):
                assert UriIndex(lake.files, grown).before(names[upto - 1]) == plain[names[upto - 1]]
            assert read.call_count <= 3 + 1  # what is not kept, and the batch's own
        kept = sorted((tmp_path / "lake" / "_places").rglob("*.bin"))
        assert [path.name for path in kept if path.name == "uris.bin"] == ["uris.bin"]
        os.truncate(kept[-1], 14)
        assert UriIndex(lake.files, log).before(names[11]) == plain[names[11]]
