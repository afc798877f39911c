"""One job of a batch system; `espnet_layerskip.parallel.jobs` starts it."""

import logging
import sys
from pathlib import Path

from espnet_layerskip.parallel.jobs import run_share

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s: %(message)s")
    run_share(Path(sys.argv[1]), sys.argv[2])
