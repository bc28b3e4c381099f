"""Tests of `dicom-assets verify`: what is broken by hand is named, and made again."""
