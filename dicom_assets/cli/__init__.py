"""The command `dicom-assets`, one module for each group of commands."""
