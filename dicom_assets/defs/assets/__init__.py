"""The assets: what a batch becomes (`batch`), what a DICOM service says, keeping the tables quick."""
