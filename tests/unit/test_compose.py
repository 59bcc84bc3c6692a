"""docker-compose.yml and the image, as far as they can be judged without an engine."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dotenv import dotenv_values
from pydantic import AliasChoices
from typer.testing import CliRunner

from stocks_assets.cli import app, out
from stocks_assets.domain.bucket_policy import bucket_policy, policy_text
from stocks_assets.errors import SettingsError
from stocks_assets.platform import Checked, Service
from stocks_assets.settings import PROJECT_ROOT, Settings, read_settings
from stocks_assets.stack.compose import SECRETS, write_compose_secrets

FILES = [PROJECT_ROOT / "docker-compose.yml", PROJECT_ROOT / "deploy" / "init.yml"]
COMPOSE = yaml.safe_load(FILES[0].read_text())
SERVICES = COMPOSE["services"]
README = (PROJECT_ROOT / "README.md").read_text()
OURS = {name: one for name, one in SERVICES.items() if one["image"] == "stocks-assets"}
# What the images of others are told by; each is in its image's manual.
OF_IMAGES = {
    "POSTGRES_USER",
    "POSTGRES_DB",
    "POSTGRES_PASSWORD",
    "POSTGRES_INITDB_ARGS",
    "MINIO_ROOT_USER",
    "MINIO_ROOT_PASSWORD",
    "MC_HOST_minio",
    "REDIS_PASSWORD",
    "REDISCLI_AUTH",
}
# What docker-compose.yml itself asks for, beside settings and generated secrets.
OF_COMPOSE = {"BIND_ADDRESS", "POSTGRES_PORT", "MINIO_PORT", "MINIO_CONSOLE_PORT", "LAUNCHER"}
# What containers have of their own, so that nobody sets it.
FIXED = {
    "STOCKS_HOME",
    "STOCKS_READER_ROLE",
    "STOCKS_CELERY_BACKEND_URL",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
}


def names_of_settings() -> set[str]:
    names = set()
    for field in Settings.model_fields.values():
        alias = field.validation_alias
        names.add(alias.choices[0] if isinstance(alias, AliasChoices) else alias)
    return names


def asked_for(text: str) -> set[str]:
    return set(re.findall(r"(?<!\$)\$\{(\w+)", text))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_file_is_what_compose_reads(file):
    schema = ["--builtin-schema", "vendor.compose-spec"]
    program = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run([program, *schema, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_name_in_an_environment_is_known_to_who_gets_it():
    for name, service in SERVICES.items():
        given = set(service.get("environment", {}))
        if name in OURS:
            assert given <= names_of_settings(), name
        elif name.startswith("minio-"):
            assert given <= names_of_settings() | OF_IMAGES, name
        else:
            assert given <= OF_IMAGES, name


def test_each_setting_can_be_made_in_env_unless_containers_have_it_of_their_own():
    work, web = SERVICES["prepare"]["environment"], SERVICES["webserver"]
    given = set(work) | set(web["environment"]) | asked_for(str(web["ports"]))
    assert names_of_settings() - given == FIXED


def test_what_compose_asks_for_is_a_setting_or_generated():
    asked = asked_for(FILES[0].read_text())
    assert asked - names_of_settings() - OF_COMPOSE == set(SECRETS)


def test_workers_of_compose_are_none_of_a_command_on_the_same_machine(monkeypatch, tmp_path):
    """Both read `.env`; a launcher that is celery's needs a broker, which only containers reach."""
    for name in (name for name in os.environ if name.startswith("STOCKS_")):
        monkeypatch.delenv(name)
    text = README.partition("### In containers")[2].partition("\n### ")[0]
    [named] = re.findall(r"with (\w+=celery) in \.env", text)
    assert named.partition("=")[0] in asked_for(FILES[0].read_text())
    (tmp_path / ".env").write_text(f"{named}\n")
    monkeypatch.setenv("STOCKS_ENV_FILE", str(tmp_path / ".env"))
    assert read_settings().launcher == "in_process"


