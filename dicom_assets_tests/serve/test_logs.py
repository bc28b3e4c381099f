"""What is written down of requests: nothing of a patient in the access log; who saw whom, for who has the key."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response
from starlette.testclient import TestClient
from typer.testing import CliRunner

from dicom_assets.cli.main import app as command_line
from dicom_assets.lake.query import connect, existing
from dicom_assets.serve.audit_log import digest
from dicom_assets.serve.call import Call
from dicom_assets.serve.line_log import LineLog
from dicom_assets.serve.problems import not_found
from dicom_assets.serve.routes import ROUTES as REAL
from dicom_assets.settings import Settings, SettingsError
from dicom_assets_tests.serve.asking import ENVIRONMENT, OWN, bearer, client, resource
from dicom_assets_tests.support.dicoms import uid

ALL = {"name": "radiology", "variable": "ALL"}
KEY = ENVIRONMENT["KEY"].encode()


async def search(call: Call) -> Response:
    """Two studies, as a search shows them."""
    rows = [{"0020000D": {"vr": "UI", "Value": [uid(one)]}, "00100020": {"vr": "LO"}} for one in (1, 2)]
    return JSONResponse(rows, media_type="application/dicom+json")


async def missing(call: Call) -> Response:
    raise not_found("study")


ROUTES = (*OWN, resource("/search", search), resource("/studies/{study}/missing", missing))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def asking(searchable: Settings, tmp_path: Path, **serve: Any) -> TestClient:
    serve = {"audit": {"file": str(tmp_path / "audit"), "key_variable": "KEY"}, "tokens": [ALL], **serve}
    return client(searchable, ROUTES, **serve)


class TestAccessLog:
    def test_holds_the_route_and_nothing_that_was_sent(self, searchable: Settings, tmp_path: Path):
        log = tmp_path / "access"
        some = asking(searchable, tmp_path, access_log=str(log))
        answer = some.get(f"/dicom-web/studies/{uid(1)}/about?PatientName=Doe", headers=bearer("ALL"))
        some.get(f"/{uid(1)}/Doe^John?PatientID=4711", headers={"User-Agent": "Doe", "Referer": "http://x/Doe"})
        text = log.read_text()
        assert not any(word in text for word in (uid(1), "Doe", "4711", "radiology", "127.0.0.1", ENVIRONMENT["ALL"]))
        first, second = lines(log)
        assert first["route"] == "/dicom-web/studies/{study}/about"
        assert (first["status"], first["bytes"], first["method"]) == (200, len(answer.content), "GET")
        assert first["request"] == answer.headers["x-request-id"]
        assert first["ms"] >= first["waited_ms"] >= 0
        assert (second["route"], second["status"], second["waited_ms"]) == ("none", 401, None)

    def test_a_method_that_a_client_has_made_up_is_not_written(self, searchable: Settings, tmp_path: Path):
        log = tmp_path / "access"
        asking(searchable, tmp_path, access_log=str(log)).request("DOE^JOHN", "/dicom-web/about", headers=bearer("ALL"))
        assert lines(log)[0]["method"] == "OTHER"

    def test_may_be_switched_off(self, searchable: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        client(searchable, ROUTES, access_log="").get("/dicom-web/about")
        assert capsys.readouterr().err == ""


class TestAuditLog:
    def test_says_who_asked_for_what_kind_of_thing_and_when(self, searchable: Settings, tmp_path: Path):
        some = asking(searchable, tmp_path)
        some.get(f"/dicom-web/landing/studies/{uid(1)}/about", headers=bearer("ALL"))
        some.get("/dicom-web/about")
        (first, second) = lines(tmp_path / "audit")
        assert (first["who"], first["kind"], first["status"], first["source"]) == ("radiology", "token", 200, "landing")
        assert first["what"] == "/dicom-web/{source}/studies/{study}/about"
        assert first["at"].endswith("+00:00")
        assert (second["who"], second["kind"], second["status"]) == ("-", "nobody", 401)

    def test_names_whom_a_proxy_has_signed_in(self, searchable: Settings, tmp_path: Path):
        some = asking(searchable, tmp_path, tokens=[], proxy={"addresses": ["127.0.0.1"]})
        some.get("/dicom-web/about", headers={"X-Forwarded-User": "dr.who"})
        assert [(one["who"], one["kind"]) for one in lines(tmp_path / "audit")] == [("dr.who", "user")]

    def test_holds_no_identifier_with_a_key_or_without(self, searchable: Settings, tmp_path: Path):
        for audit in ({"key_variable": "KEY"}, {}):
            some = asking(searchable, tmp_path, audit={"file": str(tmp_path / "audit"), **audit})
            some.get(f"/dicom-web/studies/{uid(1)}/about?PatientID=P1", headers=bearer("ALL"))
        text = (tmp_path / "audit").read_text()
        assert not any(word in text for word in (uid(1), "P0001", "P1", "Name"))
        with_key, without = lines(tmp_path / "audit")
        assert with_key["studies"] == [digest(KEY, "study", uid(1))]
        assert "studies" not in without

    def test_patients_are_those_of_the_studies_that_were_asked_for_or_shown(self, searchable: Settings, tmp_path: Path):
        some = asking(searchable, tmp_path)
        for path in (f"/studies/{uid(3)}/about", "/search", f"/studies/{uid(2)}/missing", "/studies/9.9.9/about"):
            some.get("/dicom-web" + path, headers=bearer("ALL"))
        found = lines(tmp_path / "audit")
        studies = [[digest(KEY, "study", one) for one in ones] for ones in ((uid(3),), (uid(1), uid(2)), (uid(2),))]
        assert [sorted(one["studies"]) for one in found[:3]] == [sorted(one) for one in studies]
        with connect(existing(searchable.lake), ["study"]) as connection:
            patients = dict(connection.execute("SELECT StudyInstanceUID, PatientID FROM study").fetchall())
        assert (patients[uid(3)], found[0]["patients"]) == (None, [])
        assert set(found[1]["patients"]) == {digest(KEY, "patient", patients[uid(one)]) for one in (1, 2)}
        assert (found[2]["status"], found[3]["patients"]) == (404, [])

    def test_who_asks_without_tokens_is_only_written_down_where_that_is_set(self, searchable, tmp_path: Path, capsys):
        client(searchable, ROUTES).get("/dicom-web/about")
        client(searchable, ROUTES, audit={"file": str(tmp_path / "audit")}).get("/dicom-web/about")
        client(searchable, ROUTES, tokens=[ALL]).get("/dicom-web/about")
        assert [json.loads(line)["log"] for line in capsys.readouterr().err.splitlines()] == ["audit"]
        assert [one["kind"] for one in lines(tmp_path / "audit")] == ["local"]

    def test_while_it_cannot_be_written_nothing_is_shown(self, searchable: Settings, tmp_path: Path):
        (tmp_path / "folder").mkdir()
        log = tmp_path / "folder" / "audit"
        some = asking(searchable, tmp_path, audit={"file": str(log)})
        log.unlink()
        (tmp_path / "folder").rename(tmp_path / "away")
        told = [some.get("/dicom-web/about", headers=bearer("ALL")).status_code for _ in range(2)]
        (tmp_path / "away").rename(tmp_path / "folder")
        told += [some.get("/dicom-web/about", headers=bearer("ALL")).status_code]
        assert told == [200, 503, 200]
        assert [one["status"] for one in lines(log)] == told

    @pytest.mark.parametrize("value", ["", "short"])
    def test_a_key_is_long(self, searchable: Settings, value: str):
        with pytest.raises(SettingsError, match="KEY must hold a key"):
            client(searchable, audit={"key_variable": "KEY"}, environment={"KEY": value})

    def test_a_file_that_cannot_be_written_is_said_at_the_start(self, searchable: Settings, tmp_path: Path):
        with pytest.raises(SettingsError, match="cannot be written"):
            client(searchable, audit={"file": str(tmp_path / "nowhere" / "audit")})


class TestLines:
    def test_a_file_that_is_moved_away_is_begun_anew_and_is_for_its_owner(self, tmp_path: Path):
        log = LineLog(str(tmp_path / "log"))
        log.write({"n": 1})
        (tmp_path / "log").rename(tmp_path / "log.1")
        log.write({"n": 2})
        assert [lines(tmp_path / name) for name in ("log.1", "log")] == [[{"n": 1}], [{"n": 2}]]
        assert (tmp_path / "log").stat().st_mode & 0o077 == 0
        log.close()

    def test_what_waits_is_written_before_the_next_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        log = LineLog(str(tmp_path / "log"))
        write = os.write
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:4]))  # a disk that is full
        for number in (1, 2):
            with pytest.raises(OSError, match="space"):
                log.write({"n": number})
        monkeypatch.undo()
        log.write({"n": 3})
        whole = [line for line in (tmp_path / "log").read_text().splitlines() if line.endswith("}")]
        assert [json.loads(one)["n"] for one in whole] == [1, 2, 3]


class TestWhoSaw:
    @pytest.fixture
    def log(self, searchable: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        some = asking(searchable, tmp_path)
        some.get(f"/dicom-web/studies/{uid(3)}/about", headers=bearer("ALL"))
        some.get("/dicom-web/search", headers=bearer("ALL"))
        settings = tmp_path / "settings.toml"
        settings.write_text(f'[serve.audit]\nfile = "{tmp_path / "audit"}"\nkey_variable = "KEY"\n')
        monkeypatch.setenv("DICOM_ASSETS_CONFIG", str(settings))
        monkeypatch.setenv("KEY", ENVIRONMENT["KEY"])
        with (tmp_path / "audit").open("a") as torn:
            torn.write('{"log":"audi')
        return tmp_path / "audit"

    def asked(self, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
        done = CliRunner().invoke(command_line, ["who-saw", *arguments, "--format", "json"])
        return done.exit_code, json.loads(done.stdout) if done.exit_code == 0 else []

    def test_a_study(self, log: Path):
        assert [one["what"] for one in self.asked("--study", uid(3))[1]] == ["/dicom-web/studies/{study}/about"]
        assert [one["what"] for one in self.asked("--study", uid(2))[1]] == ["/dicom-web/search"]
        assert self.asked("--study", uid(7)) == (0, [])

    def test_a_patient_in_any_of_several_files(self, searchable: Settings, log: Path, tmp_path: Path):
        with connect(existing(searchable.lake), ["study"]) as connection:
            sql = f"SELECT DISTINCT PatientID FROM study WHERE StudyInstanceUID = '{uid(2)}'"
            ((patient,),) = connection.execute(sql).fetchall()
        (tmp_path / "older").write_bytes(log.read_bytes())
        code, found = self.asked(str(log), str(tmp_path / "older"), "--patient", patient)
        assert code == 0
        assert len(found) >= 2
        assert {one["who"] for one in found} == {"radiology"}

    def test_nobody_without_the_key(self, log: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("KEY", "another key, just as long")
        assert self.asked("--study", uid(3)) == (0, [])
        monkeypatch.delenv("KEY")
        assert self.asked("--study", uid(3))[0] == 2

    def test_what_is_missing_is_said(self, log: Path, tmp_path: Path):
        assert self.asked()[0] == 2
        assert self.asked(str(tmp_path / "none"), "--study", "1.2")[0] == 2


@pytest.mark.parametrize("kind", ["application/dicom+json", "text/csv"])
def test_a_search_tells_the_log_which_studies_it_has_shown(searchable: Settings, tmp_path: Path, kind: str):
    some = client(searchable, REAL, audit={"file": str(tmp_path / "audit"), "key_variable": "KEY"})
    for path in (
        "/studies?limit=2",
        f"/studies/{uid(2)}/series",
        "/instances?Modality=SR",
        "/studies?PatientID=nobody",
    ):
        assert some.get("/dicom-web" + path, headers={"Accept": kind}).status_code == 200
    found = [set(one["studies"]) for one in lines(tmp_path / "audit")]
    assert len(found[0]) == 2
    assert found[1:] == [{digest(KEY, "study", uid(2))}, {digest(KEY, "study", uid(1))}, set()]
