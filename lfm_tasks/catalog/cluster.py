"""The section ``cluster``: which workers compute. It changes no result and holds no secret.

Libraries read passwords and tokens from the environment; certificates are named by their paths.

A new kind of cluster is a class of settings with a literal ``type``, named in `ClusterConfig`. The module of its name
in `lfm_tasks.workers.clusters` opens it (its library is a row of `LIBRARIES` in ``opening.py``); a row of
`lfm_tasks.planning.MORE_MEMORY` says how its workers get more memory.
"""

from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from lfm_tasks.catalog.names import check_visible
from lfm_tasks.config import FROM_ENVIRONMENT, PathText, PlainText, Settings

# What stands in a job script or a manifest: no blanks, no quotes, no line ends.
_Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/@+-]{0,255}$")]
_Path = Annotated[PathText, Field(min_length=1, max_length=4096), AfterValidator(check_visible)]
# Which one of the places of this kind, on whose machines a run works: it differs from site to site.
_Place = Annotated[_Word, FROM_ENVIRONMENT, AfterValidator(str)]
_Bytes = Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?[KMGT]?i?B$")]
_Directive = Annotated[str, Field(pattern=r"^--?[A-Za-z][A-Za-z-]*([ =][A-Za-z0-9_.,:/@%+=\[\]-]+)?$")]
_SCHEMES = ("tcp", "tls")


def check_scheduler(text: str) -> str:
    """Return the address of a scheduler, or the path of its scheduler file; ValueError if it is neither."""
    if "://" not in text:
        return check_visible(text)
    scheme, port = urlsplit(text).scheme, _port(text)
    if scheme not in _SCHEMES or port is None:
        raise ValueError(f"got {_without_access(text)!r}, expected tcp:// or tls://host:port, or a scheduler file")
    return _no_access(text)


def _no_access(text: str) -> str:
    if "@" in urlsplit(text).netloc:
        raise ValueError(
            f"got a user or password in {_without_access(text)!r}, expected none. Leave it to the environment"
        )
    return check_visible(text)


