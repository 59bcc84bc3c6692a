"""The passwords and keys of docker-compose.yml, which has none of its own."""

import os
import secrets
from pathlib import Path

from stocks_assets.errors import SettingsError

# What each is for; every value is safe in a URL, in YAML and in a shell as it is.
SECRETS = {
    "POSTGRES_PASSWORD": "owner of the warehouse, for `stocks prepare` alone",
    "LOADER_PASSWORD": "writes bronze's index, silver and the books",
    "TRANSFORMER_PASSWORD": "makes gold",
    "DAGSTER_PASSWORD": "keeps Dagster's own database",
    "READER_PASSWORD": "analysts, who read gold and silver",
    "MINIO_ROOT_PASSWORD": "administrator of MinIO, called stocks-root",
    "PIPELINE_SECRET_KEY": "the pipeline in MinIO, called stocks-pipeline",
    "UI_PASSWORD": "the UI, for the user stocks",
    "REDIS_PASSWORD": "the queue of the workers",
}


def write_compose_secrets(path: Path) -> None:
    """Generate all of them into a new file that its owner alone may read.

    Made by root, as in a container, it goes to the owner of the folder.

    Raises:
        SettingsError: the file is there already, or cannot be made.
    """
    lines = [
        "# Written by `stocks init` for docker-compose.yml, and known to nobody else.",
        "# Settings, as in .env.example, may follow: compose hands them on.",
    ]
    for name, purpose in SECRETS.items():
        lines += [f"# {purpose}", f"{name}={secrets.token_hex(20)}"]
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            if os.geteuid() == 0:
                folder = path.parent.stat()
                os.fchown(handle, folder.st_uid, folder.st_gid)
            file.write("\n".join(lines) + "\n")
    except FileExistsError:
        missing = [name for name in SECRETS if f"\n{name}=" not in f"\n{path.read_text()}"]
        lacks = f"; it has no {', no '.join(missing)}: add what is missing" if missing else ""
        raise SettingsError(
            f"'{path}' is there already and is left as it is{lacks}. To have all passwords anew, "
            "move it away, but servers that were started with the old ones keep those"
        ) from None
    except OSError as error:
        raise SettingsError(f"'{path}' cannot be made: {error.strerror}") from None
