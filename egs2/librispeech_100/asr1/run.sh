#!/usr/bin/env bash
# LibriSpeech, its 100 h of clean speech: ./run.sh [--librispeech_root DIR] [any option of asr.sh]
set -e -u -o pipefail

librispeech_root=  # directory of LibriSpeech; empty: it is downloaded
librispeech_url=https://www.openslr.org/resources/12  # where its archives are
check_counts=true  # each part must have as many utterances as LibriSpeech has
parse_known_options=true
[ -f utils/parse_options.sh ] || { echo "$0: run this from its directory: cd '${0%/*}'" >&2; exit 2; }
. utils/parse_options.sh

./asr.sh \
    --lang en --token_type bpe --nbpe 5000 --fs 16k --max_wav_duration 30 \
    --train_set train_clean_100 --valid_set dev \
    --test_sets "test_clean test_other dev_clean dev_other" \
    --bpe_train_text data/train_clean_100/text \
    --speed_perturb_factors "0.9 1.0 1.1" \
    --asr_config conf/train_asr_layerskip.yaml \
    --inference_config conf/decode_asr.yaml \
    --local_data_opts "${librispeech_root:+--librispeech_root $(printf %q "${librispeech_root}")} --librispeech_url ${librispeech_url} --check_counts ${check_counts}" \
    "$@"
