"""Whatever is asked within the description is answered with a status that it names, and never with 500."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_assets.serve.description import openapi
from dicom_assets.serve.routes import ROUTES
from dicom_assets.settings import Settings
from dicom_assets_tests.serve.serving import Server, serving
from dicom_assets_tests.support.dicoms import uid

pytestmark = pytest.mark.slow

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install -e '.[test]'")
checks = pytest.importorskip("schemathesis.checks")
of_openapi = pytest.importorskip("schemathesis.specs.openapi.checks")
CHECKS = [checks.not_a_server_error, of_openapi.status_code_conformance, of_openapi.content_type_conformance]
FREE = "[serve]\nrequests_per_second = 10000\nburst = 100000\n"
OPERATIONS = {
    f"{one.method.upper()} {one.path}": one
    for one in (found.ok() for found in schemathesis.openapi.from_dict(openapi(ROUTES)).get_all_operations())
}
READ = [name for name in OPERATIONS if name.startswith("GET ") and "{source}" not in name]


@pytest.fixture(scope="module")
def server(searchable: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over the small lake."""
    with serving(searchable, tmp_path_factory.mktemp("described"), toml=FREE) as one:
        yield one


@pytest.mark.parametrize("name", READ, ids=lambda name: name.replace("/", "|"))
def test_every_resource_answers_as_it_is_described(server: Server, name: str):
    @given(case=OPERATIONS[name].as_strategy(), is_there=st.booleans())
    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
    def ask(case, is_there: bool):
        if is_there:  # made up UIDs would never get beyond 404
            there = {"study": uid(1), "series": uid(1, 1), "instance": uid(1, 1, 1), "frames": "1"}
            case.path_parameters.update({k: v for k, v in there.items() if k in case.path_parameters})
        answer = case.call(base_url=server.url)
        case.validate_response(answer, checks=CHECKS)

    ask()
    assert "fault" not in server.said


BODIES = st.one_of(st.binary(max_size=300), st.binary(max_size=80).map(lambda one: b"--b\r\n\r\n" + one + b"\r\n--b--"))
KINDS = (
    'multipart/related; type="application/dicom"; boundary=b',
    "application/dicom",
    "multipart/related",
    "text/plain",
    "",
)


@given(body=BODIES, kind=st.sampled_from(KINDS), study=st.sampled_from(["", f"/{uid(1)}", "/x"]))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_to_be_stored_is_taken_or_refused_as_it_is_described(server: Server, body, kind, study: str):
    described = OPERATIONS["POST /dicom-web/studies"].definition.raw["responses"]
    headers = {"Content-Type": kind} if kind else {}
    answer = httpx.post(f"{server.url}/dicom-web/studies{study}", content=body, headers=headers, timeout=60)
    assert str(answer.status_code) in described
    assert answer.status_code != 500
