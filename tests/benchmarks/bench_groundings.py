"""Which score to trust: every measure against what is known of networks that are trained here.

Claims: no measure is best everywhere; a mean of diffusion overlap and others, chosen on half of the networks, stands in
docs/which_score.md with its rank on the other half, and every loss.

``python tests/benchmarks/bench_groundings.py IMAGES SENTENCES FOLDER``: trains what `grounding_zoos` says, then runs
``lfm-atlas reproduce FOLDER/data_catalog.yaml --experiment groundings`` into FOLDER/evidence.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.grounding_zoos import write_zoo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("images", "sentences", "folder"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    catalog = write_zoo(options.images, options.sentences, options.folder)
    output = ["--output", str(options.folder / "evidence")]
    command = [sys.executable, "-m", "lfm_atlas", "reproduce", str(catalog), "--experiment", "groundings", *output]
    sys.exit(subprocess.run([*command, "--no-prefect"], check=False).returncode)


if __name__ == "__main__":
    main()
