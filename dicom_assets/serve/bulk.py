"""Retrieve the values that metadata refer to (WADO-RS, PS3.18 10.4)."""

from __future__ import annotations

from dicom_assets.serve.resource import Resource

RESOURCES: tuple[Resource, ...] = ()
