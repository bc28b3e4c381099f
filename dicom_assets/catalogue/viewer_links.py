"""Viewers in which a study or series can be opened.

Belongs here: the one place where the catalogue makes links to viewers. Does not belong here: the viewers.
"""

from __future__ import annotations

from dicom_assets.catalogue.visit import Visit, server_of
from dicom_assets.serve.viewing.study_links import viewers_of

Link = tuple[str, str]
"""Name and address."""


def viewers(visit: Visit, study: str, series: str) -> list[Link]:
    """The viewers for a series, the first one for most people. study, series: their UIDs."""
    return viewers_of(visit.basis.settings, server_of(visit.request.scope, visit.basis), study, series)
