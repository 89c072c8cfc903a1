"""Which factories may run: they are code, and who runs a catalog, not who wrote it, decides."""

import re
from collections.abc import Mapping

from lfm_tasks.catalog.names import shorten
from lfm_tasks.config import Settings

# Comma-separated prefixes of modules whose factories may run without --trust-code.
TRUSTED_MODULES = "LFM_ATLAS_TRUSTED_MODULES"
_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*\Z")


class Trust(Settings):
    """``everything``: any factory may run; else those in ``modules``, by their names or below them."""

    everything: bool = False
    modules: tuple[str, ...] = ()

    def covers(self, factory: str) -> bool:
        """Whether ``package.module:callable`` may run.

        Examples
        --------
        >>> Trust(modules=("zoo",)).covers("zoo.models:resnet"), Trust(modules=("zoo",)).covers("zoos:resnet")
        (True, False)
        """
        module = factory.partition(":")[0]
        return self.everything or any(module == prefix or module.startswith(f"{prefix}.") for prefix in self.modules)


def read_trust(environment: Mapping[str, str], everything: bool) -> Trust:
    """Return who is trusted: all, or the modules that the environment names."""
    prefixes = (prefix.strip() for prefix in environment.get(TRUSTED_MODULES, "").split(","))
    return Trust(everything=everything, modules=tuple(prefix for prefix in prefixes if prefix))


def check_factory(name: str) -> str:
    """Return ``name``; ValueError if it does not have the form ``package.module:callable``."""
    if not _FACTORY.match(name):
        raise ValueError(
            f"found the factory {shorten(name)}, needs package.module:callable, as in my_zoo.models:resnet"
        )
    return name
