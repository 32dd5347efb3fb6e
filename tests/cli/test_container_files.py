"""Dockerfile, compose file, manifests and app.json agree with the Procfiles, the settings and the repository."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from bus.config.variables import variable_schemas
from cli import procfile
from cli.settings import CLI_VARIABLES
from cli.settings_reference import SECTIONS

_ROOT = Path(__file__).resolve().parents[2]
_KUBERNETES = _ROOT / "deploy" / "kubernetes"
_SETTINGS = {name for _, settings_class, _ in SECTIONS for name in variable_schemas(settings_class)} | {
    variable.name for variable in CLI_VARIABLES
}
_LIBPQ_VARIABLES = {"PGSSLMODE"}


def _commands(name: str) -> dict[str, list[str]]:
    return {line.name: list(line.command) for line in procfile.parse((_ROOT / name).read_text())}


def _instructions(keyword: str) -> list[str]:
    text = (_ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.partition(" ")[2] for line in text.splitlines() if line.startswith(f"{keyword} ")]


def _manifests() -> list[dict[str, Any]]:
    names = yaml.safe_load((_KUBERNETES / "kustomization.yaml").read_text())["resources"]
    return [document for name in names for document in yaml.safe_load_all((_KUBERNETES / name).read_text())]


def _pods() -> dict[str, dict[str, Any]]:
    return {
        manifest["metadata"]["name"]: manifest["spec"]["template"]["spec"]
        for manifest in _manifests()
        if manifest["kind"] in ("Deployment", "Job")
    }


def test_the_routed_process_of_the_platforms_procfile_serves_pages_and_tools() -> None:
    routed, split = _commands("Procfile"), _commands("Procfile.split")
    assert routed.pop("web") == ["env", "HOST=0.0.0.0", "python", "-m", "cli", "serve"]
    assert routed == {name: command for name, command in split.items() if name not in ("web", "gateway")}


def test_the_app_description_names_processes_and_settings() -> None:
    app = json.loads((_ROOT / "app.json").read_text())
    assert set(app["formation"]) == set(_commands("Procfile")) - {"release"}
    assert set(app["env"]) <= _SETTINGS | _LIBPQ_VARIABLES


def test_the_image_copies_what_exists_and_what_the_build_context_has() -> None:
    allowed = {line[1:] for line in (_ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for instruction in _instructions("COPY")
        if not instruction.startswith("--from")
        for source in instruction.split()[:-1]
    }
    assert copied == allowed
    assert [name for name in copied if not (_ROOT / name).exists()] == []
    packages = re.search(r"^packages = (\[.*\])$", (_ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert packages
    assert set(json.loads(packages[1])) <= copied


def test_the_image_runs_as_a_user_by_number_and_serves_both() -> None:
    assert _instructions("USER") == ["10001:10001"]
    assert json.loads(_instructions("CMD")[-1]) == _commands("Procfile")["web"][2:]
    environment = dict(pair.split("=", 1) for pair in _instructions("ENV")[0].split())
    assert (environment["HOST"], environment["PORT"]) == ("0.0.0.0", _instructions("EXPOSE")[0])
    (check,) = _instructions("HEALTHCHECK")
    compile(json.loads(check[check.index("[") :])[2], "healthcheck", "exec")


def test_compose_runs_each_process_after_the_migration() -> None:
    services = yaml.safe_load((_ROOT / "compose.yaml").read_text())["services"]
    commands = {name: service["command"] for name, service in services.items() if service.get("image") == "llm-bus"}
    routed = _commands("Procfile")
    assert commands == {
        "migrate": routed["release"],
        "web": routed["web"][2:],
        "worker": routed["worker"],
        "beat": routed["beat"],
    }
    for name in ("web", "worker", "beat"):
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        # The processes do not have the URL of the owner of the schema.
        assert "MIGRATION_DATABASE_URL" not in services[name].get("environment", {})
    for service in services.values():
        if service.get("image") == "llm-bus":
            assert set(service["environment"]) <= _SETTINGS
    assert services["web"]["ports"] == ["127.0.0.1:8787:8787"]


def test_the_manifests_run_each_process_of_the_split_procfile() -> None:
    split = _commands("Procfile.split")
    split["migrate"] = split.pop("release")
    assert {name: pod["containers"][0]["command"] for name, pod in _pods().items()} == split


@pytest.mark.parametrize("name", ["web", "gateway", "worker", "beat", "migrate"])
def test_a_pod_is_restricted_and_has_only_its_secrets(name: str) -> None:
    pod = _pods()[name]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["enableServiceLinks"] is pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    secrets = {source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source}
    assert ("llm-bus-owner" in secrets) is (name == "migrate")


@pytest.mark.parametrize("name", ["web", "gateway"])
def test_a_pod_that_serves_has_probes_with_a_host_that_is_allowed(name: str) -> None:
    (container,) = _pods()[name]["containers"]
    paths = {kind: container[kind]["httpGet"]["path"] for kind in ("livenessProbe", "readinessProbe", "startupProbe")}
    assert paths == {"livenessProbe": "/healthz", "readinessProbe": "/readyz", "startupProbe": "/healthz"}
    assert {header["value"] for kind in paths for header in container[kind]["httpGet"]["httpHeaders"]} == {"localhost"}
    (port,) = container["ports"]
    assert {"name": "PORT", "value": str(port["containerPort"])} in container["env"]


def test_the_settings_of_the_manifests_are_settings() -> None:
    (settings,) = (manifest["data"] for manifest in _manifests() if manifest["kind"] == "ConfigMap")
    assert set(settings) <= _SETTINGS


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed.")
def test_the_manifests_form_a_kustomization() -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", str(_KUBERNETES)], capture_output=True, text=True, check=True, timeout=60
    )
    documents = list(yaml.safe_load_all(built.stdout))
    assert len(documents) == len(_manifests())
    images = {pod["containers"][0]["image"] for pod in _pods().values()}
    assert images == {"llm-bus"}
    assert built.stdout.count("image: registry.example.org/llm-bus:") == len(_pods())


@pytest.mark.exhaustive
def test_the_files_agree_with_the_schemas_of_their_readers() -> None:
    checked = subprocess.run([str(_ROOT / ".ci" / "check-deploy")], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_files_for_editors_and_issues_are_well_formed() -> None:
    hooks = yaml.safe_load((_ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    forms = sorted((_ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    for form in forms:
        content = yaml.safe_load(form.read_text())
        if form.name != "config.yml":
            fields = [field["id"] for field in content["body"] if "id" in field]
            assert len(fields) == len(set(fields))
    assert len(forms) == 3
