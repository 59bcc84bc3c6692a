"""What the user's host runs is what the Makefile has, and what documents point at is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stocks_assets.settings import PROJECT_ROOT

BIN = Path(sys.executable).parent
WORKFLOW = PROJECT_ROOT / ".github" / "workflows" / "ci.yml"
JOBS = yaml.safe_load(WORKFLOW.read_text())["jobs"]
HOOKS = yaml.safe_load((PROJECT_ROOT / ".pre-commit-config.yaml").read_text())["repos"]
MAKEFILE = (PROJECT_ROOT / "Makefile").read_text()
IS_THE_ONE_ASKED_FOR = '.venv/bin/python -V | grep --fixed-strings "Python ${{ matrix.python }}."'
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def recipe(target: str) -> str:
    return re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1]


def commands() -> list[str]:
    return [
        step["run"]
        for job in JOBS.values()
        for step in job["steps"]
        if "run" in step and step["run"] != IS_THE_ONE_ASKED_FOR
    ]


def test_the_workflow_is_what_github_reads():
    schema = ["--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run(
        [BIN / "check-jsonschema", *schema, WORKFLOW], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_command_of_the_workflow_is_a_target_of_make():
    asked = []
    for command in commands():
        words = command.split()
        assert words[0] == "make", command
        asked += words[1:]
    assert set(asked) <= TARGETS
    assert set(asked) >= {"lint", "types", "unit", "integration", "dbt-docs", "image", "audit"}
    # Each does something of its own.
    assert len(set(asked)) == len(asked)


@pytest.mark.parametrize("target", sorted({"test", "demo"} | set(" ".join(commands()).split()[1:])))
def test_make_can_tell_what_a_target_runs(target):
    if target == "make":
        return
    done = subprocess.run(
        ["make", "--dry-run", "--silent", target, f"VENV={BIN.parent}"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_unit_and_integration_tests_run_on_each_python_that_is_supported():
    from packaging.specifiers import SpecifierSet

    text = (PROJECT_ROOT / "pyproject.toml").read_text()
    wanted = SpecifierSet(re.search(r'requires-python = "(.*)"', text)[1])
    supported = [f"3.{minor}" for minor in range(8, 30) if f"3.{minor}.1" in wanted]
    for name in ("quick", "integration"):
        assert JOBS[name]["strategy"]["matrix"]["python"] == supported
        # Make would take the oldest one that it finds by name.
        assert JOBS[name]["steps"][-1]["run"] == IS_THE_ONE_ASKED_FOR
    assert yaml.safe_load(WORKFLOW.read_text())["env"] == {"PYTHON": "python"}


def test_only_jobs_that_install_packages_keep_them_for_the_next_time():
    for job in JOBS.values():
        uses = {step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step}
        runs = " ".join(step.get("run", "") for step in job["steps"])
        # What was to be kept and is not there fails the job at its end.
        assert ("actions/setup-python" in uses) == ("make image" not in runs)


def test_the_workflow_may_only_read_and_ends():
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for job in JOBS.values():
        assert job["timeout-minutes"] <= 90
        used = [step["uses"] for step in job["steps"] if "uses" in step]
        assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in used)
        assert job["steps"][0]["with"] == {"persist-credentials": False}


def test_hooks_run_the_tools_of_the_environment():
    entries = [hook["entry"].split() for repo in HOOKS for hook in repo["hooks"]]
    assert {repo["repo"] for repo in HOOKS} == {"local"}
    for program, *arguments in entries:
        if program == "make":
            assert set(arguments) <= TARGETS
        else:
            assert program.startswith(".venv/bin/")
            assert (BIN / Path(program).name).is_file()
    programs = {Path(program).name for program, *_ in entries}
    # As in `make lint types`, and no other.
    assert programs - {"make", "check-jsonschema"} == set(
        re.findall(r"\$\(BIN\)/(\w+)", recipe("lint") + recipe("types"))
    )


def test_the_hooks_are_what_pre_commit_reads():
    done = subprocess.run(
        [BIN / "pre-commit", "validate-config"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_audit_reads_what_is_locked_and_fails_where_it_cannot():
    audit = recipe("audit").split()
    assert audit[0].endswith("pip-audit")
    assert {"--strict", "--require-hashes", "--disable-pip"} <= set(audit)
    assert audit[-1] == "requirements.lock"


def test_each_test_that_the_security_document_names_is_there():
    text = (PROJECT_ROOT / "SECURITY.md").read_text()
    files = {path.name: path.read_text() for path in (PROJECT_ROOT / "tests").rglob("test_*.py")}
    every = "\n".join(files.values())
    named = re.findall(r"`(?:(test_\w+\.py)(?:::)?)?(test_\w+)?`", text)
    assert sum(bool(file or test) for file, test in named) > 15
    for file, test in named:
        source = files[file] if file else every
        if test:
            assert f"def {test}(" in source, (file, test)
    for path in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (PROJECT_ROOT / path).exists()
