"""DICOM services as sources: asking for changes, landing them, auditing the lake against a service, pushing files.

Belongs here: everything that speaks to a service over HTTP. Does not belong here: what happens to a landed window
(`batch`), how it is laid out (`landing.change_windows`).
"""
