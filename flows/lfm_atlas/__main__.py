"""``python -m lfm_atlas``: the command line, for where the script ``lfm-atlas`` is not on the path."""

import sys

# Python puts the working directory first for ``-m``; with -P or PYTHONSAFEPATH it does not.
if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]

from lfm_atlas.cli.main import main

# Worker processes import the program of their run before anything else, which keeps them from reading what is not
# theirs (see ``lfm_atlas.cli``); one that was started by ``-m``, which its specification says, they leave out.
__spec__ = None

if __name__ == "__main__":
    main()
