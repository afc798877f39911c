#!/usr/bin/env bash
# AN4 -> data/{train_nodev,train_dev,test}; see local/an4.py.
set -e -u -o pipefail

an4_root=          # directory of AN4; empty: it is downloaded
an4_url=           # the official archive; empty: the address at CMU
download_dir=downloads  # where a download goes
ndev_utt=100       # number of utterances of train_dev
num_train=948      # number of training utterances there must be (0: any)
num_test=130       # number of test utterances there must be (0: any)
python=${python:-python3}  # the Python to use
. utils/parse_options.sh
. ./path.sh

"${python}" local/an4.py \
    ${an4_root:+--an4_root "${an4_root}"} ${an4_url:+--an4_url "${an4_url}"} \
    --download_dir "${download_dir}" --ndev_utt "${ndev_utt}" \
    --num_train "${num_train}" --num_test "${num_test}" --out data
