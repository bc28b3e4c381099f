"""Files of a DICOM service read where they lie: partitions that hold the same UIDs stay apart."""

from __future__ import annotations

import pytest

from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.lakes import Graph
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped

pytestmark = pytest.mark.usefixtures("as_far_as_hierarchy")


@pytest.fixture
def graph(stepped: Stepped) -> Stepped:
    """What is in the tables, and every rule holds."""
    stepped.judges = True
    return stepped


@pytest.mark.slow
def test_the_same_instance_in_two_partitions_is_two_instances(graph: Graph, landing: LandingFolder) -> None:
    tree = "AHDS/workspace/dicom/service"
    landing.put(f"{tree}/Microsoft.Default/0a1_1.dcm", dicom(1, 1, 1, PatientID="A"))
    landing.put(f"{tree}/site-b/f3c_2.dcm", dicom(1, 1, 1, PatientID="B"))
    (batch,) = graph.ingest()
    assert graph.books(batch).ingested == 2
    found = graph.rows("SELECT source, PatientID FROM study ORDER BY source")
    assert found == [{"source": "landing", "PatientID": "A"}, {"source": "landing/site-b", "PatientID": "B"}]
    assert graph.run(batch).success
    assert graph.rows("SELECT source, PatientID FROM study ORDER BY source") == found
