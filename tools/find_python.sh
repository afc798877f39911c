#!/usr/bin/env bash
# Prints the first working Python of the given versions: tools/find_python.sh 3.11 3.12 3.13
#
# A name on PATH is not enough: pyenv puts shims there for versions that are not switched on, and
# they fail when they are called. So each candidate is run and asked for its version.
set -e -u -o pipefail

if [ $# -eq 0 ]; then
    echo "Usage: $0 VERSION...   for example: $0 3.11 3.12" >&2
    exit 2
fi

# Without uv, a virtual environment needs the standard library's venv and ensurepip, which Debian
# packs apart from Python (python3-venv).
needs="import venv, ensurepip"
if uv --version >/dev/null 2>&1; then
    needs="pass"
fi

real_path() {  # real_path <python> <version>: the program behind a shim, if it is that version
    [ -n "$1" ] && "$1" -c "
import sys
${needs}
if '%d.%d' % sys.version_info[:2] != '$2':
    sys.exit(1)
print(sys.executable)" 2>/dev/null
}

candidates() {  # candidates <version>: one a line, most likely first
    command -v "python$1" || true
    command -v python3 || true
    local dir
    for dir in "${PYENV_ROOT:-}" "$(pyenv root 2>/dev/null || true)" "${HOME:-}/.pyenv"; do
        if [ -n "${dir}" ]; then
            # newest patch release first
            find "${dir}/versions" -mindepth 3 -maxdepth 3 -path "*/bin/python$1" 2>/dev/null | sort -rV
        fi
    done
    uv python find --no-python-downloads "$1" 2>/dev/null || true
}

for version in "$@"; do
    while IFS= read -r python; do
        if real_path "${python}" "${version}"; then
            exit 0
        fi
    done < <(candidates "${version}")
done
exit 1
