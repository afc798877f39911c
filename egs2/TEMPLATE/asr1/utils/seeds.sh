#!/usr/bin/env bash
# To be sourced where ${seeds} is set: the experiments of a system that are trained.

all() {  # <system> [<checkpoint>]: exp/asr_<system>_seed<N> of each seed that has it, joined by commas
    local seed dirs=()
    for seed in ${seeds}; do
        [ -e "exp/asr_$1_seed${seed}/${2:-valid.cer_ctc.ave.pth}" ] && dirs+=("exp/asr_$1_seed${seed}")
    done
    (IFS=,; echo "${dirs[*]-}")
}