def _check_web_address(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError(f"got {_without_access(text)!r}, expected an address such as https://gateway.example.org")
    return _no_access(text)


def _port(address: str) -> int | None:
    try:
        return urlsplit(address).port
    except ValueError:
        return None


def _without_access(text: str) -> str:
    """Return the part of an address that a message may show: without user and password."""
    scheme, _, rest = text.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"[:200]


class LocalCluster(Settings):
    """Processes on this machine, on loopback; the default."""

    type: Literal["local"] = "local"
    n_workers: Annotated[int, FROM_ENVIRONMENT] | None = Field(default=None, ge=1)
    memory_limit: str | None = Field(default=None, pattern=r"^(auto|\d+(\.\d+)? ?[KMGT]?i?B)$")


class Tls(Settings):
    """Certificates as PEM files, relative to the catalog; the others come from the settings of Dask."""

    ca: _Path | None = Field(default=None, description="the authority that signed the scheduler's certificate")
    cert: _Path | None = Field(default=None, description="our certificate, signed by the same")
    key: _Path | None = Field(default=None, description="its key")


class Adapt(Settings):
    """As many workers as there is work for, within bounds."""

    minimum: int = Field(default=1, ge=1)
    maximum: int = Field(ge=1)

    @model_validator(mode="after")
    def _in_order(self) -> "Adapt":
        if self.minimum > self.maximum:
            raise ValueError(f"got minimum {self.minimum} and maximum {self.maximum}, expected them in order")
        return self


class AddressCluster(Settings):
    """A scheduler that runs somewhere already, with workers of one thread each."""

    type: Literal["address"]
    scheduler: Annotated[PlainText, Field(min_length=1, max_length=4096), AfterValidator(check_scheduler)]
    tls: Tls | None = None
    wait_seconds: int = Field(default=300, ge=1, description="how long a run waits for the first worker")


class _Started(Settings):
    """A cluster that a run starts and stops: a fixed number of workers, or ``adapt``."""

    n_workers: Annotated[int, FROM_ENVIRONMENT] | None = Field(default=None, ge=1)
    adapt: Adapt | None = None
    wait_seconds: int = Field(default=3600, ge=1, description="how long a run waits for the first worker")

    @model_validator(mode="after")
    def _one_size(self) -> "_Started":
        if (self.n_workers is None) == (self.adapt is None):
            which = "neither" if self.adapt is None else "both"
            raise ValueError(
                f"got {which} of n_workers and adapt, expected one: n_workers: 8, or adapt: {{maximum: 40}}"
            )
        return self

    @property
    def bounds(self) -> tuple[int, int]:
        """The smallest and the largest number of workers."""
        if self.adapt is not None:
            return self.adapt.minimum, self.adapt.maximum
        assert self.n_workers is not None  # noqa: S101 - the validator above
        return self.n_workers, self.n_workers


class SlurmCluster(_Started):
    """Workers as SLURM jobs (extra ``slurm``); the store lies on a file system that all nodes share."""

    type: Literal["slurm"]
    interface: _Place = Field(description="network card that scheduler and workers listen on, such as ib0")
    partition: _Place | None = None
    account: _Place | None = None
    walltime: Annotated[str, Field(pattern=r"^(\d+-)?\d{1,3}(:\d{2}){1,2}$")] = "01:00:00"
    workers_per_job: int = Field(default=1, ge=1, description="cores of a job: a worker each")
    memory: _Bytes = Field(default="4GiB", description="of a job")
    directives: Annotated[tuple[_Directive, ...], Field(strict=False)] = Field(
        default=(), description="more options of sbatch, such as --exclude=n3"
    )


class KubernetesCluster(_Started):
    """Workers as pods of the Dask operator (extra ``kubernetes``)."""

    type: Literal["kubernetes"]
    image: _Place = Field(description="container image with lfm-atlas in it: deploy/Dockerfile")
    namespace: _Place = "default"
    memory: _Bytes = Field(default="4GiB", description="of a worker")
    volume_claim: _Place | None = Field(default=None, description="claim of the volume that store and sources lie on")
    volume_path: _Place | Annotated[PlainText, Field(pattern=r"^/[A-Za-z0-9_./-]*$")] | None = Field(
        default=None, description="where it is mounted: the same path as where the run is"
    )

    @model_validator(mode="after")
    def _whole_volume(self) -> "KubernetesCluster":
        if (self.volume_claim is None) != (self.volume_path is None):
            raise ValueError("got one of volume_claim and volume_path, expected both or neither")
        return self


class GatewayCluster(_Started):
    """Workers of a Dask Gateway (extra ``gateway``); credentials come from Dask's own settings ``gateway.auth``."""

    type: Literal["gateway"]
    address: Annotated[PlainText, Field(min_length=1, max_length=4096), AfterValidator(_check_web_address)]
    proxy_address: Annotated[PlainText, Field(max_length=4096), AfterValidator(check_scheduler)] | None = None
    options: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="what the Gateway's owner lets one choose, such as worker_memory"
    )


def _tag(value: Any) -> str:
    kind = value.get("type", "local") if isinstance(value, dict) else getattr(value, "type", "local")
    return f"<{kind}>"


ClusterConfig = Annotated[
    Annotated[LocalCluster, Tag("<local>")]
    | Annotated[AddressCluster, Tag("<address>")]
    | Annotated[SlurmCluster, Tag("<slurm>")]
    | Annotated[KubernetesCluster, Tag("<kubernetes>")]
    | Annotated[GatewayCluster, Tag("<gateway>")],
    Discriminator(_tag),
]

# Kind of cluster -> its class, in the order of the union.
KINDS: dict[str, type[Settings]] = {
    get_args(branch)[1].tag.strip("<>"): get_args(branch)[0] for branch in get_args(get_args(ClusterConfig)[0])
}
