#!/usr/bin/env bash
# CMU AN4 with ESPnet's splits: ./run.sh [--an4_root DIR] [any option of asr.sh]
set -e -u -o pipefail

an4_root=  # directory of AN4 (GitHub WAV or official sphere layout); empty: it is downloaded
an4_url=http://www.speech.cs.cmu.edu/databases/an4/an4_sphere.tar.gz  # official archive
parse_known_options=true
[ -f utils/parse_options.sh ] || { echo "$0: run this from its directory: cd '${0%/*}'" >&2; exit 2; }
. utils/parse_options.sh

./asr.sh \
    --lang en --token_type char --fs 16k \
    --train_set train_nodev --valid_set train_dev --test_sets "train_dev test" \
    --speed_perturb_factors "0.9 1.0 1.1" \
    --asr_config conf/train_asr_layerskip.yaml \
    --inference_config conf/decode_asr.yaml \
    --local_data_opts "${an4_root:+--an4_root $(printf %q "${an4_root}")} --an4_url ${an4_url}" \
    "$@"
