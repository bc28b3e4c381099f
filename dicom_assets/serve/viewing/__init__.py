"""Looking at images: a plain viewer of our own, OHIF where it is installed, and links to a viewer that people have.

Belongs here: pages, what they show beside DICOMweb, and the package of OHIF on the disk. Does not belong here: drawing
(`serve.drawing`) and the resources of DICOMweb, which all of these viewers ask.
"""
