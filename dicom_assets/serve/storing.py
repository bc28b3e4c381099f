"""Store objects into the landing zone of a source (STOW-RS, PS3.18 10.5)."""

from __future__ import annotations

from dicom_assets.serve.resource import Resource

RESOURCES: tuple[Resource, ...] = ()
