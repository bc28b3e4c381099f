"""The cases that want a real Orthanc, run where there is one: all in one network namespace, by one pytest."""

from __future__ import annotations

import pytest

from dicom_assets_tests.service.orthanc import run_cases, why_not

pytestmark = pytest.mark.slow


def test_what_is_said_of_dicomweb_servers_of_forwarding_and_of_passwords_holds_for_a_real_orthanc():
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    done = run_cases("service/orthanc_cases.py", "service/forwarding_cases.py", "reach/orthanc_rights.py")
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
