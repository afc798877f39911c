# shellcheck shell=bash
# Sourced: finds Python and this package, whether it is installed or only checked out.
MAIN_ROOT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../.." && pwd)

# The environment that "make setup" builds, unless another one is active.
if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "${MAIN_ROOT}/.venv/bin/python3" ]; then
    export PATH="${MAIN_ROOT}/.venv/bin:${PATH}"
fi
case ${python:-} in  # of a path that is not absolute the scripts look from elsewhere, too
    /*) ;;
    */*) python=$(cd "$(dirname "${python}")" && pwd)/$(basename "${python}") ;;
esac
if ! (cd / && "${python:-python3}" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("espnet_layerskip") is None)'); then
    export PYTHONPATH="${MAIN_ROOT}${PYTHONPATH:+:${PYTHONPATH}}"
fi

export LC_ALL=C
export PYTHONIOENCODING=UTF-8
# Parallel jobs with many threads each are slower than with one; training on a CPU uses them all.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
