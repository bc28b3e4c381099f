"""docs/dicom-service.md says what can be set, and what it shows can be loaded."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from dicom_assets.settings import ChangesSettings, ServiceSettings, Settings

PAGE = (Path(__file__).parents[2] / "docs" / "dicom-service.md").read_text(encoding="utf-8")


def test_every_setting_stands_on_the_page():
    for model in (ServiceSettings, ChangesSettings):
        for name in model.model_fields:
            assert f"`{name}`" in PAGE, name


def test_the_examples_can_be_loaded():
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        settings = Settings.model_validate(tomllib.loads(re.sub(r"^ +", "", block, flags=re.MULTILINE)))
        assert len(settings.services) == 1
