"""Lakes that several modules of tests ask, each made once."""

from dicom_assets_tests.serve.retrievable import retrievable as retrievable
from dicom_assets_tests.serve.searchable import searchable as searchable
from dicom_assets_tests.serve.searchable import served as served
