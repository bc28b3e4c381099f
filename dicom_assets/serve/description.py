"""The description of the service for programs (OpenAPI 3.1), made from the list of resources.

Belongs here: from resources to a description. Does not belong here: the list (`routes`), the page for people
(`docs_dicomweb`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from importlib import metadata
from typing import Any

from dicom_assets.serve.resource import Parameter, Resource

EVERYWHERE = (400, 401, 404, 406, 413, 414, 421, 429, 431, 503)
"""Statuses that an answer of every resource may have, beside its own."""

WHEN_STORING = (403, 408, 411, 415)
"""And those of a resource that takes a body."""

MULTIPART = "multipart/related"

SOURCES = (("", ""), ("/{source}", "OfSource"), ("/{source}/{partition}", "OfPartition"))

_UID = {"type": "string", "pattern": r"^[0-9.]{1,64}$"}
_IN_PATHS = {
    "study": ("Study Instance UID.", _UID),
    "series": ("Series Instance UID.", _UID),
    "instance": ("SOP Instance UID.", _UID),
    "frames": ("Frames, the first of which is 1: one number, or several with commas.", {"type": "string"}),
    "frame": ("A frame, the first of which is 1.", {"type": "string"}),
    "source": ("A source of the lake.", {"type": "string"}),
    "partition": ("A data partition of a DICOM service, part of its source's name.", {"type": "string"}),
}
"""Parameters in paths, by name: what they mean, and their schema."""


def openapi(resources: Sequence[Resource]) -> dict[str, Any]:
    """The description, as OpenAPI 3.1 has it."""
    paths: dict[str, Any] = {}
    for prefix, suffix in SOURCES:
        for one in resources:
            path = f"/dicom-web{prefix}{_plain(one.path)}"
            paths.setdefault(path, {})[one.method.lower()] = _operation(one, path, suffix)
    for path, kind, summary in _OWN:
        paths[path] = {"get": _own(path, kind, summary)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dicom-assets",
            "version": metadata.version("dicom-assets"),
            "summary": "DICOMweb over a lake of medical-imaging metadata, in place.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {_component(status): _refusal(status) for status in _all_refusals(resources)},
        },
        "security": [{"token": []}, {}],
    }


_OWN = (
    ("/healthz", "application/json", "Whether the server can read the lake."),
    ("/metrics", "application/openmetrics-text", "Numbers about the server, and of the lake as far as it may be seen."),
    ("/openapi.json", "application/json", "This description."),
)


def _own(path: str, kind: str, summary: str) -> dict[str, Any]:
    responses = {"200": {"description": "OK", "content": {kind: {}}}}
    return {
        "operationId": path.strip("/").replace(".", "_"),
        "summary": summary,
        "responses": {**responses, **_refusals(EVERYWHERE)},
    }


def _all_refusals(resources: Sequence[Resource]) -> list[int]:
    own = {status for one in resources for status in one.statuses if status >= 400}
    return sorted({*EVERYWHERE, *WHEN_STORING, *own})


def _operation(resource: Resource, path: str, suffix: str) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": operation_id(resource) + suffix,
        "summary": f"{resource.transaction} (PS3.18 {resource.section})",
        "parameters": [*_in_path(path), *map(_in_query, resource.parameters)],
        "responses": _responses(resource),
    }
    if resource.takes:
        operation["requestBody"] = {"content": {kind: {} for kind in resource.takes}, "required": True}
    return operation


def operation_id(resource: Resource) -> str:
    """A name for a resource, such as `getStudiesStudyMetadata`."""
    words = [word for word in resource.path.replace("{", "").replace("}", "").split("/") if word]
    return resource.method.lower() + "".join(word.replace(":path", "").capitalize() for word in words)


def _plain(path: str) -> str:
    """A path as OpenAPI writes it, without the convertors of routes."""
    return path.replace(":path}", "}").replace(":int}", "}")


def _in_path(path: str) -> Iterator[dict[str, Any]]:
    for part in path.split("/"):
        if part.startswith("{"):
            meaning, schema = _IN_PATHS.get(part.strip("{}"), ("", {"type": "string"}))
            yield {"name": part.strip("{}"), "in": "path", "required": True, "description": meaning, "schema": schema}


def _in_query(parameter: Parameter) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": parameter.name,
        "in": "query",
        "description": parameter.meaning,
        "schema": {"type": parameter.kind},
    }
    if parameter.name.startswith("{"):  # any attribute by its keyword or tag
        found |= {"name": parameter.name.strip("{}"), "style": "form", "explode": True}
        found["schema"] = {"type": "object", "additionalProperties": {"type": "string"}}
    return found


def _responses(resource: Resource) -> dict[str, Any]:
    content: dict[str, Any] = {
        kind: {} for kind in (*resource.gives, *([MULTIPART] if comes_in_parts(resource) else []))
    }
    found: dict[str, Any] = {}
    for status in resource.statuses:
        if status >= 400 and status != 409:
            found |= _refusals([status])
        else:
            answer: dict[str, Any] = {"description": HTTPStatus(status).phrase}
            found[str(status)] = answer if status in (204, 304) else answer | {"content": content}
    return found | {
        status: refusal
        for status, refusal in _refusals([*EVERYWHERE, *(WHEN_STORING if resource.takes else ())]).items()
        if status not in found
    }


def comes_in_parts(resource: Resource) -> bool:
    """Whether what a resource gives comes as parts, but for clients that accept a single one."""
    return resource.method == "GET" and not {"application/dicom", "application/octet-stream"}.isdisjoint(resource.gives)


def _refusals(statuses: Sequence[int]) -> dict[str, Any]:
    return {str(one): {"$ref": f"#/components/responses/{_component(one)}"} for one in statuses}


def _component(status: int) -> str:
    return HTTPStatus(status).name


def _refusal(status: int) -> dict[str, Any]:
    return {"description": HTTPStatus(status).phrase, "content": {"text/plain": {"schema": {"type": "string"}}}}
