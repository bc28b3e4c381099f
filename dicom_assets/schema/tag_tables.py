"""The tables of tags and risk, as entries of the registry: tag_profile, what it is added up from, and phi_risk.

Belongs here: name, grain, key, columns and descriptions of these tables. Does not belong here: how their rows come
about (`dicom_assets.curation`).
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from dicom_assets.schema.table import TEXTS, TIMESTAMP, Column, Table

NUMBERS = pa.list_(pa.int64())

FOLLOWING = frozenset(("tag_profile_part", "tag_profile", "phi_risk"))
"""Tables that no batch makes: they follow closed batches."""

_Line = tuple[str, pa.DataType, str]

_PROFILE: Sequence[_Line] = (
    ("source", pa.string(), "Name of the landing source"),
    ("Manufacturer", pa.string(), "Manufacturer (0008,0070) LO; NULL when the objects name none"),
    ("ManufacturerModelName", pa.string(), "Manufacturer's Model Name (0008,1090) LO; NULL when the objects name none"),
    ("SoftwareVersions", pa.string(), "Software Versions (0018,1020) LO, several joined by a backslash; NULL for none"),
    ("Modality", pa.string(), "Modality (0008,0060) CS; NULL when the objects name none"),
)
_ELEMENT: Sequence[_Line] = (
    (
        "path",
        pa.string(),
        "Tags of the sequences that hold the element and its own, joined by points; a private one with xx for its "
        "block and its creator behind it; what lies in more than three sequences stands at * below the third",
    ),
    ("keyword", pa.string(), "Keyword of the element in PS3.6; NULL for private and unknown ones"),
    ("private_creator", pa.string(), "Who reserved the block of a private element, empty for nobody; NULL otherwise"),
    ("vr", TEXTS, "Value representations that it has"),
    ("objects", pa.int64(), "Current objects of the profile"),
    ("present", pa.int64(), "Objects that have the element at this place"),
    ("occurrences", pa.int64(), "How often they have it: more than once in sequences of several items"),
    ("empty", pa.int64(), "Occurrences without a value"),
)
_LENGTHS: Sequence[_Line] = (
    (
        "length_min",
        pa.int64(),
        "Shortest value: characters as `header` writes it, with the backslashes between values; bytes of what the "
        "header leaves out; items of a sequence; NULL when none has a value",
    ),
    ("length_max", pa.int64(), "Longest value"),
)


def _columns(lines: Sequence[_Line], required: str = "") -> tuple[Column, ...]:
    names = {*required.split()}
    return tuple(Column(name, kind, text, nullable=name not in names) for name, kind, text in lines)


TAG_PROFILE_PART = Table(
    "tag_profile_part",
    "batch, device and element",
    ("batch_id", "profile_key", "path"),
    _columns(
        (
            ("batch_id", pa.string(), "The closed batch whose current objects are counted"),
            (
                "mark",
                pa.string(),
                "What was counted: run that closed the batch, number and sum of its objects' names; form and key",
            ),
            ("claimed_at", TIMESTAMP, "When the batch was claimed"),
            ("profile_key", pa.string(), "Hash of source, maker, model, software and modality; empty: none is current"),
            *_PROFILE,
            *_ELEMENT,
            ("length_sum", pa.int64(), "Sum of the lengths of all values"),
            *_LENGTHS,
            (
                "value_marks",
                NUMBERS,
                "The smallest 64 of the keyed hashes of its values, by which different values are counted; NULL for "
                "values that the header leaves out",
            ),
            (
                "value_shares",
                NUMBERS,
                "Occurrences by the last four bits of the hash of the value: how values are spread",
            ),
        ),
        "batch_id mark profile_key path objects present occurrences empty length_sum",
    ),
    "What tag_profile is added up from, by batch, so that what a batch has brought can be taken back.",
    "batch_id",
    ("instance", "flat_metadata"),
)

TAG_PROFILE = Table(
    "tag_profile",
    "source, maker, model, software and modality; element",
    ("profile_key", "path"),
    _columns(
        (
            ("profile_key", pa.string(), "Hash of source, maker, model, software and modality"),
            *_PROFILE,
            *_ELEMENT,
            (
                "distinct_values",
                pa.int64(),
                "Different values: counted up to 63, about so many above; NULL where not known",
            ),
            ("length_typical", pa.float64(), "Mean length of a value; see length_min"),
            *_LENGTHS,
            ("first_claimed_at", TIMESTAMP, "When the first batch was claimed of which a current object has it"),
            ("last_claimed_at", TIMESTAMP, "When the last such batch was claimed"),
            ("made_from", pa.string(), "Which parts it was added up from"),
        ),
        "profile_key path objects present occurrences empty made_from",
    ),
    "What the objects of each device and software have in their headers: how often each element is there, empty, how "
    "many different values it has and how long they are. No value of any element.",
    "profile_key",
    ("tag_profile_part",),
)

PHI_RISK = Table(
    "phi_risk",
    "current series",
    ("source", "StudyInstanceUID", "SeriesInstanceUID"),
    _columns(
        (
            ("source", pa.string(), "Name of the landing source"),
            ("StudyInstanceUID", pa.string(), "Study Instance UID (0020,000D) UI"),
            ("SeriesInstanceUID", pa.string(), "Series Instance UID (0020,000E) UI"),
            ("study_key", pa.string(), "Hash of source and StudyInstanceUID"),
            ("objects", pa.int64(), "Current objects of the series"),
            ("score", pa.int64(), "0 to 100, the sum of its parts; see docs/curation.md"),
            ("score_direct", pa.int64(), "30 when an attribute has a value that names the patient by itself"),
            ("score_indirect", pa.int64(), "1 for each further attribute of the basic profile with a value, up to 20"),
            ("score_text", pa.int64(), "15 for a text that equals a part of the own patient's, 5 for another one's"),
            ("score_private", pa.int64(), "1 for each private element that is not on the safe list, up to 10"),
            ("score_pixels", pa.int64(), "20 when annotation is burned in as the objects say, 10 when it is likely"),
            ("score_claim", pa.int64(), "5 when objects claim that identity was removed and still carry identifiers"),
            ("direct", TEXTS, "Keywords of attributes with a value that name the patient by themselves"),
            ("indirect", TEXTS, "Keywords of other attributes with a value that the basic profile removes or replaces"),
            ("uids", TEXTS, "Keywords of UIDs that the basic profile replaces; they count for no score"),
            (
                "own_text",
                TEXTS,
                "Paths of text that equals a part of name, id or birth date of the series' own patient",
            ),
            ("other_text", TEXTS, "Paths of text that equals a part of name, id or birth date of another patient"),
            ("private_elements", pa.int64(), "Private elements with a value that are not on the list of safe ones"),
            ("private_creators", TEXTS, "Who reserved the blocks of these; empty for nobody"),
            (
                "burned_in",
                pa.string(),
                "attribute: Burned In Annotation is YES; likely: it is not given, and SOP class, modality or image "
                "type often have some; NULL otherwise",
            ),
            ("claims", pa.int64(), "Objects with Patient Identity Removed YES"),
            (
                "contradictions",
                pa.int64(),
                "Those of them that still name the patient: an attribute of direct that the profile empties, other "
                "than a name that is the PatientID as well",
            ),
            ("text_paths", TEXTS, "Path of each text mark"),
            (
                "text_marks",
                NUMBERS,
                "Keyed hashes of words, numbers and dates of its texts, to be found among patients'",
            ),
            ("text_is_whole", pa.bool_(), "Whether all different words are kept: up to 1,000"),
            ("made_from", pa.string(), "Which objects it was made from"),
        ),
        "source StudyInstanceUID SeriesInstanceUID study_key objects score private_elements claims contradictions "
        "made_from",
    ),
    "What may tell who the patient is: attributes of the basic profile (PS3.15 Table E.1-1), text like patients' of "
    "this lake, private elements, annotation in the pixels. No value of any element.",
    "study_key",
    ("instance", "flat_metadata", "series"),
)
