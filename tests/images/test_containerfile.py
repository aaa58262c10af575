"""What the Containerfile and its builds promise, as far as reading them tells."""

import re
import tomllib

import yaml
from penstock.manifests import callout

from tests.images.containerfile import ROOT, included, parse

TEXT = (ROOT / "Containerfile").read_text()
FILE = parse(TEXT)
IMAGE = FILE.stages[-1]


def test_no_shell_is_needed() -> None:
    for stage in FILE.stages:
        for name in ("RUN", "CMD", "ENTRYPOINT"):
            for each in stage.all(name):
                assert isinstance(each.words, list)
    assert not IMAGE.all("RUN"), "the last stage has no shell, and nothing to run"
    assert not IMAGE.all("HEALTHCHECK"), "the orchestrator probes over gRPC"


def test_it_runs_as_the_user_of_the_manifests() -> None:
    assert IMAGE.last("USER").text == f"{callout.USER}:{callout.USER}"
    assert IMAGE.last("ENTRYPOINT").words == [], "manifests name the whole command"
    assert IMAGE.last("CMD").words[:2] == ["python", "-m"]


def test_both_bases_have_the_same_python_and_may_be_named_by_digest() -> None:
    assert set(FILE.arguments) == {"BUILD_IMAGE", "RUNTIME_IMAGE"}
    assert re.search(r"python:3\.13-.*trixie", FILE.arguments["BUILD_IMAGE"])
    assert "python3-debian13" in FILE.arguments["RUNTIME_IMAGE"], "Debian 13 has Python 3.13"
    assert [line for line in TEXT.splitlines() if line.startswith("FROM")] == [
        "FROM ${BUILD_IMAGE} AS build",
        "FROM ${RUNTIME_IMAGE}",
    ]


def test_the_context_is_what_is_copied_and_nothing_else() -> None:
    copied = {each.text.split()[0] for each in FILE.stages[0].all("COPY")}
    assert copied == {"services", "constraints.txt"}
    found = {str(path.relative_to(ROOT)) for path in included(ROOT)}
    assert {"constraints.txt", "services/pyproject.toml", "services/picker/__main__.py"} <= found
    assert not [
        path for path in found if "__pycache__" in path or not path.startswith(("services/", "constraints.txt"))
    ]


def test_services_need_neither_pulumi_nor_envoy_and_are_pinned() -> None:
    project = tomllib.loads((ROOT / "services" / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[^a-z0-9-]", each, maxsplit=1)[0] for each in project["dependencies"]}
    assert not [name for name in names if "pulumi" in name or "envoy" in name or "penstock" in name]
    pinned = {
        line.partition("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()
    }
    assert names <= pinned


def test_cloud_build_builds_what_it_pushes_and_prints_the_digest() -> None:
    build = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())
    args = {step["id"]: step["args"] for step in build["steps"]}
    (image,) = build["images"]
    assert f"--tag={image}" in args["build"]
    assert args["push"][-1] == args["digest"][-1] == image
    given = {arg.split("=")[1] for arg in args["build"] if arg.startswith("--build-arg")}
    assert given == {*FILE.arguments, *(each.text.partition("=")[0] for each in IMAGE.all("ARG"))}
    for name, value in FILE.arguments.items():
        assert build["substitutions"][f"_{name}"] == value
    used = set(re.findall(r"\$\{(_\w+)\}", yaml.safe_dump(build)))
    assert used <= set(build["substitutions"])
    assert build["options"]["requestedVerifyOption"] == "VERIFIED"
