"""Orthanc as a client of the lake: the cases of `orthanc_client_cases`, where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_assets_tests.service.orthanc import run_cases, why_not

pytestmark = pytest.mark.slow


def test_orthanc_searches_retrieves_and_stores():
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    done = run_cases(Path(__file__).with_name("orthanc_client_cases.py"))
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
