"""The OMOP Common Data Model with its imaging extension: concepts, identifiers, image_occurrence.

Belongs here: how rows of `series` become rows of the OHDSI imaging extension, and which concept a DICOM code means.
Does not belong here: FHIR, and anything that reads DICOM.
"""
