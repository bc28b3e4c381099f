"""A container as landing source: listing, reading by range, noticing changes, and storage that refuses."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from dicom_assets.dicom.frames import read_frame
from dicom_assets.landing import azure
from dicom_assets.landing.archives import members
from dicom_assets.landing.azure import AzureContainer, AzureObject
from dicom_assets.landing.retrieval import Place, open_data
from dicom_assets.landing.store import LISTING, ObjectError, ObjectRef, SourceUnavailable
from dicom_assets.settings import ArchiveLimits, SourceSettings
from dicom_assets_tests.azure.azurite import Container, Proxy
from dicom_assets_tests.dicom.raw import dicom, element
from dicom_assets_tests.dicom.referee import read, row_of

pytestmark = pytest.mark.slow


def store(root: str, **settings: Any) -> AzureContainer:
    return AzureContainer(SourceSettings(name="ct", root=root, **settings))


def rows(source: AzureContainer, after: str | None = None) -> list[dict[str, Any]]:
    return [row for batch in source.list_after(after) for row in batch.to_pylist()]


def refs(source: AzureContainer) -> list[ObjectRef]:
    return [ObjectRef(row["uri"], row["etag"], row["size"]) for row in rows(source)]


def only(source: AzureContainer, claimed: ObjectRef, first: int = 65_536) -> AzureObject:
    (result,) = source.open_all([claimed], first)
    assert isinstance(result, AzureObject), result
    return result


def code_of(source: AzureContainer, claimed: ObjectRef) -> str:
    (result,) = source.open_all([claimed], 65_536)
    assert isinstance(result, ObjectError)
    return result.code


class TestListing:
    def test_rows_say_where_how_large_how_old_and_which_version(self, container: Container) -> None:
        etag = container.put("a b/ü%20#.dcm", b"12345")
        (batch,) = store(container.url).list()
        assert batch.schema == LISTING
        (row,) = batch.to_pylist()
        assert row["uri"] == f"{container.url}/a%20b/%C3%BC%2520%23.dcm"
        assert (row["size"], row["etag"]) == (5, etag)
        assert store(container.url).below_root(row["uri"]) == "a b/ü%20#.dcm"
        assert only(store(container.url), ObjectRef(row["uri"], row["etag"], 5)).read(0, 9) == b"12345"

    def test_a_root_within_a_container_lists_what_lies_below_it(self, container: Container) -> None:
        for name in ("in/a", "in/b/c", "inside/d", "e"):
            container.put(name, b"x")
        below = store(f"{container.url}/in/")
        assert [below.below_root(row["uri"]) for row in rows(below)] == ["a", "b/c"]

    def test_every_form_of_an_address_lists_the_same_uris(self, container: Container) -> None:
        container.put("in/a", b"x")
        name = container.client.container_name
        forms = [f"{container.url}/in", f"abfss://{name}@devstoreaccount1.dfs.core.windows.net/in"]
        assert rows(store(forms[0])) == rows(store(forms[1]))

    def test_patterns_choose_and_probes_of_a_dicom_service_are_left_alone(self, container: Container) -> None:
        for name in ("a.dcm", "a.txt", "old/b.dcm", "x/healthCheck/health1.txt", "x/healthCheck/c.dcm"):
            container.put(name, b"x")
        source = store(container.url, include=("**/*.dcm",), exclude=("old/**",))
        assert [source.below_root(row["uri"]) for row in rows(source)] == ["a.dcm"]

    def test_a_listing_goes_on_behind_a_blob(self, container: Container) -> None:
        for number in range(5):
            container.put(f"{number}", b"x")
        source = store(container.url)
        everything = rows(source)
        assert rows(source, everything[1]["uri"]) == everything[2:]

    def test_pages_are_bounded_and_nothing_is_lost_between_them(
        self, container: Container, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(azure, "LISTING_ROWS", 3)
        for number in range(10):
            container.put(f"{number:02}", b"x")
        batches = list(store(container.url).list())
        assert max(map(len, batches)) <= 3
        assert sum(map(len, batches)) == 10

    def test_names_that_obstore_cannot_say_are_listed_and_read(self, container: Container) -> None:
        container.put("a", b"one")
        container.put("b//c", b"two")
        source = store(container.url)
        assert [source.below_root(row["uri"]) for row in rows(source)] == ["a", "b//c"]
        assert [only(source, ref).read(0, 9) for ref in refs(source)] == [b"one", b"two"]
        container.put("b//c", b"new")
        stale = ObjectRef(f"{container.url}/b//c", "0x1", 3)
        assert code_of(source, stale) == "CHANGED_DURING_READ"


class TestReading:
    def test_a_first_range_is_all_that_a_small_header_costs(self, container: Container) -> None:
        container.put("a", bytes(1_000_000))
        opened = only(store(container.url), refs(store(container.url))[0])
        opened.read(0, 100_000)
        assert opened.fetched == azure.FIRST_RANGE

    def test_telling_what_a_blob_is_fetches_only_what_is_asked_for(self, container: Container) -> None:
        container.put("a", bytes(1_000_000))
        assert only(store(container.url), refs(store(container.url))[0], first=4_096).fetched == 4_096

    def test_a_longer_header_grows_by_four_and_is_not_fetched_twice(self, container: Container) -> None:
        data = bytes(range(256)) * 8_000
        container.put("a", data)
        opened = only(store(container.url), refs(store(container.url))[0])
        assert opened.read(0, 200_000) == data[:200_000]
        assert opened.fetched == 4 * azure.FIRST_RANGE
        assert opened.read(300_000, 10) == data[300_000:300_010]
        assert opened.fetched == 4 * azure.FIRST_RANGE

    def test_far_reads_fetch_a_window(self, container: Container) -> None:
        data = bytes(range(256)) * 80_000
        container.put("a", data)
        opened = only(store(container.url), refs(store(container.url))[0])
        assert opened.read(len(data) - 16, 100) == data[-16:]
        assert opened.fetched == azure.FIRST_RANGE + 16
        walked = b"".join(opened.read(10_000_000 + at, 1_000) for at in range(0, 500_000, 1_000))
        assert walked == data[10_000_000:10_500_000]
        assert opened.read(0, len(data)) == data

    def test_results_come_in_order_whatever_is_fetched_first(self, container: Container) -> None:
        for number in range(120):
            container.put(f"{number:03}", str(number).encode() * (1 + 5_000 * (number % 3)))
        source = store(container.url)
        read = [
            opened.read(0, 3) for opened in source.open_all(refs(source), 65_536) if isinstance(opened, AzureObject)
        ]
        assert read == [(str(number).encode() * (1 + 5_000 * (number % 3)))[:3] for number in range(120)]

    def test_an_empty_blob_opens(self, container: Container) -> None:
        container.put("a", b"")
        assert only(store(container.url), refs(store(container.url))[0]).read(0, 10) == b""

    def test_a_zip_is_read_by_ranges(self, container: Container) -> None:
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
            for number in range(3):
                archive.writestr(f"{number}.bin", bytes([number]) * 3_000_000)
        container.put("a.zip", sink.getvalue())
        opened = only(store(container.url), refs(store(container.url))[0], first=4_096)
        assert [member.name for member in members(opened, ArchiveLimits())] == ["0.bin", "1.bin", "2.bin"]
        assert opened.fetched < 700_000

    def test_a_replaced_blob_is_noticed_before_and_during_reading(self, container: Container) -> None:
        container.put("a", bytes(1_000_000))
        source = store(container.url)
        (claimed,) = refs(source)
        opened = only(source, claimed)
        container.put("a", bytes(1_000_000))
        assert code_of(source, claimed) == "CHANGED_DURING_READ"
        with pytest.raises(ObjectError, match="etag") as raised:
            opened.read(500_000, 10)
        assert raised.value.code == "CHANGED_DURING_READ"

    def test_a_deleted_blob_is_gone_and_a_missing_container_is_no_deleted_blob(self, container: Container) -> None:
        container.put("a", b"x")
        source = store(container.url)
        (claimed,) = refs(source)
        container.client.delete_blob("a")
        assert code_of(source, claimed) == "OBJECT_GONE"
        container.client.delete_container()
        assert code_of(source, claimed) == "SOURCE_UNAVAILABLE"


class TestStorageThatRefuses:
    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr("dicom_assets.storage.azure.RETRIES", 3)
        yield

    @pytest.mark.parametrize("status", [429, 503])
    def test_throttling_is_waited_out(self, container: Container, faults: Proxy, status: int) -> None:
        container.put("a", b"12345")
        source = store(container.url)
        (claimed,) = refs(source)
        refused: list[str] = []

        def twice(method: str, path: str) -> int | None:
            if method == "GET" and len(refused) < 2:
                refused.append(path)
                return status
            return None

        faults.refuse = twice
        assert only(source, claimed).read(0, 9) == b"12345"
        assert len(refused) == 2

    def test_no_request_asks_for_properties_and_reads_name_the_etag(self, container: Container, faults: Proxy) -> None:
        for number in range(5):
            container.put(f"{number}", b"x" * 1000)
        faults.seen.clear()
        source = store(container.url)
        for opened in source.open_all(refs(source), 65_536):
            assert isinstance(opened, AzureObject)
            opened.read(0, 500)
            opened.verify()
        assert [method for method, _, _ in faults.seen] == ["GET"] * 6
        assert all("if-match" in {name.lower() for name in headers} for _, _, headers in faults.seen[1:])

    def test_a_failed_listing_is_not_an_empty_listing(self, container: Container, faults: Proxy) -> None:
        source = store(container.url)
        faults.refuse = lambda method, path: 403
        with pytest.raises(SourceUnavailable, match=r"Source 'ct': .*permission denied.*Reader"):
            rows(source)

    def test_a_container_that_is_not_there_says_so(self, container: Container) -> None:
        with pytest.raises(SourceUnavailable, match=r"is not there\. Create it"):
            rows(store("az://devstoreaccount1/no-such-container"))

    def test_what_the_storage_says_of_a_blob_stays_behind(self, container: Container, faults: Proxy) -> None:
        container.put("DOE^JANE.dcm", b"x")
        source = store(container.url)
        (claimed,) = refs(source)
        faults.refuse = lambda method, path: 403
        (result,) = source.open_all([claimed], 65_536)
        assert isinstance(result, ObjectError)
        assert (result.code, "DOE" in str(result)) == ("READ_FAILED", False)


class TestRetrieval:
    def test_a_frame_of_a_blob_is_one_request_for_its_range_and_none_of_a_blob_that_was_replaced(
        self, container: Container, faults: Proxy
    ) -> None:
        pixels = element(0x7FE00010, "OB", bytes(range(256)) * 1_024)
        heads = [element(tag, "US", struct.pack("<H", one)) for tag, one in ((0x00280010, 256), (0x00280011, 64))]
        bits, count = element(0x00280100, "US", b"\x08\0"), element(0x00280008, "IS", "16")
        data = dicom(*heads, bits, count, pixels)
        etag = container.put("a.dcm", data)
        place = Place(f"{container.url}/a.dcm", etag, len(data))
        header = read(data)
        source = store(container.url)
        before = len(faults.seen)
        with open_data(source, place, header.columns["TransferSyntaxUID"], ArchiveLimits(), 1 << 20) as opened:
            assert read_frame(opened, row_of(header), 16) == bytes(range(256)) * 64
        assert len(faults.seen) == before + 1
        assert isinstance(opened, AzureObject)
        assert opened.fetched < 200_000
        container.put("a.dcm", bytes(len(data)))
        with (
            pytest.raises(ObjectError) as error,
            open_data(source, place, header.columns["TransferSyntaxUID"], ArchiveLimits(), 1 << 20) as opened,
        ):
            read_frame(opened, row_of(header), 16)
        assert error.value.code == "CHANGED_DURING_READ"
