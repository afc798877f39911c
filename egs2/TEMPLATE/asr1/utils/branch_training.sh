#!/usr/bin/env bash
# Let a training go on from where another one is, with its optimizer, unless it has begun already.
#   utils/branch_training.sh <experiment directory> <new experiment directory>
set -e -u -o pipefail

[ $# -eq 2 ] || { echo "Usage: $0 <experiment directory> <new experiment directory>" >&2; exit 2; }
trunk=$1 branch=$2
[ ! -e "${branch}/checkpoint.pth" ] || exit 0
[ -e "${trunk}/checkpoint.pth" ] || { echo "$0: ${trunk}/checkpoint.pth is missing: train that first" >&2; exit 1; }
mkdir -p "${branch}"
cp "${trunk}"/*epoch.pth "${branch}"
cp "${trunk}/checkpoint.pth" "${branch}/checkpoint.pth.part"  # the last, and whole or not at all
mv "${branch}/checkpoint.pth.part" "${branch}/checkpoint.pth"
