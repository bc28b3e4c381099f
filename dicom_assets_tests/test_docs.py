"""The generated pages of docs/ say what the registries say."""

import pytest

from dicom_assets.docs import FOLDER, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_generated_page_is_current(name: str) -> None:
    page = (FOLDER / name).read_text(encoding="utf-8")
    assert page == PAGES[name](), "run `make docs`"
