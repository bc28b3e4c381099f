"""Nothing outside a scope is shown by any resource, at any level, in any number; conditions are tried at the start."""

from __future__ import annotations

import itertools
import json
import re
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient

from dicom_assets.serve.permission import narrowed
from dicom_assets.serve.problems import Refusal
from dicom_assets.serve.resource import Resource
from dicom_assets.serve.routes import ROUTES
from dicom_assets.serve.served import Scope, ServedLake
from dicom_assets.settings import Settings, SettingsError
from dicom_assets_tests.serve.asking import bearer, client
from dicom_assets_tests.support.dicoms import uid

FIRST = {"name": "first", "variable": "FIRST", "sources": ["landing"]}
CONDITION = {"name": "some", "variable": "SOME", "condition": f"StudyInstanceUID = '{uid(2)}'"}
NOBODY = {"name": "none", "variable": "NONE", "sources": []}
EVERYBODY = {"name": "all", "variable": "ALL"}

HIDDEN = {
    "FIRST": {uid(3), uid(1, 2)},
    "SOME": {uid(1), uid(3), uid(1, 1), uid(1, 2), uid(3, 1)},
    "NONE": {uid(1), uid(2), uid(3)},
}
"""What a token does not see: of the first source there is no study 3, and no series 2 of study 1."""

READ = [one for one in ROUTES if one.method == "GET"]


@pytest.fixture(scope="module")
def asking(searchable: Settings) -> TestClient:
    """All resources, with a token for each scope."""
    return client(searchable, ROUTES, tokens=[EVERYBODY, FIRST, CONDITION, NOBODY])


def filled(resource: Resource, study: int, series: int, instance: int) -> str:
    """The path of a resource for one instance."""
    values = {"study": uid(study), "series": uid(study, series), "instance": uid(study, series, instance)}
    path = re.sub(r"\{(study|series|instance)\}", lambda found: values[found[1]], resource.path)
    return re.sub(r"\{[^}]*\}", "1", path)


def holds(text: bytes, uids: set[str]) -> set[str]:
    """Which of some UIDs stand in an answer, as whole values."""
    return {one for one in uids if re.search(rb"(?<![\d.])" + re.escape(one.encode()) + rb"(?![\d.])", text)}


INSTANCES = [(1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1), (3, 1, 1)]


@pytest.mark.parametrize("resource", READ, ids=lambda one: f"{one.transaction} {one.path}".replace("/", "|"))
class TestEveryResource:
    @pytest.mark.parametrize("token", HIDDEN)
    def test_shows_nothing_outside_a_scope(self, asking: TestClient, resource: Resource, token: str):
        paths = dict.fromkeys(filled(resource, *numbers) for numbers in INSTANCES)
        for base, below in itertools.product(("/dicom-web", "/dicom-web/landing", "/dicom-web/landing2"), paths):
            path = base + below
            answer = asking.get(path, headers={**bearer(token), "Accept": "*/*"})
            asked = holds(path.encode(), HIDDEN[token])
            if asked and answer.status_code < 300:
                assert answer.json() == []  # a search below a study that is not there
            # Objects that pydicom has written name its own UID in their File Meta Information, which is study 1's.
            written = {uid(1)} if b"PYDICOM" in answer.content else set()
            assert holds(answer.content, HIDDEN[token]) <= asked | written
            assert answer.status_code < 500 or answer.status_code == 503

    def test_needs_a_token(self, asking: TestClient, resource: Resource):
        for base in ("/dicom-web", "/dicom-web/landing"):
            for method in ("GET", "HEAD", "OPTIONS"):
                answer = asking.request(method, base + filled(resource, 1, 1, 1))
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def addresses(asking: TestClient) -> set[str]:
    """Every address that metadata and searches give to whoever may see all."""
    found: set[str] = set()
    for resource in (one for one in READ if one.path.endswith(("/metadata", "/studies", "/series", "/instances"))):
        for numbers in ((1, 1, 1), (3, 1, 1)):
            answer = asking.get("/dicom-web" + filled(resource, *numbers), headers={**bearer("ALL"), "Accept": "*/*"})
            if answer.headers.get("content-type", "").startswith("application/dicom+json"):
                found |= set(re.findall(r'"(https?://[^"]+)"', answer.text))
    return found


@pytest.mark.slow
def test_addresses_that_metadata_give_lead_nowhere_outside_a_scope(asking: TestClient):
    found = addresses(asking)
    for address, token in itertools.product(sorted(found), ("FIRST", "SOME")):
        path = urlsplit(address).path
        if holds(path.encode(), HIDDEN[token]):
            assert asking.get(path, headers={**bearer(token), "Accept": "*/*"}).status_code == 404, path
    assert found or not READ


