"""The tables of duplicates, as entries of the registry, and the words that stand in them.

Belongs here: name, grain, key, columns and descriptions of these tables. Does not belong here: which objects are
duplicates (`dicom_assets.curation.duplicates`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import pyarrow as pa

from dicom_assets.schema.table import TEXTS, Column, Table


class Likeness(StrEnum):
    """In what the members of a group are alike."""

    BYTES = "bytes"
    PIXELS = "pixels"
    HEADER = "header"
    SOP_INSTANCE = "sop_instance"


def digest_columns() -> dict[str, Column]:
    """The columns of flat_metadata by which duplicates are found."""
    own = {
        "stable_digest": "BLAKE2b-128 of header without private elements, and without what changes when an image is "
        "sent again; NULL where neither a time of acquisition or content, nor InstanceNumber with the time of its "
        "series or study, says which image it is",
        "bytes_digest": "SHA-256 of the object's bytes; NULL unless it was read whole ([reading] pixel_digest)",
        "pixel_digest": "BLAKE2b-128 of the pixel data as stored, without packing and padding; NULL unless the object "
        "was read whole ([reading] pixel_digest), without pixel data, and where these are cut off",
    }
    return {name: Column(name, pa.string(), text) for name, text in own.items()}


def duplicate_tables(own: Mapping[str, Column]) -> tuple[Table, Table]:
    """batch_digest and duplicate. own: the project's own columns."""

    def required(name: str) -> Column:
        return Column(name, own[name].type, own[name].description, nullable=False)

    index = Table(
        "batch_digest",
        "batch and digest that some of its objects have",
        ("batch_id", "digest"),
        (
            required("batch_id"),
            Column("digest", pa.int64(), "Of a shared_key of duplicate: its first 15 digits, as a number", False),
            Column("objects", pa.int64(), "Objects of the batch that have it", False),
        ),
        "Index of flat_metadata: which batches hold objects with a SOP Instance UID, a header or pixel data that "
        "others may have too, so that duplicates are found without a scan. May name a batch too many.",
        "batch_id",
        ("flat_metadata",),
    )
    uids = [
        Column(name, pa.string(), text, sources=(("flat_metadata", name),))
        for name, text in (
            ("StudyInstanceUID", "Study Instance UID (0020,000D) UI"),
            ("SeriesInstanceUID", "Series Instance UID (0020,000E) UI"),
            ("SOPInstanceUID", "SOP Instance UID (0008,0018) UI"),
        )
    ]
    duplicate = Table(
        "duplicate",
        "member of a group of objects that are alike",
        ("group_id", "batch_id", "object_id"),
        (
            Column("group_id", pa.string(), "Hash of kind and of what the members share; names the group", False),
            Column(
                "kind",
                pa.string(),
                "bytes: one SOP Instance UID, header and size; pixels: the same pixel data under several SOP Instance "
                "UIDs; header: the same but for private and volatile attributes; sop_instance: one SOP Instance UID "
                "with several contents",
                False,
            ),
            Column(
                "shared_key",
                pa.string(),
                "Hash of the SOP Instance UID, stable_digest or pixel_digest that all members share; names the groups "
                "that are made together",
                False,
            ),
            required("batch_id"),
            required("object_id"),
            required("source"),
            *uids,
            Column("is_first", pa.bool_(), "Whether it is the one that the lake had first; one in each group", False),
            Column(
                "compared",
                pa.string(),
                "What of it was compared with the first: bytes; header and size; header and pixel data; header; pixel "
                "data",
                False,
            ),
            Column(
                "differs_in",
                TEXTS,
                "Attributes of the data set in which it differs from the first, private ones as their tag; no values",
                False,
            ),
        ),
        "Objects that are there more than once, each group with its members; what was overwritten or deleted takes no "
        "part. Nothing is removed for it.",
        "shared_key",
        ("flat_metadata", "overwritten"),
    )
    return index, duplicate
