#!/usr/bin/env bash
# Builds a virtual environment with this checkout (editable) and its test tools in it:
#   tools/make_venv.sh VENV PYTHON
# Run again after a failure, it goes on in the same environment.
set -e -u -o pipefail

log() { echo "[setup] $(date '+%H:%M:%S') $*"; }
die() { echo "[setup] error: $*" >&2; exit 1; }

if [ $# -ne 2 ]; then
    die "usage: $0 VENV PYTHON"
fi
venv=$1
python=$2
cd "$(dirname "$0")/.."

describe() { "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null; }

version=$(describe "${python}") || die "'${python}' does not run as a Python; give another one: make setup PYTHON=/path/to/python3.11"
case ${version} in
    3.11.*|3.12.*|3.13.*) ;;
    *) die "'${python}' is Python ${version}; needed is 3.11 (ESPnet 202511), 3.12 or 3.13 (ESPnet 202611): make setup PYTHON=/path/to/python3.11" ;;
esac

have_uv=false
if uv --version >/dev/null 2>&1; then
    have_uv=true
fi

# An environment whose Python is gone or of another version cannot be gone on with.
if [ -e "${venv}" ]; then
    found=$(describe "${venv}/bin/python" || true)
    if [ "${found%.*}" != "${version%.*}" ]; then
        [ -e "${venv}/pyvenv.cfg" ] || die "${venv} is there and is not a virtual environment; move it away, or choose another: make setup VENV=.venv2"
        log "removing ${venv} (its Python is '${found:-gone}', wanted ${version})"
        rm -rf -- "${venv}"
    fi
fi

log "1/3 environment: ${python} (Python ${version}) -> ${venv}"
if [ ! -e "${venv}/bin/python" ]; then
    if ${have_uv}; then
        uv venv --quiet --python "${python}" "${venv}"
    else
        "${python}" -m venv "${venv}"
    fi
fi

# setuptools' notes go into the environment, not into the checkout: two environments can be built at once.
mkdir -p "${venv}/egg-info"
DIST_EXTRA_CONFIG=$(cd "${venv}" && pwd)/distutils.cfg
export DIST_EXTRA_CONFIG
printf '[egg_info]\negg_base = %s\n' "${DIST_EXTRA_CONFIG%/*}/egg-info" > "${DIST_EXTRA_CONFIG}"

log "2/3 packages: ESPnet, torch, matplotlib, test tools; about 6 GB: 1 to 5 minutes the first time"
if ${have_uv}; then
    uv pip install --python "${venv}/bin/python" --editable ".[dask,dev,espeak,figures]"
else
    # 23.2: reads metadata without fetching whole wheels. pip 26.3 refuses ci_sdr, on which ESPnet
    # 202511 depends, because an unused extra of it names a URL; can go with ESPnet 202511.
    "${venv}/bin/python" -m pip install "pip>=23.2,<26.3"
    "${venv}/bin/python" -m pip install --editable ".[dask,dev,espeak,figures]"
fi

log "3/3 check: torch, torchaudio and ESPnet can be imported"
# ESPnet's imports warn at length about optional parts: shown only where the check fails.
if ! report=$("${venv}/bin/python" - 2>&1 <<'PYTHON'
import sys
from importlib.metadata import version

import torch

try:
    import torchaudio
except OSError as error:
    sys.exit(
        f"torch {torch.__version__} cannot load torchaudio: {error}\n"
        "PyPI's torchaudio needs PyPI's own (CUDA) build of torch, which also runs without a GPU. "
        "A CPU-only torch was installed: look for find-links or index settings of pip or uv "
        "(pip config list) that offer it."
    )
import espnet2.tasks.asr

print(
    f"[setup] Python {sys.version.split()[0]}, espnet {version('espnet')}, "
    f"torch {torch.__version__}, torchaudio {torchaudio.__version__}"
)
PYTHON
)
then
    echo "${report}" >&2
    die "${venv} was built but does not work (see above)"
fi
echo "${report}" | grep '^\[setup\]'
