"""What deploy/Dockerfile makes, made without an engine: its steps are run as they stand there.

Paths of the image are below a folder. Not done is what only an engine can: the base image, whose
Python is this one's, and the user, whose number is used all the same.
"""

import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from stocks_assets.settings import PROJECT_ROOT

# Of the container alone: the rest of the file system is this machine's.
_PLACES = re.compile(r"(?<![\w./])/(app|var/lib/stocks)\b")
# What root alone may do.
_OWNER = re.compile(r" --owner=\d+| --group=\d+|^chown .*")


@dataclass
class Image:
    """The file system and the environment of the last stage."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    user: int = 0

    @property
    def is_open_to_all(self) -> bool:
        """Whether its Python is where other users than this one can run it."""
        return is_open_to_all(self.path("/app/.venv/bin/python").resolve())

    def path(self, inside: str) -> Path:
        return Path(self.place(inside))

    def place(self, text: str) -> str:
        """Return `text` with the image's places as they are here."""
        return _PLACES.sub(lambda found: f"{self.root}/{found[1]}", text)


def build(folder: Path) -> Image:
    """Run the steps of deploy/Dockerfile; the last stage is in `folder`/image."""
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(_base_python())
    image = Image(folder / "image")
    stages: dict[str, Path] = {}
    name, workdir = "", Path()
    for instruction, text in _instructions((PROJECT_ROOT / "deploy" / "Dockerfile").read_text()):
        match instruction:
            case "FROM":
                # One path for all stages, as in an image: what is installed has it written inside.
                if name:
                    image.root.rename(stages.setdefault(name, folder / f"stage-{name}"))
                name = text.partition(" AS ")[2]
                image = Image(image.root, {"PATH": f"{python.parent}:{os.environ['PATH']}"})
                workdir = image.root
                image.path("/var/lib/stocks").parent.mkdir(parents=True)
            case "WORKDIR":
                workdir = image.path(text)
                workdir.mkdir(parents=True, exist_ok=True)
            case "ENV":
                for variable, value in re.findall(r"(\w+)=(\S+)", text):
                    path = value.replace("$PATH", image.environment["PATH"])
                    image.environment[variable] = image.place(path)
            case "COPY":
                _copy(text, image, workdir, stages)
            case "RUN" if text.startswith("useradd"):
                pass
            case "RUN":
                _run(text, image, workdir)
            case "USER":
                image.user = int(text.partition(":")[0])
            case _:
                assert instruction == "CMD"
    for stage in stages.values():
        shutil.rmtree(stage)
    return image


def is_open_to_all(path: Path) -> bool:
    """Tell whether every user may run what is at `path`."""
    return all(one.stat().st_mode & stat.S_IXOTH for one in (path, *path.parents))


def _base_python() -> Path:
    """Return a Python for the base image: one that any user may run, if this one is not."""
    own = Path(sys._base_executable).resolve()
    if is_open_to_all(own):
        return own
    for name in ("python3.12", "python3.11", "python3.13"):
        found = shutil.which(name, path="/usr/local/bin:/usr/bin")
        has_venv = [found, "-c", "import ensurepip, venv"]
        if found and subprocess.run(has_venv, capture_output=True, check=False).returncode == 0:
            return Path(found).resolve()
    return own


def _instructions(text: str) -> list[tuple[str, str]]:
    whole = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", whole).splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines if line.strip()]


def _copy(text: str, image: Image, workdir: Path, stages: dict[str, Path]) -> None:
    words = text.split()
    options = dict(word[2:].split("=") for word in words if word.startswith("--"))
    *sources, target = (word for word in words if not word.startswith("--"))
    destination = image.path(target) if target.startswith("/") else workdir / target
    for source in sources:
        if "from" in options:
            found = stages[options["from"]] / source.lstrip("/")
            onto = destination
        else:
            found = PROJECT_ROOT / source
            onto = destination / source if len(sources) > 1 else destination
        # As engines do it: a folder that is there already gets what is copied and stays whose it is.
        kept = {onto} if onto.is_dir() else set()
        if found.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "target", "logs")
            shutil.copytree(
                found,
                onto,
                symlinks=True,
                ignore=None if "from" in options else ignore,
                dirs_exist_ok=True,
            )
        else:
            shutil.copy(found, onto if onto.name == found.name else onto / found.name)
        if "chown" in options and os.geteuid() == 0:
            uid, gid = map(int, options["chown"].split(":"))
            for path in {onto, *onto.rglob("*")} - kept:
                os.chown(path, uid, gid)


def _run(text: str, image: Image, workdir: Path) -> None:
    command = image.place(text)
    if os.geteuid() != 0:
        command = _OWNER.sub("", command)
    # How packages are reached from here, but nothing of this environment.
    foreign = ("VIRTUAL_ENV", "PYTHON", "STOCKS_", "DAGSTER_", "DBT_", "AWS_", "PG")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    # What this machine has downloaded already need not come again.
    own = {
        k: v for k, v in image.environment.items() if k not in ("UV_NO_CACHE", "PIP_NO_CACHE_DIR")
    }
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=workdir,
        env=kept | own,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
