"""Duplicates of blobs that are read whole: the groups of a lake in a container are those of one in a folder."""

from __future__ import annotations

import pytest

from dicom_assets.batch.erasure.target import Scope, Target
from dicom_assets.settings import Settings
from dicom_assets_tests.azure.azurite import new_container
from dicom_assets_tests.curation.test_duplicates import READ_WHOLE, groups, image, put_each_kind
from dicom_assets_tests.support.canaries import erased
from dicom_assets_tests.support.dicoms import uid
from dicom_assets_tests.support.lakes import settings_for
from dicom_assets_tests.support.steps import Stepped

pytestmark = pytest.mark.slow

LARGE = bytes(3) + b"\1" + bytes(9 << 20)
"""Pixel data of more than the bytes that are asked for at once."""


def test_blobs_that_are_read_whole_are_compared_as_files_are(container, instance, landing, tmp_path):
    put_each_kind(landing)
    for place, study in (("large/1.dcm", 12), ("large/2.dcm", 13)):
        landing.put(place, image(study, pixels=LARGE))
    landing.put("large/other.dcm", image(14, pixels=LARGE[:-1] + b"\1"))
    container.upload(landing.root)
    where = {"lake": f"{new_container().url}/lake", "sources": [{"name": "landing", "root": container.url}]}
    blobs = Stepped(
        Settings.model_validate({**where, "claiming": {"quiet_seconds": 0}, **READ_WHOLE}), instance, judges=False
    )
    files = Stepped(settings_for(tmp_path / "lake", landing.root, **READ_WHOLE), instance, judges=False)
    for graph in (files, blobs):
        graph.ingest()
    found = groups(files)
    assert ("pixels", "large/1.dcm", "large/2.dcm") in found
    assert not any("large/other.dcm" in place for group in found for place in group)
    assert groups(blobs) == found
    digests = "SELECT bytes_digest, pixel_digest FROM flat_metadata ORDER BY ALL"
    assert blobs.rows(digests) == files.rows(digests)
    erased(blobs, Target(Scope.STUDY, uid(13)))
    assert ("pixels", "large/1.dcm", "large/2.dcm") not in groups(blobs)
