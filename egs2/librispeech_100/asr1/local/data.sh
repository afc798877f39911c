#!/usr/bin/env bash
# LibriSpeech -> data/{train_clean_100,dev,dev_clean,dev_other,test_clean,test_other}; see local/librispeech.py.
set -e -u -o pipefail

librispeech_root=       # directory of LibriSpeech; empty: it is downloaded
librispeech_url=        # where its archives are; empty: OpenSLR
download_dir=downloads  # where a download goes
check_counts=true       # each part must have as many utterances as LibriSpeech has
python=${python:-python3}  # the Python to use
. utils/parse_options.sh
. ./path.sh

"${python}" local/librispeech.py \
    ${librispeech_root:+--librispeech_root "${librispeech_root}"} \
    ${librispeech_url:+--librispeech_url "${librispeech_url}"} \
    --download_dir "${download_dir}" --check_counts "${check_counts}" --out data
