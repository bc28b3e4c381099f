"""The cases of `orthanc_rights`, run against a real Orthanc where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_assets_tests.service.orthanc import run_cases, why_not

pytestmark = pytest.mark.slow


def test_a_service_that_asks_for_a_password_says_what_is_missing():
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    done = run_cases(Path(__file__).with_name("orthanc_rights.py"))
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
