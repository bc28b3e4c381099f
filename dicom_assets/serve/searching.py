"""Search for studies, series and instances (QIDO-RS, PS3.18 10.6)."""

from __future__ import annotations

from dicom_assets.serve.resource import Resource

RESOURCES: tuple[Resource, ...] = ()
