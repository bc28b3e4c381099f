"""Retrieve metadata: stored headers, spliced (WADO-RS, PS3.18 10.4)."""

from __future__ import annotations

from dicom_assets.serve.resource import Resource

RESOURCES: tuple[Resource, ...] = ()
