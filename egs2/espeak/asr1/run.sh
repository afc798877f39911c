#!/usr/bin/env bash
# Synthetic speech, made here by espeak-ng: ./run.sh [--size demo] [any option of asr.sh]
set -e -u -o pipefail

size=demo      # of the corpus: smoke (4 minutes), demo (1 h), medium (3 h), large (8 h)
corpus_seed=1  # another one: other sentences, other manners of the same voices
parse_known_options=true
. utils/parse_options.sh

./asr.sh \
    --lang en --token_type word --fs 16k --feats_normalize utterance_mvn \
    --train_set train --valid_set dev --calibration_set dev2 --test_sets "dev test" \
    --asr_config conf/train_asr_layerskip.yaml \
    --inference_config conf/decode_asr.yaml \
    --local_data_opts "--size ${size} --seed ${corpus_seed}" \
    "$@"
