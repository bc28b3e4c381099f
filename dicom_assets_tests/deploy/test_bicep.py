"""`deploy/azure/*.bicep`: their grammar, what they name, and what the containers run. No compiler, no Azure."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
import yaml
from dagster._core.instance.config import dagster_instance_config
from tree_sitter import Language, Node, Parser
from tree_sitter_bicep import language

from dicom_assets.cli.main import app

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = sorted((DEPLOY / "azure").glob("*.bicep"))
APPS = (DEPLOY / "azure" / "containerapps.bicep").read_text(encoding="utf-8")


def faults(node: Node) -> list[str]:
    """Where the grammar does not hold, as line:column."""
    here = [f"{node.start_point[0] + 1}:{node.start_point[1] + 1}"] if node.is_error or node.is_missing else []
    return here + [fault for child in node.children for fault in faults(child)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
class TestEachFile:
    def test_it_keeps_to_the_grammar(self, path: Path) -> None:
        assert faults(Parser(Language(language())).parse(path.read_bytes()).root_node) == []

    def test_its_parameters_stand_in_it_and_what_has_no_default_is_given(self, path: Path) -> None:
        declared = dict(re.findall(r"^param (\w+) \w+( =)?", path.read_text(encoding="utf-8"), re.MULTILINE))
        given = set(re.findall(r"^param (\w+) =", path.with_suffix(".bicepparam").read_text("utf-8"), re.MULTILINE))
        assert given <= set(declared)
        assert {name for name, default in declared.items() if not default} <= given

    @pytest.mark.skipif(shutil.which("bicep") is None, reason="no Bicep compiler at hand: not compiled here")
    def test_it_compiles(self, path: Path, tmp_path: Path) -> None:
        subprocess.run(["bicep", "build", str(path), "--outfile", str(tmp_path / "arm.json")], check=True)


def test_the_grammar_finds_what_is_wrong() -> None:
    broken = APPS.replace("var signsIn =", "var signsIn", 1).encode()
    assert faults(Parser(Language(language())).parse(broken).root_node)


class TestContainers:
    def variable(self, name: str) -> str:
        found = re.search(rf"^var {name} = '(.*)'$", APPS, re.MULTILINE)
        assert found is not None
        return found[1]

    def test_dagster_runs_as_many_batches_at_a_time_as_asked_for_and_finds_its_code(self, tmp_path: Path) -> None:
        for name in ("dagster.yaml", "workspace.yaml"):
            shutil.copy(DEPLOY / name, tmp_path)
        commands = [self.variable("toLocalhost"), self.variable("toConcurrency").replace("${jobConcurrency}", "7")]
        subprocess.run(["sh", "-c", " && ".join(commands)], cwd=tmp_path, check=True)
        config, _ = dagster_instance_config(str(tmp_path))
        assert config["concurrency"]["runs"]["max_concurrent_runs"] == 7
        (server,) = yaml.safe_load((tmp_path / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
        assert server["grpc_server"]["host"] == "localhost"

    def test_every_variable_that_dagster_reads_is_given_to_its_containers(self) -> None:
        wanted = set(re.findall(r"\{env: (\w+)\}", (DEPLOY / "dagster.yaml").read_text(encoding="utf-8")))
        given = set(re.findall(r"name: '([A-Z_]+)'", APPS))
        assert wanted <= given
        assert {"DICOM_ASSETS_TOKEN", "DICOM_ASSETS_AUDIT_KEY", "AZURE_CLIENT_ID"} <= given

    def test_the_command_of_the_server_is_one_that_we_have(self) -> None:
        found = re.search(r"command: \['dicom-assets', 'serve', (.*?)\]", APPS)
        assert found is not None
        options = re.findall(r"'(--[a-z]+)', '([^']+)'", found[1])
        serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
        assert {name for name, _ in options} <= {one for parameter in serve.params for one in parameter.opts}
        assert dict(options)["--port"] == re.search(r"targetPort: (8\d+)", APPS)[1]  # type: ignore[index]

    def test_no_secret_has_a_default_and_dagster_is_open_to_nobody_without_a_sign_in(self) -> None:
        secure = re.findall(r"@secure\(\)\n(?:@.*\n)*param (\w+) string(.*)", APPS)
        assert {name for name, _ in secure} == {
            "signInClientSecret", "postgresPassword", "dicomwebToken", "auditKey"
        }  # fmt: skip
        assert {default for _, default in secure} == {"", " = ''"}
        assert re.findall(r"external: (\w+)", APPS) == ["signsIn", "dicomwebExternal"]
