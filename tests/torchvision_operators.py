"""Lets torchvision be imported beside a torch that its compiled half does not fit; only tests of checkpoints need that.

Wheels of torchvision from PyPI are built for CUDA. Beside the CPU wheel of torch their compiled operators do not load,
and ``import torchvision`` stops at two of them, which detect objects: nothing here calls these. Users install the
torchvision of their torch.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

_SHIMS = str(Path(__file__).parent / "shims")


def define_missing_operators() -> None:
    """Put a torchvision that can be imported before the installed one, here and in processes that are started."""
    if find_spec("torchvision") is None or find_spec("torch") is None:
        return
    try:
        import torchvision
    except RuntimeError as error:
        if "does not exist" not in str(error):
            raise
    else:
        assert torchvision.__version__
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    sys.path.insert(0, _SHIMS)
    os.environ["PYTHONPATH"] = os.pathsep.join([_SHIMS, *filter(None, [os.environ.get("PYTHONPATH")])])
    import torchvision
