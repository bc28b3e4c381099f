"""What this process can do at the places of a deployment: sources, queues, DICOM services, the lake.

Belongs here: trying it, step by step, and saying which right is missing. Nothing is left behind, and no object's name
is told. Does not belong here: listing for real (`landing`), what is done about it (a person).
"""
