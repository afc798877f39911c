#!/usr/bin/env bash
# speechocean762 -> data/{train,dev,calib,test,test_adult,test_child[,test_clean][,train_an4]}; see local/so762.py.
set -e -u -o pipefail

so762_root=             # directory of speechocean762; empty: it is downloaded
so762_url=              # its archive; empty: OpenSLR
so762_scores=           # directory with train_utt2score and test_utt2score; empty: the corpus's own scores
an4_root=               # a copy of AN4; given: data/train_an4 is train with AN4's training set
download_dir=downloads  # where a download goes
check_counts=true       # each part must have 2500 utterances
python=${python:-python3}  # the Python to use
. utils/parse_options.sh
. ./path.sh

"${python}" local/so762.py \
    ${so762_root:+--so762_root "${so762_root}"} ${so762_url:+--so762_url "${so762_url}"} \
    ${so762_scores:+--so762_scores "${so762_scores}"} \
    --download_dir "${download_dir}" --check_counts "${check_counts}" --out data
if [ -n "${an4_root}" ]; then
    "${python}" ../../an4/asr1/local/an4.py --an4_root "${an4_root}" --out data/an4
    "${python}" local/so762.py --combine data/train data/an4/train_nodev --out data/train_an4
fi
