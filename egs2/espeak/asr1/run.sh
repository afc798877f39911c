#!/usr/bin/env bash
# Synthetic speech, made here by espeak-ng: ./run.sh [--size demo] [any option of asr.sh]
set -e -u -o pipefail

size=demo      # of the corpus: smoke (5 minutes), demo (2 h), medium (4 h), large (8 h)
corpus_seed=1  # another one: other sentences, other manners of the same voices
parse_known_options=true
[ -f utils/parse_options.sh ] || { echo "$0: run this from its directory: cd '${0%/*}'" >&2; exit 2; }
. utils/parse_options.sh

./asr.sh \
    --lang en --token_type word --fs 16k --feats_normalize utterance_mvn \
    --train_set train --valid_set dev --calibration_set dev2 --test_sets "dev test" \
    --asr_config conf/train_asr_layerskip.yaml \
    --inference_config conf/decode_asr.yaml \
    --local_data_opts "--size ${size} --seed ${corpus_seed}" \
    "$@"
