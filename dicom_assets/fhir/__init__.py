"""FHIR R4B: what is built for others (ImagingStudy), and the rules of the resources that arrive.

Belongs here: resources, identifiers, references, codes and their validation, as pure functions. Does not belong here:
how files of resources are taken apart (`dicom_assets.clinical`), OMOP (`dicom_assets.omop`).
"""
