"""All books against all tables and files, at any time: what `dicom-assets verify` says.

Belongs here: rules over the whole lake, each with SQL of its own, and what they found. Does not belong here: the rules
that a batch must keep before it closes (`batch.checks`), running batches again (`defs.mending`).
"""
