"""Settings: where they come from, what they default to, and a sentence for each that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_assets.settings import Settings, SettingsError, load


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """Every test runs in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(toml: str = "", **arguments: str) -> Settings:
    """Settings of a file in the current folder, without anything from the environment."""
    if toml:
        Path("dicom-assets.toml").write_text(toml, encoding="utf-8")
    return load(arguments.get("landing"), arguments.get("lake"), {})


class TestWhereTheyComeFrom:
    def test_without_anything_a_project_folder_is_assumed(self, here):
        settings = loaded()
        assert settings.lake == str(here / "data" / "lake")
        assert [(source.name, source.root) for source in settings.sources] == [("landing", str(here / "data/landing"))]
        assert (settings.claiming.batch_objects, settings.gate.quarantined_share) == (50_000, 0.3)
        assert settings.maintenance.retention_hours == 720

    def test_arguments_win_over_the_environment_and_that_over_the_file(self, here):
        Path("dicom-assets.toml").write_text('lake = "from-file"\n[[sources]]\nname = "a"\nroot = "file-root"\n')
        environment = {"DICOM_ASSETS_LAKE": "from-environment", "DICOM_ASSETS_LANDING": "environment-root"}
        assert load(None, None, {}).lake == str(here / "from-file")
        assert load(None, None, environment).lake == str(here / "from-environment")
        assert load(None, "from-argument", environment).lake == str(here / "from-argument")
        assert [source.name for source in load(None, None, {}).sources] == ["a"]
        assert [source.root for source in load(None, None, environment).sources] == [str(here / "environment-root")]
        assert [source.root for source in load("x", None, environment).sources] == [str(here / "x")]

    def test_a_file_elsewhere_is_named_by_the_environment(self, tmp_path):
        (tmp_path / "other.toml").write_text("[gate]\nminimum = 3\n")
        assert load(None, None, {"DICOM_ASSETS_CONFIG": str(tmp_path / "other.toml")}).gate.minimum == 3

    def test_several_sources_with_patterns(self):
        settings = loaded(
            '[[sources]]\nname = "ct"\nroot = "/in/ct"\ninclude = ["**/*.dcm"]\n'
            '[[sources]]\nname = "mr"\nroot = "/in/mr"\nexclude = ["tmp/**"]\n'
        )
        assert settings.source("ct").include == ("**/*.dcm",)
        assert settings.source("mr").exclude == ("tmp/**",)

    def test_a_service_is_a_landing_source_of_its_name(self, here):
        settings = loaded('[[services]]\nname = "pacs"\nurl = "https://pacs.example/v2/"\n')
        assert settings.service("pacs").url == "https://pacs.example/v2"
        assert settings.source("pacs").root == str(here / "data/changes/pacs")

    def test_home_and_relative_paths_become_absolute(self, here):
        assert loaded(lake="~/lake").lake == str(Path("~/lake").expanduser())
        assert loaded(landing="file:///in").sources[0].root == "file:///in"


