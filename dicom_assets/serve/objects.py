"""Retrieve whole objects, as multipart or as a zip (WADO-RS, PS3.18 10.4; WADO-URI, PS3.18 9)."""

from __future__ import annotations

from dicom_assets.serve.resource import Resource

RESOURCES: tuple[Resource, ...] = ()
