"""The list of what is answered: the application, its description and the conformance statement are made from it.

Belongs here: the resources of each service, put one behind the other. Does not belong here: the answers.

Paths are below `/dicom-web` and, the same, below `/dicom-web/{source}`.
"""

from __future__ import annotations

from dicom_assets.serve import bulk, frames, metadata, objects, rendering, searching, storing, wado_uri
from dicom_assets.serve.resource import Resource

_SERVICES = (searching, metadata, frames, rendering, bulk, objects, storing, wado_uri)

ROUTES: tuple[Resource, ...] = tuple(one for module in _SERVICES for one in module.RESOURCES)
"""Every resource, in the order of PS3.18."""
