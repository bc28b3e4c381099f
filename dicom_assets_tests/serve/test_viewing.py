"""What the plain viewer is told: its page, images in order, headers, reports, documents; links to other viewers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from dicom_assets.sections import SettingsError
from dicom_assets.serve.app import make_app
from dicom_assets.serve.viewing.image_order import in_order
from dicom_assets.serve.viewing.study_links import viewers_of
from dicom_assets.settings import ServeSettings, Settings, load
from dicom_assets_tests.serve import viewable as made
from dicom_assets_tests.serve.asking import ENVIRONMENT, bearer
from dicom_assets_tests.serve.retrievable import Lake, path
from dicom_assets_tests.serve.viewable import view
from dicom_assets_tests.support.dicoms import uid

ALL = {"name": "radiology", "variable": "ALL"}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return made.make(tmp_path_factory.mktemp("viewable"))


@pytest.fixture(scope="module")
def asking(lake: Lake) -> TestClient:
    return lake.client()


class TestPage:
    def test_holds_no_data_and_no_script_of_its_own(self, asking: TestClient):
        answer = asking.get(view(1, made.CT))
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert re.search("<title>(.*?)</title>", answer.text)[1] == "Viewer – dicom-assets"
        assert "Canary" not in answer.text and "4711" not in answer.text
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert not re.search(r"<script(?![^>]*\bsrc=)|\bon\w+=|\bstyle=", answer.text)
        assert "For looking, not for diagnosis" in answer.text

    def test_finds_its_files_and_the_lake_wherever_it_stands(self, asking: TestClient):
        for place in (view(1, made.CT), f"/view/landing/{uid(1)}/{uid(1, made.CT)}"):
            page = asking.get(place)
            root = re.search('data-root="(.*?)"', page.text)[1]
            found = asking.base_url.join(place).join(f"{root}view-files/viewer.js")
            assert asking.get(found.path).headers["content-type"].startswith("text/javascript")
        assert 'data-source="/landing"' in page.text

    def test_a_study_opens_at_its_first_series_with_images(self, asking: TestClient):
        answer = asking.get(view(1), follow_redirects=False)
        assert answer.status_code == 302
        assert asking.get(view(1)).url.path == view(1, made.CT)
        assert asking.get(view(made.PLAIN)).url.path == view(made.PLAIN, 1)

    def test_what_is_not_there_is_said_without_a_uid(self, asking: TestClient):
        for place in (
            view(9),
            view(9, 1),
            view(1, 99),
            view(1, 99, what="images"),
            f"/view/nowhere/{uid(1)}/{uid(1, 1)}",
        ):
            answer = asking.get(place)
            assert answer.status_code == 404 and uid(1) not in answer.text, place

    def test_files_are_asked_for_once_and_nothing_else_is_given(self, asking: TestClient):
        answer = asking.get("/view-files/viewer.css")
        assert (
            asking.get("/view-files/viewer.css", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
        )
        for name in ("viewer.html", "..%2fpages.py", "pages.py"):
            assert asking.get(f"/view-files/{name}").status_code == 404

    def test_who_may_not_see_a_study_is_not_shown_it_and_the_logs_name_nobody(self, lake: Lake, tmp_path: Path):
        serve = {"audit": {"file": str(tmp_path / "audit"), "key_variable": "KEY"}, "access_log": str(tmp_path / "log")}
        none = {"name": "nobody", "variable": "NONE", "sources": []}
        app = make_app(
            lake.settings.model_copy(update={"serve": ServeSettings(tokens=[ALL, none], **serve)}),
            environment=ENVIRONMENT,
        )
        some = TestClient(app, base_url="http://localhost")
        places = [view(1, made.CT), view(1, made.CT, what="images"), view(1, made.CT, 1, "header")]
        assert {some.get(one).status_code for one in places} == {401}
        assert {some.get(one, headers=bearer("NONE")).status_code for one in places} == {404}
        assert {some.get(one, headers=bearer("ALL")).status_code for one in places} == {200}
        said = (tmp_path / "log").read_text() + (tmp_path / "audit").read_text()
        assert not any(word in said for word in (uid(1), "Canary", "4711"))
        last = json.loads((tmp_path / "audit").read_text().splitlines()[-1])
        assert (last["what"], last["who"]) == ("/view/{study}/{series}/{instance}/header", "radiology")
        assert len(last["studies"]) == len(last["patients"]) == 1


class TestImages:
    def test_come_by_their_place_in_space_whatever_their_numbers_say(self, asking: TestClient):
        told = asking.get(view(1, made.CT, what="images")).json()
        assert [one["uid"] for one in told["images"]] == [uid(1, made.CT, place) for place in range(1, 9)]
        assert [one["number"] for one in told["images"]] == [8, 7, 6, 5, 4, 3, 2, 1]
        assert [one["at"] for one in told["images"]] == [made.SPACING * place for place in range(1, 9)]
        assert told["images"][0]["windows"] == [list(one) for one in made.WINDOWS]
        assert {"name": "Lung", "centre": -600.0, "width": 1500.0} in told["presets"]

    def test_at_one_place_come_by_number_and_directions_one_after_the_other(self):
        axial, upright = [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1]

        def row(name: str, number: int | None, direction: list[float] | None, at: list[float] | None) -> dict[str, Any]:
            return {
                "SOPInstanceUID": name,
                "InstanceNumber": number,
                "ImageOrientationPatient": direction,
                "ImagePositionPatient": at,
            }

        rows = [
            row("late phase", 4, axial, [0, 0, 1.001]),
            row("early phase", 2, axial, [0, 0, 1]),
            row("lower", 3, axial, [0, 0, -1]),
            row("upright", 1, upright, [5, 0, 0]),
            row("tilted by nothing", 5, [1, 0.0001, 0, 0, 1, 0.0001], [0, 0, 3]),
            row("nowhere", 0, None, None),
            row("not a number", None, axial, [0, 0, None]),
        ]
        found = [one["SOPInstanceUID"] for one, _ in in_order(rows)]
        assert found == [
            *("upright", "lower", "early phase", "late phase", "tilted by nothing"),
            *("nowhere", "not a number"),
        ]

    def test_what_is_no_image_says_what_it_is(self, asking: TestClient):
        kinds = {
            series: asking.get(view(1, series, what="images")).json()["images"][0]
            for series in (made.REPORT, made.PDF, made.STRUCTURES, made.CINE)
        }
        assert [one["kind"] for one in kinds.values()] == ["report", "document", "other", "image"]
        assert kinds[made.STRUCTURES]["says"].startswith("A set of structures")
        assert (kinds[made.CINE]["frames"], kinds[made.CINE]["grey"]) == (made.CINE_FRAMES, False)

    def test_the_grey_values_of_a_frame_are_those_of_the_modality(self, asking: TestClient):
        told = asking.get(view(1, made.CT, 3, "values/1")).json()
        values = made.stored(3).astype(int) - 1024
        assert told == {"low": values.min(), "high": values.max(), "window": [40, 400], "table": False}
        assert asking.get(view(1, made.MR, 1, "values/1")).json()["window"] is None
        assert asking.get(view(1, made.CINE, 1, "values/2")).json()["low"] is None
        assert asking.get(view(1, made.CT, 3, "values/1,2")).status_code == 400

    def test_a_frame_that_nothing_decodes_is_said_to_be_one(self, asking: TestClient):
        answer = asking.get(path(1, made.VIDEO, 1) + "/frames/1/rendered")
        assert answer.status_code == 406 and answer.text.startswith("Nothing decodes MPEG2")


class TestContent:
    def test_a_header_has_names_and_the_values_as_they_are(self, asking: TestClient):
        told = asking.get(view(1, made.CT, 1, "header")).json()
        lines = {tag: (vr, name, value) for depth, tag, vr, name, value in told["lines"] if depth == 0}
        assert lines["(0010,0010)"] == ("PN", "Patient's Name", made.NAME)
        assert lines["(0028,1050)"] == ("DS", "Window Center", "40.0\\-600.0")
        assert lines["(0008,0016)"][2] == "1.2.840.10008.5.1.4.1.1.2 CT Image Storage"
        assert "(0008,1190)" not in lines and told["whole"]

    def test_a_header_has_the_items_of_sequences_below_them(self, asking: TestClient):
        lines = asking.get(view(1, made.REPORT, 1, "header")).json()["lines"]
        assert [0, "(0040,A730)", "SQ", "Content Sequence", "1 item"] in lines
        assert [2, "(0040,A160)", "UT", "Text Value", "<script>alert(1)</script> round"] in lines

    def test_a_report_is_a_tree_of_concepts_and_values(self, asking: TestClient):
        told = asking.get(view(1, made.REPORT, 1, "report")).json()
        assert (told["title"], told["state"]) == ("Radiology report", "COMPLETE · UNVERIFIED")
        assert told["lines"] == [
            [0, "Findings", ""],
            [1, "Finding", "<script>alert(1)</script> round"],
            [1, "Diameter", "12.5 mm"],
            [1, "Site", "Lung"],
        ]

    def test_a_pdf_is_given_as_what_it_is_and_anything_else_is_not(self, asking: TestClient):
        answer = asking.get(view(1, made.PDF, 1, "document"))
        assert answer.headers["content-type"] == "application/pdf"
        assert answer.content.rstrip(b"\0") == made.DOCUMENT
        assert asking.get(view(1, made.CT, 1, "document")).status_code == 404


class TestOtherViewers:
    WEASIS = "weasis://%24dicom%3Ars%20--url%20%22{dicomweb}%22%20-r%20%22studyUID%3D{study}%22"

    def of(self, **serve: Any) -> Settings:
        return Settings.model_validate({"lake": "lake", "sources": [], "serve": serve})

    def test_are_ours_and_the_one_that_people_have(self, tmp_path: Path):
        settings = self.of(viewer_folder=str(tmp_path), viewer_url=self.WEASIS, viewer_name="Weasis")
        assert viewers_of(settings, "https://h/x", "1.2") == [
            ("Viewer", "https://h/x/view/1.2"),
            (
                "Weasis",
                "weasis://%24dicom%3Ars%20--url%20%22https%3A%2F%2Fh%2Fx%2Fdicom-web%22%20-r%20%22studyUID%3D1.2%22",
            ),
        ]

    def test_whose_address_needs_a_series_are_named_where_there_is_one(self, tmp_path: Path):
        settings = self.of(viewer_folder=str(tmp_path), viewer_url="slicer://viewer/?studyUID={study}&s={series}")
        assert [name for name, _ in viewers_of(settings, "", "1.2")] == ["Viewer"]
        assert viewers_of(settings, "", "1.2&", "3")[1][1] == "slicer://viewer/?studyUID=1.2%26&s=3"

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("javascript:alert({study})", "begins with one of http:, https:, weasis:"),
            ("https://viewer.example/{study}/{patient}", "must be one of {dicomweb}, {series}, {study}"),
            ("https://viewer.example/{study", "must be one of"),
            ("https://viewer.example/", "{study} is lacking"),
            ("https://viewer.example/{study} <x>", "percent-encoded"),
            ("{study}", "begins with one of"),
        ],
    )
    def test_with_an_address_that_cannot_be_one_are_refused_when_settings_are_read(
        self, tmp_path: Path, url: str, said: str
    ):
        path = tmp_path / "dicom-assets.toml"
        path.write_text(f"[serve]\nviewer_url = '{url}'\n")
        with pytest.raises(SettingsError) as refused:
            load(environment={"DICOM_ASSETS_CONFIG": str(path)})
        assert (
            said in str(refused.value) and "serve.viewer_url" in str(refused.value) and str(path) in str(refused.value)
        )