def test_nothing_has_a_password_unless_one_is_generated():
    text = FILES[0].read_text()
    for name in SECRETS:
        assert re.findall(rf"\$\{{{name}(.)", text)
        # `:?` refuses to start; no default and no empty value.
        assert set(re.findall(rf"\$\{{{name}(..)", text)) == {":?"}
    for url in re.findall(r"\w+://\S+:(\S+?)@", text):
        assert url.startswith("${")


def test_every_port_is_bound_to_the_loopback_address():
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 4
    for port in ports:
        assert port.startswith("${BIND_ADDRESS:-127.0.0.1}:")


def test_every_service_that_stays_is_watched_limited_and_started_again():
    staying = {name for name, one in SERVICES.items() if one["restart"] == "unless-stopped"}
    once = SERVICES.keys() - staying
    assert once == {"minio-buckets", "minio-user", "prepare"}
    assert all("healthcheck" in SERVICES[name] for name in staying)
    for service in SERVICES.values():
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
        assert service["networks"] == ["stocks"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert re.search(r":[\w.-]*\d", service["image"]) or service["image"] == "stocks-assets"
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            if other in once:
                assert how["condition"] == "service_completed_successfully"
            else:
                assert how["condition"] == "service_healthy"
                assert "healthcheck" in SERVICES[other]


def test_who_has_work_is_given_time_to_end_it():
    """An engine kills after ten seconds; the web server has nothing that must end."""
    patient = {name for name, one in OURS.items() if "stop_grace_period" in one}
    assert patient == {"code-location", "daemon", "worker"}


def test_a_check_has_more_time_than_a_busy_machine_takes_for_it():
    for one in (one for one in OURS.values() if "healthcheck" in one):
        check = one["healthcheck"]
        assert check["timeout"] == "1m"
        # One after the other, as each is a Python that starts; often only until all is up.
        assert check["interval"] == "2m"
        assert check["start_interval"] == "5s"


def test_what_runs_once_leaves_no_volume_behind():
    """MinIO's image asks for one at /data, which is a new one without a name unless it is named."""
    for name, service in SERVICES.items():
        if "minio" in service["image"]:
            named = [volume.split(":")[1] for volume in service["volumes"]]
            assert "/data" in named + service.get("tmpfs", []), name


def test_a_checkout_that_only_its_owner_may_read_will_do():
    for name, service in SERVICES.items():
        if any(volume.startswith(".") for volume in service.get("volumes", ())):
            # As root, who may read all.
            assert "DAC_OVERRIDE" in service["cap_add"]
            assert name.startswith("minio-")
    [script] = SERVICES["postgres"]["configs"]
    assert script["source"] in COMPOSE["configs"]
    assert script["mode"] == 0o444
    image = (PROJECT_ROOT / "deploy" / "Dockerfile").read_text()
    assert "chmod -R a+rX stocks_assets dbt_project" in image


def test_the_image_gives_no_folder_away_by_copying_onto_it():
    """`COPY --chown` gives away what it makes: a folder that is there already stays root's."""
    last = (PROJECT_ROOT / "deploy" / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    made: list[Path] = []
    for line in re.findall(r"^COPY .*", last, re.MULTILINE):
        target = Path("/app", line.split()[-1])
        assert "--chown" not in line or not any(target.is_relative_to(one) for one in made), line
        made.append(target)
    assert made


def test_only_who_prepares_knows_the_owner_and_the_web_server_knows_nothing_of_the_data():
    knowing = [
        name
        for name, service in SERVICES.items()
        if "POSTGRES_PASSWORD" in asked_for(str(service.get("environment", {})))
    ]
    assert knowing == ["postgres", "prepare"]
    web = asked_for(str(SERVICES["webserver"]["environment"]))
    assert web & set(SECRETS) == {"DAGSTER_PASSWORD", "UI_PASSWORD", "REDIS_PASSWORD"}


def test_each_command_is_one_that_there_is():
    commands = [service["command"].split() for service in OURS.values()]
    assert ["stocks", "prepare", "--close"] in commands
    commands += [one["healthcheck"]["test"][1:] for one in OURS.values() if "healthcheck" in one]
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    for command in commands:
        assert command[0] == "stocks"
        assert command[1] in known
        if command[1] in ("serve", "healthy"):
            assert command[2] in list(Service if command[1] == "serve" else Checked)
        help_text = CliRunner().invoke(app, [command[1], "--help"], env={"COLUMNS": "200"}).output
        for option in (word for word in command if word.startswith("--")):
            assert option in help_text


def test_the_policy_of_minio_is_the_one_that_is_tested(tmp_path):
    folder = PROJECT_ROOT / "deploy" / "minio"
    assert (folder / "policy.json").read_text() == policy_text("stocks-raw", "stocks-curated")
    names = {"STOCKS_BUCKET": "mine", "STOCKS_CURATED_BUCKET": "mine.too"}
    said = subprocess.run(
        ["sh", folder / "prepare.sh", "policy"],
        env={"PATH": os.environ["PATH"], **names},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(said.stdout) == bucket_policy("mine", "mine.too")


# The secrets


def test_secrets_are_generated_for_their_owner_alone_and_never_overwritten(tmp_path):
    file = tmp_path / ".env"
    with out.capture() as told:
        done = CliRunner().invoke(app, ["init", "--file", str(file)])
    assert done.exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    values = dict(re.findall(r"^(\w+)=(.*)$", file.read_text(), re.MULTILINE))
    assert values.keys() == SECRETS.keys()
    assert len(set(values.values())) == len(values)
    assert all(re.fullmatch("[0-9a-f]{40}", value) for value in values.values())
    said = told.get()
    assert f"UI_PASSWORD, REDIS_PASSWORD into {file}" in said
    assert not [value for value in values.values() if value in said]
    before = file.read_text()
    with out.capture() as told:
        done = CliRunner().invoke(app, ["init", "--file", str(file)])
    assert (done.exit_code, file.read_text()) == (0, before)
    assert "Nothing was missing" in told.get()


@pytest.mark.parametrize("end", ["\n", ""])
def test_an_env_of_another_kind_is_given_what_it_lacks_and_loses_nothing(tmp_path, end):
    file = tmp_path / ".env"
    mine = f"STOCKS_SOURCE=sample\n# POSTGRES_PASSWORD=no\nREDIS_PASSWORD=\nexport UI_PASSWORD=mine{end}"
    file.write_text(mine)
    file.chmod(0o644)
    assert write_compose_secrets(file) == [name for name in SECRETS if name != "UI_PASSWORD"]
    assert file.read_text().startswith(mine)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    values = dotenv_values(file)
    assert values.keys() == SECRETS.keys() | {"STOCKS_SOURCE"}
    assert (values["STOCKS_SOURCE"], values["UI_PASSWORD"]) == ("sample", "mine")
    assert all(values.values())
    assert write_compose_secrets(file) == []


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingsError, match="cannot be written: No such file"):
        write_compose_secrets(tmp_path / "nowhere" / ".env")


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root may be given less"
)
def test_who_generates_in_a_container_may_do_so_in_a_file_of_another_user(tmp_path):
    [init] = yaml.safe_load(FILES[1].read_text())["services"].values()
    assert init["cap_drop"] == ["ALL"]
    rights = ",".join(["-all", *(f"+{name.lower()}" for name in init["cap_add"])])
    (tmp_path / ".env").write_text("STOCKS_SOURCE=sample\n")
    os.chown(tmp_path, 12345, 12346)
    os.chown(tmp_path / ".env", 12345, 12346)
    (tmp_path / ".env").chmod(0o644)
    for file in (tmp_path / ".env", tmp_path / "new.env"):
        command = [Path(sys.executable).with_name("stocks"), "init", "--file", file]
        subprocess.run(
            ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}", *command],
            capture_output=True,
            check=True,
        )
        found = file.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (12345, 12346, 0o600)
        assert dotenv_values(file).keys() >= SECRETS.keys()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_what_root_generates_belongs_to_the_owner_of_the_folder(tmp_path):
    os.chown(tmp_path, 12345, 12346)
    write_compose_secrets(tmp_path / ".env")
    found = (tmp_path / ".env").stat()
    assert (found.st_uid, found.st_gid) == (12345, 12346)
