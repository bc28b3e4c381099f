"""Lakes that several modules of tests ask, each made once."""

from dicom_assets_tests.serve.retrievable import retrievable as retrievable
