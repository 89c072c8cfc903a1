"""``python -m lfm_atlas``: the command line, for where the script ``lfm-atlas`` is not on the path."""

from lfm_atlas.cli.main import main

if __name__ == "__main__":
    main()
