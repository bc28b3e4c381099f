"""Addresses of Azure Storage, and which credential is for which account."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.storage.azure import AddressError, Place, credential, delta_options, object_store, parse, reason

PATHS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).filter(
    lambda path: not path.startswith("/")
)


@pytest.mark.parametrize(
    "address",
    ["az://imaging/incoming/a%20b/x.dcm", "azure://imaging/incoming/a%20b/x.dcm",
     "abfss://incoming@imaging.dfs.core.windows.net/a%20b/x.dcm",
     "https://imaging.blob.core.windows.net/incoming/a%20b/x.dcm",
     "https://imaging.dfs.core.windows.net/incoming/a%20b/x.dcm"],
)  # fmt: skip
def test_all_forms_name_the_same_place(address: str) -> None:
    assert parse(address) == Place("imaging", "incoming", "a b/x.dcm")
    assert parse(address).url == "az://imaging/incoming/a%20b/x.dcm"


def test_addresses_of_the_emulator_name_the_account_in_their_path() -> None:
    place = parse("http://127.0.0.1:10000/devstoreaccount1/incoming/x")
    assert place == Place("devstoreaccount1", "incoming", "x")


@pytest.mark.parametrize(
    "address",
    ["az://imaging", "az://", "az://UPPER/incoming", "az://imaging/x", "s3://bucket/x", "https://imaging.blob/",
     "az://imaging/incoming?sig=hidden", "abfss://imaging.dfs.core.windows.net", "az://imaging/incoming/x#y"],
)  # fmt: skip
def test_what_names_no_container_is_refused_without_repeating_it(address: str) -> None:
    with pytest.raises(AddressError) as raised:
        parse(address)
    assert "hidden" not in str(raised.value)


@given(PATHS)
def test_any_name_of_a_blob_survives_its_address(path: str) -> None:
    place = Place("imaging", "incoming", path)
    place.url.encode("ascii")
    assert parse(place.url) == place


class TestCredentials:
    KEY = "c2VjcmV0LWtleQ=="

    @pytest.mark.parametrize(
        ("environment", "kind"),
        [
            ({}, "token"),
            ({"AZURE_STORAGE_ACCOUNT_KEY": KEY}, "key"),
            ({"AZURE_STORAGE_ACCOUNT_KEY": KEY, "AZURE_STORAGE_ACCOUNT_NAME": "imaging"}, "key"),
            ({"AZURE_STORAGE_ACCOUNT_KEY": KEY, "AZURE_STORAGE_ACCOUNT_NAME": "other"}, "token"),
            ({"AZURE_STORAGE_SAS_TOKEN": "?sv=1&sig=x"}, "sas"),
            ({"AZURE_STORAGE_SAS_TOKEN_IMAGING": "sv=1", "AZURE_STORAGE_ACCOUNT_NAME": "other"}, "sas"),
            ({"AZURE_STORAGE_SAS_TOKEN_IMAGING": "sv=1", "AZURE_STORAGE_ACCOUNT_KEY": KEY}, "sas"),
            ({"AZURE_STORAGE_SAS_TOKEN_OTHER": "sv=1"}, "token"),
            ({"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=imaging;AccountKey={KEY};X=y"}, "key"),
            ({"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=other;AccountKey={KEY}"}, "token"),
            ({"AZURE_STORAGE_CONNECTION_STRING": "AccountName=imaging;SharedAccessSignature=sv=1&sig=a="}, "sas"),
        ],
    )
    def test_the_first_that_is_for_the_account_counts(self, environment: dict[str, str], kind: str) -> None:
        assert credential("imaging", environment).kind == kind

    def test_a_key_keeps_its_padding_and_a_signature_loses_its_question_mark(self) -> None:
        text = f"AccountName=imaging;AccountKey={self.KEY}"
        assert credential("imaging", {"AZURE_STORAGE_CONNECTION_STRING": text}).secret == self.KEY
        assert credential("imaging", {"AZURE_STORAGE_SAS_TOKEN": "?sv=1"}).secret == "sv=1"

    def test_nothing_shows_a_secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", self.KEY)
        place = Place("imaging", "incoming", "x")
        assert self.KEY not in repr(credential("imaging"))
        assert self.KEY not in repr(object_store(place))
        assert delta_options(place)["azure_storage_account_key"] == self.KEY

    def test_reasons_repeat_nothing_of_what_a_library_says(self) -> None:
        text = "Error performing GET https://x/DOE.dcm?sig=hidden - status code: 403"
        assert reason(OSError(text), "Reader") == "permission denied; the role Reader on the container is needed"
        assert "DOE" not in reason(OSError("no status DOE"), "Reader")
