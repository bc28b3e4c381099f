"""Concept tables: what is mapped is sourced and consistent, what is not is 0."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from importlib import resources
from pathlib import Path

import pytest
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts as dicom_concepts

from dicom_assets.omop.concepts import UNMAPPED, MappingError, load

TABLES = resources.files("dicom_assets.omop").joinpath("concepts")


def rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(TABLES.joinpath(name).read_text(encoding="utf-8").splitlines()))


def plain(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())


@pytest.mark.parametrize(
    ("code", "concept"), [("CT", 2128009190), ("MR", 2128009230), ("US", 2128009275), ("mr ", 2128009230)]
)
def test_modalities_have_the_ids_of_the_imaging_working_group(code: str, concept: int):
    assert load().modality(code) == concept


@pytest.mark.parametrize("code", [None, "", "XYZ", "MA"])
def test_what_is_not_mapped_is_zero(code: str | None):
    assert load().modality(code) == UNMAPPED
    assert load().site(None, None, code, None) is None


def test_a_concept_stands_for_one_modality_within_the_vocabulary():
    ids = [int(row["concept_id"]) for row in rows("modality.csv")]
    assert len(set(ids)) == len(ids)
    assert all(2_128_009_178 <= one <= 2_128_009_358 for one in ids)
    assert {"CT", "MR", "US", "PT", "DX", "MG", "XA", "SR", "SEG", "RTSTRUCT"} <= {
        r["modality"] for r in rows("modality.csv")
    }


def test_every_acquisition_modality_of_the_standard_is_mapped():
    """PS3.16 CID 29, as pydicom carries it."""
    codes = {code for name in cid_concepts[29]["DCM"] for code in dicom_concepts["DCM"][name]}
    assert [code for code in sorted(codes) if load().modality(code) == UNMAPPED] == []


def test_snomed_codes_are_those_of_the_standard_with_the_same_meaning():
    known: dict[str, set[str]] = defaultdict(set)
    for codes in dicom_concepts["SCT"].values():
        for code, (meaning, _) in codes.items():
            known[code].add(plain(meaning))
    checked = 0
    for row in rows("anatomic_site.csv"):
        if row["snomed_code"] and not row["laterality"]:
            assert plain(row["meaning"]) in known[row["snomed_code"]]
            checked += 1
    assert checked > 290


def test_each_body_part_and_side_stands_once():
    keys = Counter((row["body_part_examined"], row["laterality"]) for row in rows("anatomic_site.csv"))
    assert max(keys.values()) == 1


def test_the_side_is_taken_where_it_has_a_concept_of_its_own():
    concepts = load()
    lungs = [concepts.site(None, None, "LUNG", side) for side in (None, "L", "R", "B")]
    assert [lung.concept_id for lung in lungs if lung] == [4213162, 4195613, 4141610, 4213162]
    assert concepts.site(None, None, "KNEE", "L") == concepts.site(None, None, "KNEE", None)


def test_a_code_goes_before_the_body_part_and_an_unknown_code_does_not_hide_it():
    concepts = load()
    chest, lung = concepts.site(None, None, "CHEST", None), concepts.site(None, None, "LUNG", None)
    assert concepts.site("39607008", "SCT", "CHEST", None) == lung
    assert concepts.site("T-28000", "SRT", None, None) == lung
    assert concepts.site("99999999", "SCT", "CHEST", None) == chest
    assert concepts.site("39607008", "99LOCAL", "CHEST", None) == chest


def test_rows_of_the_users_own_tables_come_first(tmp_path: Path):
    modalities, sites = tmp_path / "m.csv", tmp_path / "s.csv"
    modalities.write_text("modality,concept_id\nCT,17\nXYZ,18\n")
    sites.write_text("body_part_examined,laterality,concept_id\nKNEE,L,19\nBIG TOE,,20\n")
    concepts = load(str(modalities), str(sites))
    assert [concepts.modality(code) for code in ("CT", "XYZ", "MR")] == [17, 18, 2128009230]
    found = [concepts.site(None, None, part, side) for part, side in (("KNEE", "L"), ("KNEE", "R"), ("bigtoe", None))]
    assert [site.concept_id for site in found if site] == [19, 4217806, 20]


@pytest.mark.parametrize(
    ("content", "words"),
    [("modality\nCT\n", "lacks the column concept_id"), ("modality,concept_id\nCT,Zzyzx\n", "row"), ("\xff", "UTF-8")],
)
def test_a_wrong_table_is_refused_without_its_values(tmp_path: Path, content: str, words: str):
    path = tmp_path / "m.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(MappingError, match=words) as refused:
        load(str(path))
    assert "Zzyzx" not in str(refused.value)
