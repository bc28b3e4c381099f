"""What several tests build on: generated DICOM objects, landing folders, lakes run in process, commands run for real."""
