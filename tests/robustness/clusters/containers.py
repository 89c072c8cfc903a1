"""Images by buildah, on a base of debootstrap's, and what a compose file says of its services, done without an engine.

A service runs in mounts and processes of its own, all of them on one loopback that nobody else is on: its image
read-only where the file says so, its tmpfs without rights to execute as Docker's are, its volumes, its user without
capabilities. Names of services lead to that loopback. What is not done: limits of CPU and memory, the published port,
``init`` and restarts.
"""

import ast
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[3]
PROGRAMS = ("buildah", "debootstrap", "unshare", "ip", "setpriv", "chroot", "apt-get")
# What of pip's configuration says where packages are; versions are those of the lock.
_INDEX_SETTINGS = ("index-url", "extra-index-url", "find-links", "no-index", "cert", "client-cert", "proxy")
_INDEX_SETTINGS += ("trusted-host", "default-timeout")
_KEYS = {"image", "build", "init", "restart", "working_dir", "read_only", "tmpfs", "cap_drop", "security_opt"}
_KEYS |= {"networks", "command", "environment", "volumes", "ports", "healthcheck", "depends_on", "deploy"}


@dataclass(frozen=True)
class Image:
    """A built image: where its files lie, and what it says of user, folder and variables."""

    root: Path
    user: str
    folder: str
    variables: Mapping[str, str]


@contextmanager
def built_image(folder: Path, name: str) -> Iterator[Image]:
    """Build ``deploy/Dockerfile`` on a base made here; skip the test where there is no base to be had."""
    base = folder / "base"
    _debootstrap(base)
    buildah = _Buildah(folder)
    try:
        container = buildah("from", "scratch")
        buildah("add", "--quiet", container, str(base), "/")
        buildah("commit", "--quiet", "--rm", container, "base")
        shutil.rmtree(base)
        settings, volumes = _pip_settings()
        (folder / "pip.conf").write_text(settings, encoding="utf-8")
        buildah(
            "bud", "--build-arg", "BASE=localhost/base", "--file", str(ROOT / "deploy" / "Dockerfile"),
            "--ignorefile", str(ROOT / "deploy" / "Dockerfile.dockerignore"),
            "--secret", f"id=pip.conf,src={folder / 'pip.conf'}",
            *(f"--volume={path}:{path}:ro" for path in volumes), "--tag", name, str(ROOT),
        )  # fmt: skip
        config = json.loads(buildah("inspect", "--type", "image", name))["OCIv1"]["config"]
        root = Path(buildah("mount", buildah("from", name)))
        variables = dict(variable.split("=", 1) for variable in config["Env"])
        yield Image(root, config["User"], config["WorkingDir"], variables)
    finally:
        buildah("umount", "--all", check=False)
        buildah("rm", "--all", check=False)
        buildah("rmi", "--all", "--force", check=False)
        shutil.rmtree(base, ignore_errors=True)


