"""Fixtures of the tests of serving: the lakes that they share."""

from dicom_assets_tests.serve.searchable import searchable as searchable
from dicom_assets_tests.serve.searchable import served as served
