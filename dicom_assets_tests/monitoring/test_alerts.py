"""A batch that waits reaches people: once for each state, when a receiver is back as well, and failing nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
from typer.testing import CliRunner

from dicom_assets.batch.books import Status, _write, books_of
from dicom_assets.batch.claim_rounds import claim_everywhere
from dicom_assets.batch.context import RunContext
from dicom_assets.cli.main import app
from dicom_assets.defs.alerts import failed_runs
from dicom_assets.defs.graph import build_defs
from dicom_assets.lake.delta import Lake
from dicom_assets.monitoring import outbox
from dicom_assets.monitoring.messages import for_slack, mail, of_test
from dicom_assets.monitoring.occasions import Told
from dicom_assets.monitoring.outbox import Round, tell
from dicom_assets.monitoring.receivers import ReceiverAway, send
from dicom_assets.settings import AlertSettings, Settings, SettingsError, load
from dicom_assets.storage import locks
from dicom_assets_tests.monitoring.inbox import PASSWORD, USER, Post, Web, post, web, write_certificate
from dicom_assets_tests.monitoring.watched import SECRETS, Watched

Alert = Callable[..., AlertSettings]


def webhook(url: str, **more: Any) -> AlertSettings:
    return AlertSettings.model_validate({"kind": "webhook", "url": url, **more})


@pytest.fixture
def inbox() -> Iterator[Web]:
    with web() as got:
        yield got


@pytest.fixture
def lake(watched: Watched, tmp_path: Path) -> Lake:
    """A copy of the watched lake, to be changed."""
    shutil.copytree(watched.settings.lake, tmp_path / "lake")
    return Lake(str(tmp_path / "lake"))


def settings_with(lake: Lake, *alerts: AlertSettings) -> Settings:
    return Settings(lake=lake.uri, alerts=alerts)


def set_status(lake: Lake, batch_id: str, status: Status, reason: str | None = None) -> None:
    known = books_of(lake, batch_id)
    assert known is not None
    closed_at = datetime.now(UTC) if status is Status.CLOSED else None
    _write(lake, replace(known, status=status, reason=reason, closed_at=closed_at))


class TestWhatIsTold:
    def test_a_paused_batch_with_why_its_reasons_and_what_to_do(self, lake: Lake, inbox: Web, watched: Watched):
        alert = webhook(inbox.url, on=["paused"], dagster_url="https://dagster.example.org/")
        assert tell(lake, settings_with(lake, alert)) == Round(1)
        (body,) = inbox.bodies
        books = books_of(lake, watched.paused)
        assert books is not None
        assert (body["kind"], body["source"], body["batch"]) == ("paused", "landing", watched.paused)
        assert body["codes"] == {"MISSING_IDENTITY": 12}
        assert body["reason"] == books.reason
        assert body["commands"][0] == f"dicom-assets batch show {watched.paused}"
        assert body["url"] == f"https://dagster.example.org/runs/{books.run_id}"

    def test_a_failed_batch(self, lake: Lake, inbox: Web, watched: Watched):
        set_status(lake, watched.paused, Status.FAILED, "The run broke off; see its log.")
        tell(lake, settings_with(lake, webhook(inbox.url, on=["failed"])))
        assert [body["kind"] for body in inbox.bodies] == ["failed"]

    def test_what_waits_too_long(self, lake: Lake, inbox: Web):
        settings = settings_with(lake, webhook(inbox.url, on=["stale"], waiting_minutes=30))
        now = datetime.now(UTC)
        assert tell(lake, settings, now=now + timedelta(minutes=25)) == Round(0)
        assert tell(lake, settings, now=now + timedelta(minutes=35)) == Round(2)
        assert {body["text"].split("(")[1] for body in inbox.bodies} == {"claimed).", "unclaimed)."}

    def test_a_source_that_looks_emptied_until_it_is_back_and_again_when_it_happens_again(
        self, lake: Lake, inbox: Web, tmp_path: Path
    ):
        alert = webhook(inbox.url, on=["source_emptied"])
        root = tmp_path / "empty"
        root.mkdir()
        settings = Settings.model_validate(
            {"lake": lake.uri, "sources": [{"name": "landing", "root": str(root)}], "alerts": [alert]}
        )
        for number in range(20):
            (root / f"{number}.txt").write_text("no image")

        def look() -> None:
            with RunContext(settings) as work:
                claim_everywhere(work)

        files = [*root.iterdir()]
        with RunContext(settings) as work:
            work.lake.files.delete("_looks")
        look()
        for expected in (1, 2):
            for file in files:
                file.rename(tmp_path / file.name)
            look()
            assert tell(lake, settings) == Round(1)
            assert tell(lake, settings) == Round(0)
            for file in files:
                (tmp_path / file.name).rename(file)
            look()
            assert tell(lake, settings) == Round(0)
            assert len(inbox.bodies) == expected
        assert "dicom-assets source confirm landing" in inbox.bodies[0]["commands"]

    def test_a_source_of_which_no_batch_closes_when_that_is_asked_for(self, lake: Lake, inbox: Web):
        later = datetime.now(UTC) + timedelta(hours=7)
        for hours, sent in ((None, 0), (8, 0), (6, 1)):
            alert = webhook(inbox.url, name=f"h{hours}", on=["silent"], silent_hours=hours)
            assert tell(lake, settings_with(lake, alert), now=later) == Round(sent)

    def test_of_other_sources_nothing(self, lake: Lake, inbox: Web):
        assert tell(lake, settings_with(lake, webhook(inbox.url, sources=["other"]))) == Round(0)


class TestOnce:
    def test_for_each_batch_and_state(self, lake: Lake, inbox: Web, watched: Watched):
        settings = settings_with(lake, webhook(inbox.url, on=["paused", "failed"]))
        books = books_of(lake, watched.paused)
        assert books is not None
        told = [tell(lake, settings).sent, tell(lake, settings).sent]
        set_status(lake, watched.paused, Status.OPEN)  # somebody runs it again …
        told.append(tell(lake, settings).sent)
        set_status(lake, watched.paused, Status.PAUSED, books.reason)  # … and it pauses as before
        told.append(tell(lake, settings).sent)
        set_status(lake, watched.paused, Status.FAILED, "broke off")
        told += [tell(lake, settings).sent, tell(lake, settings).sent]
        assert told == [1, 0, 0, 0, 1, 0]

    def test_and_again_when_its_books_had_closed_meanwhile(self, lake: Lake, inbox: Web, watched: Watched):
        settings = settings_with(lake, webhook(inbox.url, on=["paused"]))
        told = [tell(lake, settings).sent]
        set_status(lake, watched.paused, Status.CLOSED)
        told.append(tell(lake, settings).sent)
        assert lake.files.names(outbox.FOLDER) == []
        set_status(lake, watched.paused, Status.PAUSED, "again")
        assert [*told, tell(lake, settings).sent] == [1, 0, 1]

    def test_by_one_process_at_a_time(self, lake: Lake, inbox: Web):
        with locks.held(lake.files, outbox.LOCK, 0), pytest.raises(locks.LockBusy):
            tell(lake, settings_with(lake, webhook(inbox.url)))

    def test_the_same_thing_has_the_same_id_when_a_kill_has_taken_its_mark(self, lake: Lake, inbox: Web):
        settings = settings_with(lake, webhook(inbox.url, on=["paused"]))
        for _ in range(2):
            tell(lake, settings)
            lake.files.delete(outbox.FOLDER)
        first, second = inbox.bodies
        assert first["id"] == second["id"]


class TestAway:
    def test_it_is_told_when_the_receiver_is_back_and_others_are_told_meanwhile(self, lake: Lake, inbox: Web):
        with web() as other:
            settings = settings_with(
                lake,
                webhook(other.url, name="away", on=["paused"]),
                webhook(inbox.url, name="there", on=["paused"]),
            )
            other.status = 503
            told = tell(lake, settings)
            assert told == Round(1, ("Alert 'away': the receiver answered 503.",))
            other.status = 204
            assert tell(lake, settings) == Round(1)
            assert len(other.bodies) == len(inbox.bodies) == 1

    def test_nobody_listens(self, lake: Lake):
        with web() as gone:
            url = gone.url
        told = tell(lake, settings_with(lake, webhook(url, on=["paused"])))
        assert told.sent == 0
        assert told.away == ("Alert 'webhook': the receiver cannot be reached (ConnectError).",)

    def test_a_variable_that_is_not_set_is_named_and_costs_the_others_nothing(self, lake: Lake, inbox: Web):
        slack = AlertSettings(kind="slack", url_variable="NOT_THERE")
        told = tell(lake, settings_with(lake, slack, webhook(inbox.url, on=["paused"])), environment={})
        assert told == Round(1, ("Alert 'slack': the environment variable NOT_THERE is not set.",))

    def test_an_address_that_is_a_secret_is_in_no_message(self):
        alert = AlertSettings(kind="slack", url_variable="HOOK")
        with pytest.raises(ReceiverAway) as refused:
            send(of_test(), alert, {"HOOK": "http://127.0.0.1:9/services/SECRET"})
        assert "SECRET" not in str(refused.value)


class TestPosts:
    def test_a_token_comes_from_the_environment(self, inbox: Web):
        send(of_test(), webhook(inbox.url, token_variable="TOKEN"), {"TOKEN": "t0ken"})
        assert inbox.headers[0]["authorization"] == "Bearer t0ken"

    def test_slack_gets_text_with_what_it_reads_escaped(self, inbox: Web):
        alert = AlertSettings(kind="slack", url_variable="HOOK")
        send(replace(of_test(), reason="a < b & c"), alert, {"HOOK": inbox.url})
        (body,) = inbox.bodies
        assert list(body) == ["text"]
        assert body["text"].splitlines()[:2] == [
            "*This is a test: alerts of dicom-assets arrive here.*",
            "a &lt; b &amp; c",
        ]
        assert for_slack(of_test(), alert)["text"].startswith("*This")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("tls") / "127.0.0.1.pem")


def by_mail(server: Post, security: str, **more: Any) -> AlertSettings:
    values = {"to": ["a@example.org", "b@example.org"], "sender": "lake@example.org", "host": "127.0.0.1"}
    return AlertSettings.model_validate({"kind": "mail", **values, "port": server.port, "security": security, **more})


LOGIN = {"user_variable": "MAIL_USER", "password_variable": "MAIL_PASSWORD"}
ENVIRONMENT = {"MAIL_USER": USER, "MAIL_PASSWORD": PASSWORD}


class TestMails:
    @pytest.mark.parametrize("security", ["starttls", "tls", "none"])
    def test_arrive_at_everybody_with_a_login_over_tls(self, security: str, certificate: Path):
        given = None if security == "none" else certificate
        with post(security, given, login=True) as server:
            alert = by_mail(server, security, ca_file=str(certificate), **LOGIN)
            send(of_test(), alert, ENVIRONMENT)
        (found,) = server.mails
        assert server.to == [["a@example.org", "b@example.org"]]
        assert server.protected == [security != "none"]
        assert server.logins == [(USER, PASSWORD)]
        assert found["Subject"] == "[dicom-assets] This is a test: alerts of dicom-assets arrive here."
        assert "Nothing is wrong." in found.get_content()

    @pytest.mark.parametrize("security", ["starttls", "tls"])
    def test_go_to_no_server_whose_certificate_nobody_signed(self, security: str, certificate: Path):
        with post(security, certificate) as server, pytest.raises(ReceiverAway, match="SSLCertVerificationError"):
            send(of_test(), by_mail(server, security), {})
        assert server.mails == []

    def test_a_wrong_password_is_told_without_it(self, certificate: Path):
        with post("starttls", certificate, login=True) as server:
            alert = by_mail(server, "starttls", ca_file=str(certificate), **LOGIN)
            with pytest.raises(ReceiverAway) as refused:
                send(of_test(), alert, {**ENVIRONMENT, "MAIL_PASSWORD": "wr0ng"})
        assert str(refused.value) == "Alert 'mail': the mail server did not take it (SMTPAuthenticationError 535)."

    def test_the_same_thing_has_the_same_message_id(self):
        alert = AlertSettings(kind="mail", to=("a@example.org",), sender="b@example.org", host="127.0.0.1")
        told = Told(of_test().kind, "batch.x.paused", "Batch x is paused.")
        assert mail(told, alert)["Message-ID"] == mail(told, alert)["Message-ID"]


MAIL = {"kind": "mail", "to": ["a@b.c"], "sender": "x@y.z", "host": "h"}


class TestSettings:
    @pytest.mark.parametrize(
        ("given", "why"),
        [
            ({"kind": "webhook"}, "needs url or url_variable"),
            ({"kind": "webhook", "url": "https://x.example", "to": ["a@example.org"]}, "to: not for kind 'webhook'"),
            ({"kind": "webhook", "url": "http://x.example", "token_variable": "T"}, "over https only"),
            ({"kind": "webhook", "url": "https://u:p@x.example"}, "must not hold a user or a password"),
            ({"kind": "webhook", "url": "https://x.example", "on": ["sometimes"]}, "paused"),
            ({"kind": "webhook", "url": "https://x.example", "password": "x"}, "there is no such setting"),
            ({"kind": "mail", "to": ["a@example.org"]}, "needs to, sender and host"),
            ({**MAIL, "user_variable": "U"}, "needs user_variable"),
            ({**MAIL, "security": "none", **LOGIN}, "a login needs security"),
        ],
    )  # fmt: skip
    def test_that_cannot_work_are_refused_with_their_place(self, given: dict[str, Any], why: str, tmp_path: Path):
        file = tmp_path / "dicom-assets.toml"
        lines = [f"{name} = {json.dumps(value)}" for name, value in given.items()]
        file.write_text("\n".join(["[[alerts]]", *lines, ""]))
        with pytest.raises(SettingsError, match=r"alerts\.0") as refused:
            load(environment={"DICOM_ASSETS_CONFIG": str(file)})
        assert why in str(refused.value)

    def test_two_of_one_name_are_refused(self):
        alert = AlertSettings(kind="slack", url_variable="HOOK")
        with pytest.raises(ValueError, match="two alerts have the same name"):
            Settings(alerts=(alert, alert))


class TestCommands:
    @pytest.fixture
    def configured(self, lake: Lake, inbox: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        file = tmp_path / "dicom-assets.toml"
        file.write_text(
            f'lake = "{lake.uri}"\n[[alerts]]\nkind = "webhook"\nname = "ops"\nurl = "{inbox.url}"\non = ["paused"]\n'
        )
        monkeypatch.setenv("DICOM_ASSETS_CONFIG", str(file))
        return file

    def test_send_tells_what_was_not_told_and_exits_with_1_when_a_receiver_is_away(self, configured: Path, inbox: Web):
        inbox.status = 500
        result = CliRunner().invoke(app, ["alerts", "send"])
        assert (result.exit_code, result.stdout) == (1, "0 messages sent.\n")
        assert "the receiver answered 500. It is told again." in result.stderr
        inbox.status = 200
        result = CliRunner().invoke(app, ["alerts", "send"])
        assert (result.exit_code, result.stdout) == (0, "1 messages sent.\n")

    def test_test_sends_a_message_to_one_receiver_or_to_all(self, configured: Path, inbox: Web):
        assert CliRunner().invoke(app, ["alerts", "test", "ops"]).exit_code == 0
        assert CliRunner().invoke(app, ["alerts", "test"]).exit_code == 0
        assert len(inbox.bodies) == 2
        result = CliRunner().invoke(app, ["alerts", "test", "nobody"])
        assert (result.exit_code, len(inbox.bodies)) == (2, 2)
        assert "Configured: ops" in result.stderr
        inbox.status = 401
        assert CliRunner().invoke(app, ["alerts", "test"]).exit_code == 1

    def test_without_receivers_both_say_what_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.chdir(tmp_path)
        for name in ("send", "test"):
            result = CliRunner().invoke(app, ["alerts", name])
            assert result.exit_code == 2
            assert "[[alerts]]" in result.stderr


class TestSensor:
    def test_is_there_only_when_somebody_is_to_be_told(self, watched: Watched):
        names = [
            {sensor.name for sensor in build_defs(settings).sensors or ()}
            for settings in (watched.settings, watched.settings.model_copy(update={"alerts": (webhook("http://127.0.0.1:9"),)}))
        ]  # fmt: skip
        assert names[1] - names[0] == {"alerts"}

    def test_tells_of_batches_and_of_failed_runs_of_other_jobs_once_and_survives_a_receiver_that_is_away(
        self, lake: Lake, inbox: Web, instance: dg.DagsterInstance
    ):
        @dg.op
        def breaks() -> None:
            raise dg.Failure("on purpose")

        @dg.job(name="maintain_lake")
        def maintain() -> None:
            breaks()

        failed = maintain.execute_in_process(instance=instance, raise_on_error=False)
        settings = settings_with(lake, webhook(inbox.url, on=["paused", "run_failed"]))

        def tick() -> str:
            sensor = build_defs(settings).get_sensor_def("alerts")
            with (
                RunContext(settings) as work,
                dg.build_sensor_context(instance=instance, resources={"work": work}) as context,
            ):
                found = sensor(context)
            assert isinstance(found, dg.SkipReason)
            return found.skip_message or ""

        inbox.status = 500
        assert "answered 500" in tick()
        inbox.status = 200
        assert [tick(), tick()] == ["2 messages sent.", "0 messages sent."]
        run = next(body for body in inbox.bodies if body["kind"] == "run_failed")
        assert run["run_id"] == failed.run_id
        assert "maintain_lake" in run["text"]

    def test_names_what_failed_by_job_or_by_assets_and_leaves_batches_to_their_books(self, instance):
        for job, assets in (
            ("maintain_lake", None),
            ("__ASSET_JOB", ["tag_profile", "phi_risk"]),
            ("ingest_batch", None),
            ("__ASSET_JOB", ["raw_files", "cleanup"]),
        ):
            keys = None if assets is None else {dg.AssetKey(name) for name in assets}
            run = dg.DagsterRun(job_name=job, run_id=str(uuid4()), asset_selection=keys)
            instance.report_run_failed(instance.add_run(run))
        told = {one.about for one in failed_runs(instance, datetime.now(UTC))}
        assert told == {"A run of job maintain_lake failed.", "A run of phi_risk, tag_profile failed."}


def test_nothing_of_a_patient_is_in_any_message(lake: Lake, inbox: Web, watched: Watched):
    everything = webhook(inbox.url, waiting_minutes=1, silent_hours=1)
    told = tell(lake, settings_with(lake, everything), now=datetime.now(UTC) + timedelta(hours=2))
    assert told.sent >= 4
    assert {body["kind"] for body in inbox.bodies} >= {"paused", "stale", "silent"}
    assert not SECRETS.stand_in(json.dumps([inbox.bodies, inbox.headers]).encode())
    names = "\n".join(lake.files.names(outbox.FOLDER))
    assert not SECRETS.stand_in(names.encode())
