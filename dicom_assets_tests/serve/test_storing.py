"""What is stored over HTTP lies in the landing zone, whole or not at all, and is accounted for like all that does."""

from __future__ import annotations

import io
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pydicom
import pytest
from pydicom.data import get_testdata_file

from dicom_assets.lake.delta import Lake
from dicom_assets.landing import folder_deposits
from dicom_assets.landing.deposits import HIDDEN, Spool
from dicom_assets_tests.serve.storing_service import BOUNDARY, RELATED, Place, body, make_app, pixels, place, running
from dicom_assets_tests.support.commands import wait_for
from dicom_assets_tests.support.dicoms import dicom, uid, without_identity
from dicom_assets_tests.support.lakes import table

FAILED, STORED, RETRIEVE = "00081198", "00081199", "00081190"


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Iterator[Place]:
    """A lake that is stored to by date; each test has studies of its own."""
    with place(tmp_path_factory.mktemp("storing")) as one:
        yield one


@pytest.fixture
def fresh(tmp_path) -> Iterator[Place]:
    """The same for one test alone, the lake empty."""
    with place(tmp_path, filled=False) as one:
        yield one


def reasons(answer: dict[str, Any]) -> list[int]:
    return [item["00081197"]["Value"][0] for item in answer.get(FAILED, {}).get("Value", [])]


def warnings(answer: dict[str, Any]) -> list[int]:
    return [item["00081196"]["Value"][0] for item in answer.get(STORED, {}).get("Value", []) if "00081196" in item]


def stored(answer: dict[str, Any]) -> list[str]:
    return [item["00081155"]["Value"][0] for item in answer.get(STORED, {}).get("Value", [])]


@pytest.mark.slow
def test_objects_are_stored_as_they_were_sent_and_the_books_count_them(fresh):
    objects = [dicom(10, 1, number) for number in (1, 2, 3)]
    answer = fresh.store(*objects)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom+json")
    assert sorted(path.read_bytes() for path in fresh.files()) == sorted(objects)
    said = answer.json()
    assert said[RETRIEVE] == {"vr": "UR", "Value": [f"{fresh.url}/dicom-web/studies/{uid(10)}"]}
    assert stored(said) == [uid(10, 1, number) for number in (1, 2, 3)] and FAILED not in said
    item = said[STORED]["Value"][0]
    assert item["00081150"]["Value"] == ["1.2.840.10008.5.1.4.1.1.2"]
    at = f"{fresh.url}/dicom-web/studies/{uid(10)}/series/{uid(10, 1)}/instances/{uid(10, 1, 1)}"
    assert item[RETRIEVE]["Value"] == [at]
    books = fresh.ingest()
    assert (books.seen, books.ingested, books.balance) == (3, 3, 0)
    # The same bytes again, which the lake now has: nothing new, nothing to claim.
    assert (fresh.store(*objects).status_code, len(fresh.files())) == (200, 3)


def test_a_name_says_the_day_and_nothing_of_the_object(fresh):
    fresh.store(dicom(10))
    (path,) = fresh.files()
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/[0-9a-f]{16}-[0-9a-f]{32}\.dcm", path.relative_to(fresh.root).as_posix())
    assert path.relative_to(fresh.root).as_posix()[:10] == f"{datetime.now(UTC):%Y/%m/%d}"


def test_one_object_may_be_the_whole_body(here):
    answer = here.post(dicom(11), kind="application/dicom")
    assert (answer.status_code, stored(answer.json())) == (200, [uid(11, 1, 1)])


def test_objects_of_several_studies_have_no_address_of_one_study(here):
    answer = here.store(dicom(12), dicom(13))
    assert (answer.status_code, answer.json()[RETRIEVE]) == (200, {"vr": "UR"})


def test_below_a_study_only_its_objects_are_taken(here):
    answer = here.store(dicom(14), dicom(15), path=f"/studies/{uid(14)}")
    assert (answer.status_code, stored(answer.json()), reasons(answer.json())) == (202, [uid(14, 1, 1)], [0xA900])
    assert answer.json()[RETRIEVE]["Value"] == [f"{here.url}/dicom-web/studies/{uid(14)}"]
    assert answer.json()[FAILED]["Value"][0]["00081155"]["Value"] == [uid(15, 1, 1)]
    assert here.store(dicom(15), path=f"/studies/{uid(14)}").status_code == 409


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (without_identity(), 0xA900),
        (dicom(16, SOPInstanceUID=None), 0xA900),
        (b"no DICOM at all, but a few bytes", 0xC000),
        (b"", 0xC000),
        (dicom(16)[:200], 0xC000),
    ],
    ids=["no study", "no instance", "not DICOM", "nothing", "cut off"],
)
def test_what_the_reader_refuses_is_refused_with_a_reason_and_not_there(here, sent, reason):
    before = here.files()
    answer = here.store(sent)
    assert (answer.status_code, reasons(answer.json()), here.files()) == (409, [reason], before)


