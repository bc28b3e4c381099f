"""Viewers in which a study can be opened: ours, OHIF where it is installed, and the one that people have.

Belongs here: their names and addresses. Does not belong here: what they show.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from dicom_assets.serve.viewing.ohif_package import installed
from dicom_assets.settings import Settings

PLAIN, OHIF = "Viewer", "OHIF"
_PLACEHOLDER = re.compile(r"\{(?:study|series|dicomweb)\}")


def viewers_of(settings: Settings, root: str, study: str, series: str | None = None) -> list[tuple[str, str]]:
    """Name and address of each viewer for a study, the plain one first.

    root: where the server's own pages begin, as the client reached it: `https://pacs.example.org/imaging`, without a
    slash behind it. study, series: their UIDs. A viewer of people's own whose address needs a series is left out where
    none is named.
    """
    serve = settings.serve
    place = "/".join(quote(one, safe="") for one in (study, series) if one is not None)
    found = [(PLAIN, f"{root}/view/{place}")]
    if installed(settings) is not None:
        found.append((OHIF, f"{root}/ohif/viewer?StudyInstanceUIDs={quote(study, safe='')}"))
    if serve.viewer_url is not None and (series is not None or "{series}" not in serve.viewer_url):
        values = {"{study}": study, "{series}": series or "", "{dicomweb}": f"{root}/dicom-web"}
        found.append(
            (serve.viewer_name, _PLACEHOLDER.sub(lambda one: quote(values[one[0]], safe=""), serve.viewer_url))
        )
    return found
