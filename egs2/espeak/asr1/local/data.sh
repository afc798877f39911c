#!/usr/bin/env bash
# espeak-ng's voices -> data/{train,dev,dev2,test}; see local/espeak.py.
set -e -u -o pipefail

size=demo                     # smoke, demo, medium or large
seed=1                        # another one: another corpus
corpus_dir=downloads/espeak   # where the audio goes
nj=auto                       # processes; auto: one for each core
python=${python:-python3}     # the Python to use
. utils/parse_options.sh
. ./path.sh

[ "${nj}" = auto ] && nj=$(getconf _NPROCESSORS_ONLN)
"${python}" local/espeak.py \
    --size "${size}" --seed "${seed}" --corpus_dir "${corpus_dir}" --nj "${nj}" --out data