def test_what_is_accepted_stays_when_others_are_not(here):
    answer = here.store(dicom(17), b"nothing", dicom(17, 1, 2))
    assert answer.status_code == 202
    assert (len(stored(answer.json())), reasons(answer.json())) == (2, [0xC000])


def test_a_media_directory_is_no_object(here):
    directory = Path(get_testdata_file("DICOMDIR")).read_bytes()
    assert reasons(here.store(directory).json()) == [0xC000]


# Versions


def test_the_same_bytes_again_are_no_new_version_before_an_ingest(here):
    sent = dicom(20)
    assert here.store(sent).status_code == 200
    before = here.files()
    again = here.store(sent)
    assert (again.status_code, warnings(again.json()), here.files()) == (200, [], before)


def test_other_bytes_under_the_same_uid_are_a_new_version_with_a_warning(here):
    assert here.store(dicom(21)).status_code == 200
    before = len(here.files())
    again = here.store(dicom(21, Rows=4))
    assert (again.status_code, warnings(again.json()), len(here.files())) == (202, [0xB000], before + 1)
    # And the first bytes once more are a third version: the newest ones are others.
    third = here.store(dicom(21))
    assert (third.status_code, warnings(third.json()), len(here.files())) == (202, [0xB000], before + 2)
    assert here.store(dicom(21)).status_code == 200 and len(here.files()) == before + 2


def test_what_the_lake_has_counts_whoever_put_it_there(here):
    before = len(here.files())
    assert (here.store(dicom(1)).status_code, len(here.files())) == (200, before)
    again = here.store(dicom(1, Rows=4))
    assert (again.status_code, warnings(again.json()), len(here.files())) == (202, [0xB000], before + 1)


def test_versions_are_told_by_the_lake_after_an_ingest_and_by_another_server(tmp_path):
    with place(tmp_path, filled=False) as one:
        one.store(dicom(22), dicom(22, 1, 2))
        with running(make_app(one.settings)) as one.url:  # it knows nothing of what the first one stored
            assert (one.store(dicom(22)).status_code, len(one.files())) == (200, 2)
            one.store(dicom(22, Rows=4))
        one.publish()
        with running(make_app(one.settings)) as one.url:
            assert (one.store(dicom(22, Rows=4)).status_code, len(one.files())) == (200, 3)
            older = one.store(dicom(22))
            assert (older.status_code, warnings(older.json()), len(one.files())) == (202, [0xB000], 4)


def test_other_bytes_of_what_another_server_has_stored_are_warned_of_before_an_ingest(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_deposits, "_LOOK_SECONDS", 0.0)
    with place(tmp_path, filled=False) as one:
        assert one.store(dicom(23), dicom(23, 1, 2)).status_code == 200
        with running(make_app(one.settings)) as one.url:
            same = one.store(dicom(23))
            assert (same.status_code, warnings(same.json()), len(one.files())) == (200, [], 2)
            other = one.store(dicom(23, 1, 2, Rows=4), dicom(23, 1, 3))
            assert (other.status_code, warnings(other.json()), len(one.files())) == (202, [0xB000], 4)


# Requests that are none


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (body(dicom(30)), "multipart/related; type=application/dicom; boundary=other", 400),
        (body(dicom(30)), 'multipart/related; type="application/dicom"', 400),
        (body(), RELATED, 400),
        (b"", RELATED, 400),
        (body(dicom(30)), f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}', 415),
        (body(dicom(30)), f"multipart/form-data; boundary={BOUNDARY}", 415),
        (dicom(30), "image/jpeg", 415),
    ],
    ids=["another boundary", "no boundary", "no parts", "no body", "metadata and bulk data", "a form", "an image"],
)
def test_what_is_no_such_request_is_refused(here, content, kind, status):
    before = here.files()
    answer = here.post(content, kind=kind)
    assert (answer.status_code, here.files()) == (status, before)
    assert len(answer.text) > 20


def test_quotation_marks_around_parameters_mean_nothing(here):
    kind = f'multipart/related; boundary="{BOUNDARY}"; type=application/dicom'
    assert here.post(body(dicom(31)), kind=kind).status_code == 200


def test_a_compressed_body_and_an_answer_in_xml_are_refused(here):
    assert here.post(body(dicom(32)), Content_Encoding="gzip").status_code == 415
    assert here.post(body(dicom(32)), Accept="application/dicom+xml").status_code == 406
    assert here.post(body(dicom(32)), Accept="application/dicom+xml, application/json;q=0.5").status_code == 200


def test_a_body_that_ends_early_leaves_what_was_whole_and_says_so(here):
    whole, half = dicom(33), dicom(33, 1, 2)
    before = len(here.files())
    sent = body(whole, half)
    answer = here.post(sent[: len(sent) - 300])
    assert (answer.status_code, stored(answer.json()), len(here.files())) == (400, [uid(33, 1, 1)], before + 1)
    assert "ends before its last boundary" in answer.headers["Warning"]


