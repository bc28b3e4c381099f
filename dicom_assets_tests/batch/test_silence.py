"""What reads objects again to judge a batch says no value of them: Python's warnings and log records would quote it."""

import logging
import warnings

from dicom_assets_tests.dicom import raw

ODD = "999.999.01.23.45.6789"
"""A UID with a component that begins with 0, which PS3.5 9.1 does not allow and pydicom warns of."""


def test_a_batch_of_odd_values_is_judged_without_a_word_of_them(stepped, landing, caplog):
    landing.put("odd.dcm", raw.dicom(raw.element(0x0020000E, "UI", ODD)))
    with warnings.catch_warnings(record=True) as said, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        stepped.judges = True
        (batch,) = stepped.ingest()
    assert stepped.books(batch).ingested == 1
    assert [one for one in said if ODD in str(one.message)] == []
    assert ODD not in caplog.text
