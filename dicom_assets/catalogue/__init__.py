"""The lake in a browser: pages for people who would rather look than write SQL.

Belongs here: pages, made by the server from the tables, and what they share. Does not belong here: answers for programs
(`serve`), pictures of images, which are DICOMweb's. Nothing is written, and nothing needs a build step.
"""