def test_a_part_that_is_declared_as_something_else_fails(here):
    answer = here.post(body(dicom(34), kind="image/jpeg"))
    assert (answer.status_code, reasons(answer.json())) == (409, [0xC000])


# Bounds and faults


def test_an_object_that_is_too_large_is_refused_and_the_others_are_not(tmp_path):
    with place(tmp_path, filled=False, part_bytes=100_000) as one:
        large = pixels(40, 200_000)
        answer = one.store(large, dicom(41))
        assert (answer.status_code, stored(answer.json()), reasons(answer.json())) == (202, [uid(41, 1, 1)], [0xA700])
        assert one.store(large).status_code == 413
        assert [path.read_bytes() for path in one.files()] == [dicom(41)]


def test_a_full_disk_refuses_what_does_not_fit_and_leaves_nothing_of_it(here, monkeypatch):
    before = here.files()
    monkeypatch.setattr(folder_deposits.FolderDepot, "spool", lambda self: Spool(os.open("/dev/full", os.O_RDWR)))
    answer = here.store(dicom(42))
    assert (answer.status_code, reasons(answer.json()), here.files()) == (503, [0xA700], before)
    assert int(answer.headers["Retry-After"]) > 0
    monkeypatch.undo()
    assert here.store(dicom(42)).status_code == 200


def test_a_landing_zone_that_is_gone_refuses_everything_and_is_not_made_anew(fresh):
    assert fresh.store(dicom(43)).status_code == 200
    gone = fresh.root.rename(fresh.root.with_name("elsewhere"))
    answer = fresh.store(dicom(44))
    assert (answer.status_code, reasons(answer.json()), fresh.root.exists()) == (503, [0xA700], False)
    gone.rename(fresh.root)
    assert fresh.store(dicom(44)).status_code == 200


def test_a_client_that_breaks_off_leaves_no_file_and_no_descriptor(here):
    before, server = here.files(), psutil.Process()
    open_before = server.num_fds()
    host, port = here.url.removeprefix("http://").split(":")
    data = body(pixels(45, 3_000_000))
    lines = ("POST /dicom-web/studies HTTP/1.1", f"Host: {host}", f"Content-Type: {RELATED}")
    head = "\r\n".join([*lines, f"Content-Length: {len(data)}", "", ""])
    clients = [socket.create_connection((host, int(port))) for _ in range(10)]
    for client in clients:
        client.sendall(head.encode() + data[:2_500_000])
    for client in clients:
        client.close()
    until = time.monotonic() + 5
    while server.num_fds() > open_before and time.monotonic() < until:
        time.sleep(0.02)
    assert (here.files(), server.num_fds() <= open_before) == (before, True)
    assert here.store(dicom(45)).status_code == 200


def test_while_an_object_comes_in_no_listing_sees_it(here):
    seen: list[int] = []
    before = len(here.files())

    def slowly():
        data = body(pixels(46, 4_000_000))
        for begin in range(0, len(data), 500_000):
            yield data[begin : begin + 500_000]
            seen.append(len(here.files()))

    assert here.post(slowly()).status_code == 200
    assert set(seen[:-1]) == {before} and len(here.files()) == before + 1


def test_many_store_the_same_at_once_and_it_is_there_once(here):
    sent, answers = dicom(47), []
    before = len(here.files())
    threads = [threading.Thread(target=lambda: answers.append(here.store(sent).status_code)) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert (answers, len(here.files())) == ([200] * 8, before + 1)


def test_where_there_are_no_files_without_names_they_have_one_that_no_listing_sees(fresh, monkeypatch):
    monkeypatch.setattr(folder_deposits, "_UNNAMED", None)
    left = fresh.root / HIDDEN / "left-by-a-kill"
    left.parent.mkdir()
    left.write_bytes(dicom(48)[:500])
    there: list[list[Path]] = []

    def slowly():
        data = body(pixels(48, 4_000_000))
        yield data[:3_000_000]
        wait_for("what a kill left to go", lambda: not left.exists() and len(fresh.files()) == 1)
        there.append(fresh.files())
        yield data[3_000_000:]

    assert fresh.post(slowly()).status_code == 200
    assert [path.parent.name for path in there[0]] == [HIDDEN]
    assert [path.parent.name for path in fresh.files()] == [f"{datetime.now(UTC):%d}"]
    left.write_bytes(dicom(48)[:500])
    fresh.publish()
    assert table(Lake(fresh.settings.lake), "raw_files").num_rows == 1


def test_what_is_stored_can_be_read(fresh):
    fresh.store(dicom(49, PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 192"))
    (path,) = fresh.files()
    assert pydicom.dcmread(io.BytesIO(path.read_bytes())).PatientName == "Müller^Jörg"
