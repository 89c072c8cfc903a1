"""Similarity atlases of whole model zoos, in Python: ``from lfm_atlas import open_atlas``."""

# ``python -m lfm_atlas`` runs this module while the working directory is on the path: whatever is imported here could
# be a file of a stranger. The names come when somebody asks for them; scipy and xarray take a second each, too.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from lfm_tasks import AtlasError as AtlasError
    from lfm_tasks import __version__ as __version__
    from lfm_tasks import fit_map as fit_map
    from lfm_tasks import open_atlas as open_atlas

__all__ = ["AtlasError", "__version__", "fit_map", "open_atlas"]


def __getattr__(name: str) -> object:
    if name in __all__:
        import lfm_tasks

        return getattr(lfm_tasks, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
