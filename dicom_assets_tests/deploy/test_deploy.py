"""What deploy/ holds, as far as it can be tried without Docker, Azure and Kubernetes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import pytest
import typer
import yaml
from dagster._core.instance.config import dagster_instance_config
from dagster_azure.blob.compute_log_manager import AzureBlobComputeLogManager

from dicom_assets.cli.main import app
from dicom_assets.serve.access import Access
from dicom_assets.serve.audit_log import key_of
from dicom_assets.settings import SettingsError, load
from dicom_assets.storage.azure import parse_folder
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.postgres import postgres

DEPLOY = Path(__file__).parents[2] / "deploy"


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def test_the_settings_of_the_example_are_accepted_and_name_what_the_bicep_file_makes() -> None:
    settings = load(environment={"DICOM_ASSETS_CONFIG": str(DEPLOY / "dicom-assets.example.toml")})
    bicep = (DEPLOY / "azure" / "main.bicep").read_text(encoding="utf-8")
    made = re.findall(r"'([a-z]+)'", re.search(r"var containers = \[(.*?)\]", bicep)[1])  # type: ignore[index]
    mine = [parse_folder(source.root) for source in settings.sources if "imaginglake" in source.root]
    assert {place.container for place in [*mine, parse_folder(settings.lake)]} == set(made) - {"logs"}
    assert {source.queue for source in settings.sources} - {None} == {"incoming"}
    assert "param queueName string = 'incoming'" in bicep


def test_every_pinned_version_has_a_hash_in_a_file_that_names_no_host() -> None:
    pins = (DEPLOY.parent / "constraints.txt").read_text(encoding="utf-8").split()
    text = (DEPLOY.parent / "constraints-hashed.txt").read_text(encoding="utf-8")
    hashed = [line.split(" --hash=sha256:") for line in text.splitlines() if not line.startswith("#")]
    assert [pin for pin, _ in hashed] == pins
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for _, digest in hashed)
    assert "://" not in text


class TestCompose:
    def test_services_wait_for_what_they_need_and_the_code_location_listens_where_it_is_looked_for(self) -> None:
        compose = read("compose.yaml")
        services = compose["services"]
        assert set(services) == {"postgres", "code", "daemon", "webserver", "dicomweb"}
        (server,) = read("workspace.yaml")["load_from"]
        assert server["grpc_server"]["host"] in services
        dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
        assert f'"--port", "{server["grpc_server"]["port"]}"' in dockerfile
        assert f'"--location-name", "{server["grpc_server"]["location_name"]}"' in dockerfile
        for name in ("daemon", "webserver"):
            assert set(services[name]["depends_on"]) == {"postgres", "code"}

    def test_every_variable_that_dagster_reads_is_given_to_its_containers(self) -> None:
        wanted = set(re.findall(r"\{env: (\w+)\}", (DEPLOY / "dagster.yaml").read_text(encoding="utf-8")))
        assert wanted <= set(read("compose.yaml")["x-dagster"]["environment"])

    def test_no_secret_is_written_anywhere(self) -> None:
        for path in (p for p in DEPLOY.rglob("*") if p.is_file() and p.name != ".env"):
            text = path.read_text(encoding="utf-8")
            # In Bicep a value without quotes is the name of a parameter.
            quote = r"['\"]" if path.suffix.startswith(".bicep") else r"['\"]?"
            assert not re.search(rf"(?i)(password|secret|key)\w*\s*[:=]\s*{quote}[A-Za-z0-9+/]{{16,}}", text), path.name


class TestDicomweb:
    """The server of compose file and cluster, with the settings of the example."""

    def commands(self) -> list[list[str]]:
        compose = read("compose.yaml")["services"]["dicomweb"]["command"]
        deployment, *_ = yaml.safe_load_all((DEPLOY / "kubernetes" / "dicomweb.yaml").read_text(encoding="utf-8"))
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        return [compose, container["command"]]

    def test_its_command_is_one_that_we_have(self) -> None:
        for program, name, *options in self.commands():
            assert program == "dicom-assets"
            found = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
            given = dict(zip(options[::2], options[1::2], strict=True))
            assert set(given) <= {one for parameter in found.params for one in parameter.opts}
            assert (given["--host"], given["--port"]) == ("0.0.0.0", "8050")

    def test_it_starts_with_the_variables_that_it_is_given_and_not_without(self) -> None:
        serve = load(environment={"DICOM_ASSETS_CONFIG": str(DEPLOY / "dicom-assets.example.toml")}).serve
        compose = read("compose.yaml")["services"]["dicomweb"]
        deployment, service, policy = yaml.safe_load_all(
            (DEPLOY / "kubernetes" / "dicomweb.yaml").read_text(encoding="utf-8")
        )
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        for given in (compose["environment"], {one["name"] for one in container["env"]}):
            environment = dict.fromkeys(given, "x" * 32)
            Access(serve, "0.0.0.0", environment)
            assert key_of(serve, environment) == b"x" * 32
        with pytest.raises(SettingsError, match="DICOM_ASSETS_TOKEN"):
            Access(serve, "0.0.0.0", {})
        wanted = deployment["spec"]["selector"]["matchLabels"]
        assert service["spec"]["selector"] == policy["spec"]["podSelector"]["matchLabels"] == wanted

    def test_only_this_machine_reaches_it_and_it_can_write_nothing(self) -> None:
        compose = read("compose.yaml")["services"]["dicomweb"]
        assert compose["ports"] == ["127.0.0.1:8050:8050"]
        assert compose["read_only"] is True
        variables = (DEPLOY / ".env.example").read_text(encoding="utf-8")
        assert all(f"{one}=" in variables for one in compose["environment"])


class TestDagster:
    @pytest.fixture(autouse=True)
    def _environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DICOM_ASSETS_LOG_ACCOUNT", "imaginglake")
        monkeypatch.setenv("DICOM_ASSETS_LOG_CONTAINER", "logs")

    def test_dagster_accepts_its_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        config, _ = dagster_instance_config(str(DEPLOY))
        assert config["storage"]["postgres"]["postgres_db"]["hostname"] == {"env": "DAGSTER_PG_HOST"}
        assert config["run_monitoring"]["enabled"] is True

    @pytest.mark.slow
    def test_runs_end_in_a_real_postgresql(
        self, tmp_path: Path, landing: LandingFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("dagster_postgres")
        with postgres() as url:
            self._point_to(url, monkeypatch)
            text = (DEPLOY / "dagster.yaml").read_text(encoding="utf-8").replace("port: 5432", f"port: {self.port}")
            logs = text[text.index("compute_logs:") : text.index("concurrency:")]
            (tmp_path / "home").mkdir()
            (tmp_path / "home" / "dagster.yaml").write_text(text.replace(logs, ""), encoding="utf-8")
            landing.put("1.dcm", dicom())
            with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
                graph = Graph(settings_for(tmp_path / "lake", landing.root), instance)
                (batch,) = graph.claim()
                assert graph.run(batch, select=["raw_files"]).success
                assert instance.get_dynamic_partitions("batch") == [batch]
                assert len(instance.get_runs()) == 1
            with dg.DagsterInstance.from_config(str(tmp_path / "home")) as again:
                assert again.get_dynamic_partitions("batch") == [batch]

    def _point_to(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        if "://" in url:
            parts = urlsplit(url)
            fields = {"host": parts.hostname, "port": parts.port, "user": parts.username, "dbname": parts.path[1:],
                      "password": parts.password}  # fmt: skip
        else:
            fields = dict(field.split("=", 1) for field in url.split())  # type: ignore[arg-type]
        self.port = fields.get("port")
        monkeypatch.setenv("DAGSTER_PG_HOST", str(fields.get("host") or "127.0.0.1"))
        monkeypatch.setenv("DAGSTER_PG_USERNAME", str(fields.get("user") or "postgres"))
        monkeypatch.setenv("DAGSTER_PG_PASSWORD", str(fields.get("password") or "none"))
        monkeypatch.setenv("DAGSTER_PG_DB", str(fields.get("dbname") or "postgres"))

    def test_the_configuration_of_compute_logs_is_what_their_manager_takes(self) -> None:
        config = read("dagster.yaml")["compute_logs"]
        assert config["class"] == AzureBlobComputeLogManager.__name__
        given = {
            name: os.environ[value["env"]] if isinstance(value, dict) and "env" in value else value
            for name, value in config["config"].items()
        }
        checked = dg._config.process_config(dg.Shape(AzureBlobComputeLogManager.config_type()), given)  # type: ignore[attr-defined]
        assert checked.success, checked.errors


class TestKubernetes:
    def test_only_daemon_and_webserver_reach_the_code_locations_server(self) -> None:
        policy, values = read("kubernetes/networkpolicy.yaml"), read("kubernetes/values.yaml")
        (deployment,) = values["dagster-user-deployments"]["deployments"]
        assert policy["spec"]["podSelector"]["matchLabels"] == {
            "component": "user-deployments", "deployment": deployment["name"]
        }  # fmt: skip
        (rule,) = policy["spec"]["ingress"]
        assert [one["podSelector"]["matchLabels"]["component"] for one in rule["from"]] == [
            "dagster-daemon", "dagster-webserver"
        ]  # fmt: skip
        assert rule["ports"] == [{"protocol": "TCP", "port": deployment["port"]}]
        assert policy["spec"]["policyTypes"] == ["Ingress"]

    def test_a_run_gets_memory_for_its_reading_processes(self) -> None:
        launcher = read("kubernetes/values.yaml")["runLauncher"]
        assert launcher["type"] == "K8sRunLauncher"
        limits = launcher["config"]["k8sRunLauncher"]["resources"]["limits"]
        settings = load(environment={"DICOM_ASSETS_CONFIG": str(DEPLOY / "dicom-assets.example.toml")})
        workers = settings.reading.workers or int(limits["cpu"])
        assert int(limits["memory"].removesuffix("Gi")) * 2**30 >= 2 * workers * settings.reading.worker_memory_bytes

    def test_the_launcher_takes_its_configuration(self) -> None:
        k8s = pytest.importorskip("dagster_k8s", reason="dagster-k8s is not installed: pip install -e '.[deploy]'")
        config = read("kubernetes/values.yaml")["runLauncher"]["config"]["k8sRunLauncher"]
        given = {
            "service_account_name": "dicom-assets",
            "dagster_home": "/opt/dagster/dagster_home",
            "instance_config_map": "dagster-instance",
            "image_pull_policy": config["imagePullPolicy"],
            "labels": config["labels"],
            "resources": config["resources"],
            "fail_pod_on_run_failure": config["failPodOnRunFailure"],
        }
        checked = dg._config.process_config(dg.Shape(k8s.K8sRunLauncher.config_type()), given)  # type: ignore[attr-defined]
        assert checked.success, checked.errors
