"""Which launcher, queue and executor the settings choose, and what is said where one cannot be."""

import importlib.util
import os
import re
from functools import partial
from types import SimpleNamespace

import dagster as dg
import pytest
import yaml
from dagster._core.launcher import RunLauncher, WorkerStatus
from dagster._core.scheduler import DagsterDaemonScheduler
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._serdes import ConfigurableClassData

from stocks_assets.defs import launch
from stocks_assets.defs.launch import (
    PROCESS_TAG,
    SettingsRunQueue,
    Watch,
    WatchedRunLauncher,
    executor,
)
from stocks_assets.defs.worker import make_worker
from stocks_assets.errors import SettingsError
from stocks_assets.platform import Platform
from stocks_assets.settings import PROJECT_ROOT, Settings, read_settings
from stocks_assets.ui import hosts

BROKER = "redis://:s3cret-of-mine@queue.example.com:6379/0"
NAMED = ConfigurableClassData("stocks_assets.defs.launch", "SettingsRunLauncher", "{}")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("STOCKS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("STOCKS_ENV_FILE", os.devnull)
    return monkeypatch


def launcher():
    return NAMED.rehydrate(as_type=RunLauncher)


@pytest.mark.parametrize("name", ["in_process", "multiprocess"])
def test_a_laptop_starts_a_process_a_run(environment, name):
    environment.setenv("STOCKS_LAUNCHER", name)
    assert type(launcher()) is WatchedRunLauncher
    assert launcher().supports_check_run_worker_health


class Locks:
    """The locks of runs that live."""

    def __init__(self, *living):
        self.runs = set(living)

    def living(self, run_ids):
        return self.runs & set(run_ids)


def test_a_run_is_gone_once_it_has_given_no_sign_of_life_for_a_minute():
    locks, now = Locks("one"), [0.0]
    watched = WatchedRunLauncher(watch=Watch(lambda: locks, lambda: now[0]))

    def looked(run_id, second, **tags):
        now[0] = float(second)
        run = dg.DagsterRun("refresh", run_id, tags={"stocks/process": "host 1 2", **tags})
        return watched.check_run_worker_health(run).status

    assert PROCESS_TAG == "stocks/process"
    # Its start, its life, and a step that follows another.
    assert looked("two", 0) == WorkerStatus.RUNNING
    locks.runs.add("two")
    assert looked("two", 90) == WorkerStatus.RUNNING
    assert looked("one", 90) == WorkerStatus.RUNNING
    locks.runs.clear()
    assert looked("one", 100) == looked("one", 159) == WorkerStatus.RUNNING
    assert looked("one", 160) == WorkerStatus.NOT_FOUND
    # Who started this one is not known.
    unknown = dg.DagsterRun("refresh", "three")
    for second in (200, 400):
        now[0] = float(second)
        assert watched.check_run_worker_health(unknown).status == WorkerStatus.RUNNING


@pytest.mark.parametrize("tag", [GRPC_INFO_TAG, PROCESS_TAG])
def test_beside_workers_runs_of_others_are_gone_with_their_lock(environment, tag):
    environment.setenv("STOCKS_LAUNCHER", "celery")
    environment.setenv("STOCKS_CELERY_BROKER_URL", BROKER)
    locks = Locks("one")
    environment.setattr(launch, "_warehouse", lambda: locks)
    environment.setattr(launch, "Watch", partial(Watch, seconds=0))
    beside = launcher()

    def looked(run_id, **tags):
        return beside.check_run_worker_health(dg.DagsterRun("refresh", run_id, tags=tags)).status

    assert looked("one", **{tag: "x"}) == WorkerStatus.RUNNING
    assert looked("two", **{tag: "x"}) == WorkerStatus.NOT_FOUND
    # Who started this one is not known.
    assert looked("three") == WorkerStatus.RUNNING


def test_a_run_is_lost_once_a_worker_had_it_that_is_gone_and_not_while_it_waits(environment):
    environment.setenv("STOCKS_LAUNCHER", "celery")
    environment.setenv("STOCKS_CELERY_BROKER_URL", BROKER)
    held, now = set(), [0.0]
    locks = SimpleNamespace(held=held.intersection, living=lambda _: set())
    environment.setattr(launch, "_warehouse", lambda: locks)
    environment.setattr(launch, "Watch", partial(Watch, clock=lambda: now[0]))
    celerys = launcher()
    states = {"waits": "PENDING", "taken": "STARTED", "died": "FAILURE"}
    celerys.celery.AsyncResult = lambda task_id: SimpleNamespace(state=states[task_id])
    held.add(launch.held_by_worker("at work"))

    def lost(run_id, **tags):
        return celerys.is_lost(dg.DagsterRun("refresh", run_id, tags=tags))

    def of(task):
        return {"dagster-celery/task_id": task}

    for second in (0, 9, 10):
        now[0] = float(second)
        assert not lost("queued")
        assert not lost("waits", **of("waits"))
        assert not lost("at work", **of("taken"))
        assert lost("taken", **of("taken")) == lost("died", **of("died")) == (second == 10)


def test_steps_are_processes_only_where_that_is_asked_for():
    assert executor("multiprocess") is dg.multiprocess_executor
    for name in ("in_process", "celery", "kubernetes"):
        assert executor(name) is dg.in_process_executor


def test_workers_and_who_launches_runs_meet_at_the_broker(environment):
    environment.setenv("STOCKS_LAUNCHER", "celery")
    environment.setenv("STOCKS_CELERY_BROKER_URL", BROKER)
    settings = read_settings()
    launching, worker = launcher().celery, make_worker(settings)
    for app in (launching, worker):
        assert app.conf.broker_url == app.conf.result_backend == BROKER
        assert app.conf.task_default_queue == "dagster"
        assert app.conf.worker_disable_prefetch
    assert "execute_job" in worker.tasks
    environment.setenv("STOCKS_CELERY_BACKEND_URL", "redis://other.example.com/1")
    assert launcher().celery.conf.result_backend == "redis://other.example.com/1"


def test_celery_without_a_broker_is_refused(environment):
    environment.setenv("STOCKS_LAUNCHER", "celery")
    with pytest.raises(SettingsError, match="needs STOCKS_CELERY_BROKER_URL"):
        read_settings()
    with pytest.raises(SettingsError, match="a worker needs STOCKS_CELERY_BROKER_URL"):
        make_worker(Settings(_env_file=None, STOCKS_LAUNCHER="in_process"))


def test_a_broker_that_is_no_redis_is_refused_and_stays_secret(environment):
    environment.setenv("STOCKS_CELERY_BROKER_URL", "amqp://me:s3cret-of-mine@host")
    with pytest.raises(SettingsError, match="STOCKS_CELERY_BROKER_URL cannot be used") as refused:
        read_settings()
    assert "s3cret" not in str(refused.value)


def test_kubernetes_is_left_to_the_chart(environment):
    environment.setenv("STOCKS_LAUNCHER", "kubernetes")
    with pytest.raises(SettingsError, match="Helm chart"):
        launcher()


def test_the_queue_lets_as_many_runs_go_as_are_set(environment):
    named = ConfigurableClassData("stocks_assets.defs.launch", "SettingsRunQueue", "{}")
    assert named.rehydrate(as_type=SettingsRunQueue).get_run_queue_config().max_concurrent_runs == 2
    environment.setenv("STOCKS_RUNS_AT_ONCE", "9")
    assert named.rehydrate(as_type=SettingsRunQueue).get_run_queue_config().max_concurrent_runs == 9


def test_the_chart_is_given_settings_that_exist():
    values = yaml.safe_load((PROJECT_ROOT / "deploy/kubernetes/values.yaml").read_text())
    [deployment] = values["dagster-user-deployments"]["deployments"]
    web = values["dagsterWebserver"]
    daemon = values["dagsterDaemon"]
    names = {entry["name"] for entry in [*deployment["env"], *web["env"], *daemon["env"]]}
    known = set()
    for field in Settings.model_fields.values():
        alias = field.validation_alias
        known.update([alias] if isinstance(alias, str) else alias.choices)
    assert {name for name in names if name.startswith("STOCKS_")} <= known
    assert deployment["includeConfigInLaunchedRuns"] == {"enabled": True}
    assert "stocks_assets.definitions" in deployment["dagsterApiGrpcArgs"]
    assert values["runLauncher"]["type"] == "K8sRunLauncher"


def test_a_tick_that_fails_is_tried_again_whoever_writes_dagster_yaml(tmp_path, environment):
    environment.setenv("STOCKS_HOME", str(tmp_path))
    Platform.from_settings()._write_dagster_yaml(None)
    named = yaml.safe_load((tmp_path / "dagster/dagster.yaml").read_text())["scheduler"]
    text = yaml.safe_dump(named["config"])
    scheduler = ConfigurableClassData(named["module"], named["class"], text).rehydrate(
        as_type=DagsterDaemonScheduler
    )
    values = yaml.safe_load((PROJECT_ROOT / "deploy/kubernetes/values.yaml").read_text())
    chart = values["scheduler"]["config"]["daemonScheduler"]
    assert scheduler.max_tick_retries == chart["maxTickRetries"] == 3


def test_pods_know_roles_that_may_less_than_the_owner_and_the_ui_has_a_password():
    guide = (PROJECT_ROOT / "docs/kubernetes.md").read_text()
    values = yaml.safe_load((PROJECT_ROOT / "deploy/kubernetes/values.yaml").read_text())
    secrets = {
        name: set(re.findall(r"--from-literal=(\w+)=", told))
        for name, told in re.findall(r"create secret generic (\S+) ((?:.*\\\n)*.*)", guide)
    }
    [deployment] = values["dagster-user-deployments"]["deployments"]
    web = values["dagsterWebserver"]
    assert [one["name"] for one in deployment["envSecrets"]] == ["stocks-settings"]
    assert "STOCKS_DATABASE_URL" not in secrets["stocks-settings"]
    assert secrets["stocks-settings"] >= {
        f"STOCKS_{role}_DATABASE_URL" for role in ("LOADER", "TRANSFORMER", "DAGSTER")
    }
    assert [one["name"] for one in web["envSecrets"]] == ["stocks-ui"]
    assert secrets["stocks-ui"] == {"STOCKS_UI_PASSWORD"}
    # The chart starts `dagster-webserver`, which is the one behind the door in this image.
    assert web["image"] == deployment["image"] == values["dagsterDaemon"]["image"]
    made = re.search(r"for of in (.*); do", guide)[1].split()
    assert made == ["webserver", "daemon"]
    assert all(importlib.util.find_spec(f"stocks_assets.defs.{name}") for name in made)
    asked = web["readinessProbe"]["httpGet"]
    assert {entry["name"]: entry["value"] for entry in asked["httpHeaders"]}["Host"] in hosts(
        read_settings()
    )
