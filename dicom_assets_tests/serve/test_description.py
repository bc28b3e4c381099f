"""The description for programs says what the list of resources says."""

from __future__ import annotations

import re

import pytest

from dicom_assets.serve.description import openapi
from dicom_assets.serve.resource import Parameter, Resource
from dicom_assets.serve.routes import ROUTES
from dicom_assets.settings import Settings
from dicom_assets_tests.serve.asking import about, client

STORE = Resource(
    "POST", "/test", "Store", "10.5", ("application/dicom+json",), about, (Parameter("{attribute}", "Any."),),
    ("multipart/related",), (200, 202, 409),
)  # fmt: skip
WITH_STORE = (*ROUTES, STORE)


def operations(described: dict) -> dict[tuple[str, str], dict]:
    return {(method, path): one for path, item in described["paths"].items() for method, one in item.items()}


def test_every_resource_is_there_for_all_sources_for_one_and_for_a_partition():
    found = operations(openapi(ROUTES))
    for one in ROUTES:
        for base in ("/dicom-web", "/dicom-web/{source}", "/dicom-web/{source}/{partition}"):
            path = base + re.sub(r":\w+\}", "}", one.path)
            operation = found[one.method.lower(), path]
            assert {str(status) for status in one.statuses} <= set(operation["responses"])
            assert set(one.gives) <= set(operation["responses"]["200"]["content"])
    assert len(found) == 3 * len(ROUTES) + 3


def test_every_parameter_in_a_path_is_described_and_names_are_unique():
    found = operations(openapi(WITH_STORE))
    for (_, path), operation in found.items():
        named = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"]
        assert named == re.findall(r"\{(\w+)\}", path)
    names = [one["operationId"] for one in found.values()]
    assert len(set(names)) == len(names)


def test_every_refusal_that_is_referred_to_is_there():
    described = openapi(WITH_STORE)
    texts = re.findall(r"#/components/responses/(\w+)", str(described))
    assert set(texts) <= set(described["components"]["responses"])
    assert operations(described)["post", "/dicom-web/test"]["requestBody"]["content"] == {"multipart/related": {}}


def test_it_is_given_by_the_server(searchable: Settings):
    answer = client(searchable, ROUTES).get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == openapi(ROUTES)


@pytest.mark.slow
def test_openapi_accepts_it(searchable: Settings):
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install -e '.[test]'")
    schema = schemathesis.openapi.from_dict(openapi(WITH_STORE))
    assert len(list(schema.get_all_operations())) == 3 * len(WITH_STORE) + 3