@pytest.mark.skipif(not any(one.path == "/studies" for one in READ), reason="no resource searches for studies yet")
class TestCounts:
    def test_are_those_of_what_may_be_seen(self, asking: TestClient):
        path = f"/dicom-web/studies?StudyInstanceUID={uid(1)}"
        numbers = {}
        for token in ("ALL", "FIRST"):
            (row,) = asking.get(path, headers=bearer(token)).json()
            numbers[token] = [row[tag]["Value"] for tag in ("00201206", "00201208", "00100010")]
        assert numbers["FIRST"][:2] == [[1], [2]]
        assert numbers["ALL"][:2] == [[2], [3]]
        assert "Old" in json.dumps(numbers["FIRST"][2])

    def test_no_source_is_nothing(self, asking: TestClient):
        for path in ("/studies", "/series", "/instances"):
            assert asking.get("/dicom-web" + path, headers=bearer("NONE")).json() == []


def test_numbers_about_the_server_say_nothing_of_the_lake(asking: TestClient):
    asking.get(f"/dicom-web/studies/{uid(3)}/metadata", headers=bearer("ALL"))
    text = asking.get("/metrics", headers=bearer("NONE")).text
    assert uid(3) not in text
    assert 'route="/dicom-web/studies/{study}/metadata"' in text


class TestSources:
    def test_one_that_may_not_be_seen_is_like_one_that_is_not_there(self, searchable: Settings):
        asking = client(searchable, tokens=[FIRST])
        hidden, missing = (
            asking.get(f"/dicom-web/{name}/studies", headers=bearer("FIRST")) for name in ("landing2", "x")
        )
        assert (hidden.status_code, hidden.text) == (missing.status_code, missing.text) == (404, hidden.text)
        assert "source" in hidden.text

    def test_each_has_its_own_studies(self, searchable: Settings):
        asking = client(searchable)
        for name, numbers in (("landing", (1, 2)), ("landing2", (1, 3))):
            assert asking.get(f"/dicom-web/{name}/studies").json() == [[uid(one), name] for one in numbers]
        assert len(asking.get("/dicom-web/studies").json()) == 4

    def test_a_partition_is_part_of_the_name(self, searchable: Settings):
        asking = client(searchable)
        answer = asking.get("/dicom-web/landing/research/studies")
        assert answer.status_code == 404

    @pytest.mark.parametrize(
        ("allowed", "left"),
        [(None, {"landing", "pacs", "pacs/a", "pacs/b%20c"}), (("pacs",), {"pacs"}),
         (("pacs/*",), {"pacs/a", "pacs/b%20c"}),
         (("pacs/a", "landing"), {"pacs/a", "landing"}), (("pac/*", "pacs*/a"), set()), ((), set())],
    )  # fmt: skip
    def test_partitions_are_named_or_all_of_them(self, served: ServedLake, monkeypatch, allowed, left: set[str]):
        snapshot = served.snapshot()
        named = ("landing", "pacs", "pacs/a", "pacs/b%20c")
        monkeypatch.setattr(served, "snapshot", lambda: type("", (), {"sources": named, "within": snapshot.within}))
        scope = Scope(allowed, "true")
        for one in named:
            if one in left:
                assert narrowed(scope, one, served) == Scope((one,), "true")
            else:
                with pytest.raises(Refusal, match="source"):
                    narrowed(scope, one, served)
        if allowed is not None:
            assert set(narrowed(scope, None, served).sources or ()) == left


class TestConditions:
    @pytest.mark.parametrize(
        "condition",
        ["", "no_such_column = 1", "1 = ", "true) OR (true", "true); DROP TABLE study; SELECT (true", "true AS x, true",
         "true --", "sum(series_count) > 1", "CAST(PatientID AS DATE) > '2020-01-01'",
         "true; SELECT 1", "true FROM study"],
    )  # fmt: skip
    def test_one_that_does_not_work_is_said_at_the_start(self, searchable: Settings, condition: str):
        token = {"name": "some", "variable": "SOME", "condition": condition or " "}
        with pytest.raises(SettingsError, match="Token 'some': the condition"):
            client(searchable, tokens=[token])

    @pytest.mark.parametrize(
        "condition",
        [f"StudyInstanceUID = '{uid(2)}'", f"StudyInstanceUID = '{uid(2)}' OR false",
         f"StudyInstanceUID IN ('{uid(2)}')",
         f"StudyInstanceUID = '{uid(2)}' /* a ) */"],
    )  # fmt: skip
    def test_one_that_works_is_the_whole_of_what_is_seen(self, searchable: Settings, condition: str):
        token = {"name": "some", "variable": "SOME", "condition": condition}
        answer = client(searchable, tokens=[token]).get("/dicom-web/studies", headers=bearer("SOME"))
        assert answer.json() == [[uid(2), "landing"]]

    def test_it_holds_together_with_sources(self, searchable: Settings):
        condition = f"StudyInstanceUID <> '{uid(2)}' OR true"
        token = {"name": "some", "variable": "SOME", "condition": condition, "sources": ["landing2"]}
        answer = client(searchable, tokens=[token]).get("/dicom-web/studies", headers=bearer("SOME"))
        assert {source for _, source in answer.json()} == {"landing2"}

    def test_a_proxys_condition_is_tried_as_well(self, searchable: Settings):
        with pytest.raises(SettingsError, match=r"\[serve.proxy\]: the condition"):
            client(searchable, proxy={"addresses": ["10.0.0.1"], "condition": "nothing = 1"})
