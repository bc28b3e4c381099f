"""How much may be asked: requests a second, sizes, requests at once."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response

from dicom_assets.serve.call import Call
from dicom_assets.serve.limits import CLIENTS, Limits, Rate
from dicom_assets.serve.problems import Refusal
from dicom_assets.settings import ServeSettings, Settings
from dicom_assets_tests.serve.asking import bearer, client, resource, saying

TOKENS = [{"name": "one", "variable": "FIRST"}, {"name": "two", "variable": "SOME"}]
HELLO = resource("/hello", saying(PlainTextResponse("hello")))


class TestRate:
    @given(st.lists(st.floats(0, 3), max_size=60), st.floats(0.5, 50), st.integers(1, 10))
    def test_nobody_gets_more_than_a_burst_and_what_time_gives(self, pauses, per_second: float, burst: int):
        rate, now, taken = Rate(per_second, burst), 0.0, 0
        for pause in pauses:
            now += pause
            try:
                rate.take("client", now)
                taken += 1
            except Refusal as refusal:
                assert refusal.status == 429
                assert int(refusal.headers["Retry-After"]) >= 1
        assert taken <= burst + now * per_second + 1e-6

    def test_who_has_waited_as_told_goes_on(self):
        rate = Rate(0.25, 1)
        rate.take("client", 0.0)
        with pytest.raises(Refusal) as refused:
            rate.take("client", 0.0)
        rate.take("client", float(refused.value.headers["Retry-After"]))

    def test_clients_are_forgotten_when_there_are_too_many(self):
        rate = Rate(1, 1)
        for number in range(CLIENTS + 5):
            rate.take(str(number), 0.0)
        rate.take("0", 0.0)  # forgotten, so with a full bucket
        with pytest.raises(Refusal):
            rate.take(str(CLIENTS), 0.0)

    def test_each_token_has_its_own(self, searchable: Settings):
        asking = client(searchable, [HELLO], tokens=TOKENS, requests_per_second=0.01, burst=2)
        told = [asking.get("/dicom-web/hello", headers=bearer(one)).status_code for one in ("FIRST",) * 3 + ("SOME",)]
        assert told == [200, 200, 429, 200]
        assert int(asking.get("/dicom-web/hello", headers=bearer("FIRST")).headers["retry-after"]) > 1

    def test_who_guesses_tokens_is_slowed_down_by_address(self, searchable: Settings):
        asking = client(searchable, [HELLO], tokens=TOKENS, requests_per_second=0.01, burst=2)
        guess = {"Authorization": "Bearer guess"}
        assert [asking.get("/dicom-web/hello", headers=guess).status_code for _ in range(3)] == [401, 401, 429]
        assert asking.get("/dicom-web/hello", headers=bearer("FIRST")).status_code == 200

    def test_health_is_never_refused(self, searchable: Settings):
        asking = client(searchable, [HELLO], requests_per_second=0.01, burst=1)
        assert {asking.get("/healthz").status_code for _ in range(4)} == {200}


class TestSizes:
    def test_of_the_address(self, searchable: Settings):
        asking = client(searchable, [HELLO], query_bytes=300)
        assert asking.get("/dicom-web/hello?" + "a" * 200).status_code == 200
        assert asking.get("/dicom-web/hello?" + "a" * 300).status_code == 414
        assert asking.get("/dicom-web/" + "a" * 300).status_code == 414

    def test_of_the_headers(self, searchable: Settings):
        asking = client(searchable, [HELLO], head_bytes=2_000)
        assert asking.get("/dicom-web/hello", headers={"X": "a" * 1_000}).status_code == 200
        assert asking.get("/dicom-web/hello", headers={"X": "a" * 2_000}).status_code == 431

    @pytest.mark.parametrize("announced", [True, False])
    @pytest.mark.parametrize(("size", "status"), [(100, 200), (101, 413)])
    def test_of_a_body(self, searchable: Settings, announced: bool, size: int, status: int):
        async def count(call: Call) -> Response:
            return PlainTextResponse(str(len(await call.request.body())))

        def pieces() -> Iterator[bytes]:
            yield b"a" * 60
            yield b"a" * (size - 60)

        asking = client(searchable, [resource("/hello", count, "POST")], body_bytes=100)
        answer = asking.post("/dicom-web/hello", content=b"a" * size if announced else pieces())
        assert answer.status_code == status
        assert (answer.text == "100") is (status == 200)

    def test_of_a_body_where_none_belongs(self, searchable: Settings):
        asking = client(searchable, [HELLO])
        assert asking.request("GET", "/dicom-web/hello", content=b"a" * 100_000).status_code == 413

    @pytest.mark.parametrize("length", ["x", "-1", "1e3", "²"])
    def test_of_a_body_is_a_number(self, length: str):
        with pytest.raises(Refusal, match="Content-Length"):
            Limits(ServeSettings()).bounded(anyio.sleep_forever, "POST", Headers({"content-length": length}))


def test_requests_at_once_are_bounded_and_turns_come_back():
    limits = Limits(ServeSettings(requests_at_once=2))
    with limits.turn(), limits.turn():
        with pytest.raises(Refusal) as refused, limits.turn():
            pass
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
    with limits.turn():
        pass
    assert limits.at_once == 0
