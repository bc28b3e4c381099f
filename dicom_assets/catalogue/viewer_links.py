"""Viewers in which a study or series can be opened.

Belongs here: the one place where the catalogue makes links to viewers. Does not belong here: the viewers.
"""

from __future__ import annotations

from urllib.parse import quote

from dicom_assets.catalogue.visit import Visit

Link = tuple[str, str]
"""Name and address."""


def viewers(visit: Visit, study: str, series: str) -> list[Link]:
    """The viewers for a series, the first one for most people. study, series: their UIDs."""
    return [("Viewer", f"{visit.root}/view/{quote(study, safe='')}/{quote(series, safe='')}")]