WRONG = {
    "a file that is no TOML": ("gate = [", "dicom-assets.toml is not valid TOML: "),
    "a file that is no text": (None, "dicom-assets.toml is not valid TOML: "),
    "a setting that does not exist": (
        "[gate]\nmin = 3\n",
        "gate.min: there is no such setting; did you mean minimum? ",
    ),
    "a section that does not exist": ("[gates]\n", "gates: there is no such setting; did you mean gate? "),
    "a value of a wrong type": ("lake = 5\n", "lake: Input should be a valid string"),
    "a share above one": ("[gate]\nquarantined_share = 30\n", "gate.quarantined_share: Input should be less than"),
    "a batch of nothing": ("[claiming]\nbatch_objects = 0\n", "claiming.batch_objects: Input should be greater"),
    "a source without a root": ('[[sources]]\nname = "a"\n', "sources.0.root: Field required"),
    "a source with an empty root": ('[[sources]]\nroot = ""\n', "sources.0.root: String should have at least 1"),
    "a source with a name that is none": ('[[sources]]\nname = "a b"\nroot = "x"\n', "sources.0.name: String should"),
    "sources that are no list": ('sources = "x"\n', "sources: "),
    "a source that is no table": ('sources = ["x"]\n', "sources.0: "),
    "a setting of a source that does not exist": (
        '[[sources]]\nroot = "x"\ncolour = 1\n',
        "sources.0.colour: there is no such setting. Allowed here: compress, deletions, exclude, ",
    ),
    "two sources with one root": (
        '[[sources]]\nname = "a"\nroot = "x"\n[[sources]]\nname = "b"\nroot = "./x/"\n',
        "sources: sources 'a' and 'b' have the same root",
    ),
    "two sources of one name": (
        '[[sources]]\nname = "a"\nroot = "x"\n[[sources]]\nname = "a"\nroot = "y"\n',
        "sources: two sources have the same name",
    ),
    "an encoding that nobody knows": (
        '[clinical]\nencoding = "klingon"\n',
        "clinical.encoding: no codec of this name; try utf-8, cp1252 or utf-16",
    ),
    "a lake inside a landing folder": (
        'lake = "in/lake"\n[[sources]]\nroot = "in"\n',
        "the lake lies inside the folder of source 'landing'",
    ),
    "a lake that is a landing folder": (
        'lake = "in"\n[[sources]]\nroot = "in"\n',
        "the lake lies inside the folder of source 'landing'",
    ),
    "services that are no list": ('services = "x"\n', "services: "),
    "a service that is no table": ('services = ["x"]\nsources = ["y"]\n', "services.0: "),
    "two services of one name": (
        '[[services]]\nname = "a"\nurl = "https://x"\n[[services]]\nname = "a"\nurl = "https://y"\n',
        "services: two services have the same name",
    ),
    "a url with a password": (
        '[[services]]\nname = "a"\nurl = "https://me:secret@x"\n',
        "services.0.url: a url must not hold a user or a password; name environment variables instead",
    ),
    "a token without a variable": (
        '[[services]]\nname = "a"\nurl = "https://x"\nauth = "bearer"\n',
        "services.0: auth 'bearer' needs token_variable, the name of an environment variable",
    ),
    "a password without variables": (
        '[[services]]\nname = "a"\nurl = "https://x"\nauth = "basic"\n',
        "services.0: auth 'basic' needs user_variable and password_variable",
    ),
    "credentials in the clear": (
        '[[services]]\nname = "a"\nurl = "http://x"\nauth = "bearer"\ntoken_variable = "T"\n',
        "services.0: credentials are sent over https only",
    ),
    "windows without a time zone": (
        "[changes]\nstart = 2026-01-01T00:00:00\n",
        "changes.start: needs a time zone, such as 2026-01-01T00:00:00Z",
    ),
    "windows that do not fit a day": ("[changes]\nwindow_minutes = 7\n", "changes.window_minutes: must divide an hour"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_mistake_is_told_with_file_place_and_what_is_expected(what):
    toml, sentence = WRONG[what]
    Path("dicom-assets.toml").write_bytes(b"\xff\xfe\x00" if toml is None else toml.encode())
    with pytest.raises(SettingsError) as found:
        load(None, None, {})
    assert str(found.value).startswith("dicom-assets.toml")
    assert sentence in str(found.value)
    assert "secret" not in str(found.value)
    assert "Value error" not in str(found.value)


def test_a_configuration_file_that_is_named_and_not_there_is_told():
    with pytest.raises(SettingsError, match=r"DICOM_ASSETS_CONFIG names a file that is not there: nowhere\.toml"):
        load(None, None, {"DICOM_ASSETS_CONFIG": "nowhere.toml"})


def test_a_mistake_without_a_file_is_told_as_well(here):
    with pytest.raises(SettingsError, match="Settings: the lake lies inside"):
        load(str(here), str(here / "lake"), {})


def test_a_source_or_service_that_is_not_configured_is_told_with_those_that_are():
    settings = loaded('[[sources]]\nname = "a"\nroot = "x"\n')
    with pytest.raises(SettingsError, match=r"Source 'b' is not configured\. Configured: a\."):
        settings.source("b")
    with pytest.raises(SettingsError, match=r"Service 'b' is not configured .* Configured: none\."):
        settings.service("b")