class _Buildah:
    """buildah with a storage of its own, by overlay where the kernel allows it."""

    def __init__(self, folder: Path) -> None:
        self._storage = ["--root", str(folder / "storage"), "--runroot", str(folder / "running")]
        self._driver = "overlay"
        if subprocess.run(self._command("info"), capture_output=True, check=False).returncode:
            self._driver = "vfs"

    def __call__(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            self._command(*arguments), capture_output=True, text=True, check=False,
            env=os.environ | {"BUILDAH_ISOLATION": "chroot"},
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout.strip()

    def _command(self, *arguments: str) -> list[str]:
        return ["buildah", *self._storage, "--storage-driver", self._driver, *arguments]


def _debootstrap(base: Path) -> None:
    release = platform.freedesktop_os_release()
    if release["ID"] != "debian":
        pytest.skip(f"not run: a base image is made by debootstrap on Debian, and this is {release['ID']}")
    code = release["VERSION_CODENAME"]
    asked = ["apt-get", "indextargets", "--format", "$(CODENAME) $(LABEL) $(REPO_URI)"]
    places = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    mirrors = [place.split()[2] for place in places if place.startswith(f"{code} Debian ")]
    packages = "--include=python3,python3-venv,ca-certificates"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", packages, code, str(base), *mirrors[:1]],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"not run: debootstrap says {' '.join(made.stdout.splitlines()[-1:])}")


def _pip_settings() -> tuple[str, list[str]]:
    """Return pip's configuration of this machine as a file, and the files and folders of it that the file names."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        if name.rpartition(".")[2] in _INDEX_SETTINGS:
            settings[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    words = [urlsplit(word).path if "://" in word else word for value in settings.values() for word in value.split()]
    # Of an index in a file system its parent: pages of an index lead to files beside it.
    folders = {str(Path(word).parent) if word.endswith("/simple") else word for word in words if word.startswith("/")}
    lines = [" = ".join((name, "\n  ".join(value.split()))) for name, value in settings.items()]
    return "\n".join(["[global]", *lines, ""]), sorted(path for path in folders if Path(path).exists())


@dataclass
class Services:
    """The services of a compose file, on one loopback of their own.

    Attributes
    ----------
    image
        What they all run.
    variables
        What the compose file asks for, as ``${NAME}``.
    folder
        Where logs and volumes lie.
    """

    image: Image
    variables: Mapping[str, str]
    folder: Path
    network: str = field(default_factory=lambda: f"lfm{os.getpid()}")
    running: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list)

    def start(self, name: str) -> None:
        """Start a service, each replica of it; what it prints is in its log."""
        for number in range(self._service(name).get("deploy", {}).get("replicas", 1)):
            with (self.folder / f"{name}-{number}.log").open("wb") as log:
                process = subprocess.Popen(
                    self._command(name, self._service(name)["command"]),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            self.running.append((name, process))

    def run(self, name: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command as a service would run it: in its mounts, with its variables, as its user."""
        done = subprocess.run(self._command(name, command), capture_output=True, text=True, timeout=600, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr + self.logs()
        return done

    def wait_until_healthy(self, name: str, seconds: float = 180) -> None:
        """Return when the health check of a service passes."""
        test = self._service(name)["healthcheck"]["test"]
        assert test[0] == "CMD"
        deadline = time.monotonic() + seconds
        while self.run(name, *test[1:], check=False).returncode:
            self.check_running()
            assert time.monotonic() < deadline, self.logs()
            time.sleep(1)

    def check_running(self) -> None:
        """Assert that no service has ended."""
        ended = [name for name, process in self.running if process.poll() is not None]
        assert not ended, f"{ended} ended\n{self.logs()}"

    def logs(self) -> str:
        """Return what all services printed."""
        return "\n".join(f"--- {path.name}\n{path.read_text('utf-8', 'replace')}" for path in self.folder.glob("*.log"))

    def stop(self) -> None:
        """End all services."""
        for _, process in self.running:
            process.kill()
            process.wait()

    @property
    def _file(self) -> dict[str, Any]:
        text = (ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8")
        text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda name: self.variables[name[1]], text)
        from ruamel.yaml import YAML

        content: dict[str, Any] = YAML(typ="safe").load(text)
        return content

    def _service(self, name: str) -> dict[str, Any]:
        service: dict[str, Any] = self._file["services"][name]
        assert set(service) <= _KEYS, f"{name}: nobody here knows {set(service) - _KEYS}"
        return service

    def _command(self, name: str, command: Sequence[str]) -> list[str]:
        service = self._service(name)
        root = self.image.root
        hosts = self.folder / "hosts"
        names = " ".join(["localhost", *self._file["services"]])
        hosts.write_text(f"127.0.0.1 {names}\n", encoding="ascii")
        mounts = [f"mount --bind {root} {root}"]
        if service.get("read_only"):
            mounts.append(f"mount -o remount,bind,ro {root}")
        mounts += [f"mount --rbind /dev {root}/dev", f"mount -t proc proc {root}/proc"]
        mounts += [f"mount --bind {hosts} {root}/etc/hosts"]
        for place in service.get("tmpfs", []):
            mounts.append(f"mount -t tmpfs -o noexec,nosuid,nodev,mode=1777 tmpfs {root}{place}")
        for volume in service.get("volumes", []):
            source, target, *options = volume.split(":")
            mounts.append(f"mount --bind {self._source(source, target)} {root}{target}")
            mounts += [f"mount -o remount,bind,ro {root}{target}"] if options == ["ro"] else []
        # Kernels of BLAS for another type of CPU, where a variable asks for them, give other last bits.
        kernels = {name: os.environ[name] for name in ("OPENBLAS_CORETYPE",) if name in os.environ}
        variables = {**kernels, **self.image.variables, "HOME": "/home/zoo", **service.get("environment", {})}
        user, _, group = self.image.user.partition(":")
        rights = [f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        rights += ["--bounding-set=-all", "--inh-caps=-all"] if service.get("cap_drop") == ["ALL"] else []
        rights += ["--no-new-privs"] if "no-new-privileges:true" in service.get("security_opt", []) else []
        return [
            "ip", "netns", "exec", self.network,
            "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
            "sh", "-c", f'set -e; {"; ".join(mounts)}; exec "$@"', "sh",
            "chroot", str(root), "/usr/bin/env", "-i", *(f"{key}={value}" for key, value in variables.items()),
            "setpriv", *rights, "sh", "-c", 'cd "$0" && exec "$@"', service.get("working_dir", self.image.folder),
            *command,
        ]  # fmt: skip

    def _source(self, source: str, target: str) -> Path:
        """Return the folder or file of a volume, and make the place where it is mounted, as an engine does."""
        place = Path(f"{self.image.root}{target}")
        if source.startswith((".", "/")):
            path = (ROOT / "deploy" / source).resolve()
            if path.is_file():
                place.touch()
                return path
        else:  # a named volume is the owner's of the folder that it covers, and root's where there is none
            assert source in self._file["volumes"]
            path = self.folder / source
            if not path.is_dir():
                path.mkdir(mode=0o755)
                if place.is_dir():
                    shutil.chown(path, place.stat().st_uid, place.stat().st_gid)
        place.mkdir(exist_ok=True)
        return path


@contextmanager
def services(image: Image, variables: Mapping[str, str], folder: Path) -> Iterator[Services]:
    """Give the services of the compose file, none of them started, on a loopback that nobody else is on."""
    started = Services(image, variables, folder)
    for arguments in (("netns", "add", started.network), ("-n", started.network, "link", "set", "lo", "up")):
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"not run: ip {' '.join(arguments)} says {done.stderr.strip()}")
    try:
        yield started
    finally:
        started.stop()
        subprocess.run(["ip", "netns", "delete", started.network], check=False)
