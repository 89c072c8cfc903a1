"""Errors that all packages share, and the reason codes: why a space or a pair has no value."""

REASONS: dict[str, str] = {
    "missing_source": "the file or array is not there, or may not be read",
    "unknown_layer": "no layer matches the pattern",
    "wrong_shape": "the array is not (points, features), and no pooling was given",
    "wrong_dtype": "the array does not hold real numbers",
    "not_finite": "NaN or infinite values",
    "bad_ids": "ids are missing, repeated, or their number differs from the rows'",
    "bad_inputs": "a text or an image is missing, empty, broken or too large, or a dataset holds no such inputs",
    "unsupported_model": "the model needs what is refused: data outside its folder, custom operators, unnamed inputs",
    "untrusted_code": "a factory, or a checkpoint with its own Python, is code, and you did not allow it to run",
    "bad_factory": "the factory cannot be imported, fails, or gives no network; or PyTorch is not there",
    "bad_weights": "the weights file is no .safetensors file, or does not fit the network",
    "bad_groups": "groups or strata that are not there for every row, or of which none can change places",
    "too_few_points": "fewer points than the neighbors or eigenpairs need",
    "too_many_points": "more points than a measure that holds all pairs of points can take",
    "degenerate": "no more points than features: any two spaces would get this value",
    "constant": "every point has the same activations",
    "constant_rows": "rows whose features are all the same do not correlate with others",
    "saturated": "every permutation of the points has this score, such as with a kernel that is one number everywhere",
    "undefined": "the measure has no number for the two spaces: 0 divided by 0, or beyond the floating-point range",
    "measure_failed": "the measure stopped with an error for this pair",
    "zero_rows": "all-zero rows have no direction, so angular distances do not exist",
    "disconnected": "the graph could not be joined into one piece",
    "localized": "both spaces live on few points, where no closed form of chance holds: it is from permutations",
    "tied": "points whose last neighbor and the next point are equally far: which is one is settled by their ids",
    "joined": "a graph was in pieces that were joined: the lowest eigenvectors tell the pieces apart",
    "rank_deficient": "features depend on each other, and the value on where directions count as none",
    "inaccurate": "a self-check failed: residual, orthonormality, or recall of the neighbors",
    "no_overlap": "the two spaces share no ids",
    "little_overlap": "the two spaces share too few ids for a comparison",
    "failed": "the computation stopped with an unexpected error",
    "few_anchors": "fewer than two known pairs",
    "bad_anchors": "an anchor is repeated, or lies outside its space",
    "bad_name": "a name that could not be the name of a file, or that something else has",
    "one_class": "labels with fewer than two classes, or a class without points",
    "refused_arrival": "discover found a file that cannot be a model: its name, or a link out of its folder",
    "not_asked": "no comparison of the catalog asks for the pair by this measure",
    "too_large": "what the catalog asks to keep takes more bytes than an atlas may hold of it",
    "bad_maps": "two comparisons want maps of one pair from different correspondences",
    "missing_package": "an optional package that the model needs is not installed",
    "no_tower": "a checkpoint of two networks, and the catalog does not say which one runs",
    "no_processor": "a checkpoint without the tokenizer or image processor that prepares its inputs",
    "not_a_function": "a row depends on chance, or on the other rows of its batch: random numbers, dropout, statistics",
    "damaged_source": "a file is damaged, cut off, of another kind, or a placeholder of git-lfs or git-annex",
}

# Of these reasons a score has a value all the same.
RESERVATIONS = frozenset({"degenerate", "rank_deficient", "saturated", "localized", "tied", "joined"})


def one_line(text: str, most: int = 200) -> str:
    """Return the message of a library as one printable line of at most ``most`` characters."""
    return ascii(" ".join(text.split())[:most])[1:-1]


def number_of(count: int, noun: str) -> str:
    """Return a count with its noun, in the singular for one.

    Examples
    --------
    >>> number_of(1, "model"), number_of(0, "space")
    ('1 model', '0 spaces')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


class Stopped(SystemExit):
    """The end of a run by a signal. What runs somebody else's code catches `SystemExit`, but never this."""


class TooLargeError(RuntimeError):
    """A run that would take more memory than its workers may; it ends before any work starts."""


class FolderError(RuntimeError):
    """A folder or file to write holds what lfm-atlas did not put there; nothing is computed or replaced."""


class CorruptUnitError(RuntimeError):
    """A unit of the store is not what was committed, or not what this version reads."""


class DataError(ValueError):
    """A space or pair that cannot have a value.

    Parameters
    ----------
    reason
        One of `REASONS`.
    message
        What was found, what is needed and what to do.
    space
        The key of the space at fault, where a pair has no value for one of its spaces.
    """

    def __init__(self, reason: str, message: str, space: str = "") -> None:
        if reason not in REASONS:
            raise KeyError(reason)
        super().__init__(message)
        self.reason = reason
        self.space = space

    def __reduce__(self) -> tuple[type["DataError"], tuple[str, str, str]]:
        """Keep reason and message when the error travels between processes."""
        return type(self), (self.reason, str(self), self.space)
