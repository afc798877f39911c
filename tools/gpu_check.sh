#!/usr/bin/env bash
# gpu_check.sh [--python PYTHON] [--data DIR] [--device cuda] [--output FILE.md] [-- ENCODER_SPEED_OPTION...]
#
# What is to be known on a GPU, as one page, in about ten minutes: the tests marked gpu; the encoder at
# batch 1, 8 and 32 on 10 and 30 s, in three precisions, skipping on and off; and, where a test set is
# given (wav.scp), wave files to text. Run it in the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python data='' device=cuda output=gpu_check.md
encoder=(--models d256 d512 --batch 1 8 32 --seconds 10 30)
while [ $# -gt 0 ]; do
    case $1 in
        --python) python=$2 ;;
        --data) data=$2 ;;
        --device) device=$2 ;;
        --output) output=$2 ;;
        --) encoder=("${@:2}"); break ;;
        *) echo "$0: unknown option $1; see the first lines of this file" >&2; exit 2 ;;
    esac
    shift 2
done
model=egs2/an4/asr1/pretrained/an4_layerskip.zip
work=$(mktemp -d)
trap 'rm -rf "${work}"' EXIT
status=0

transcribed() {  # <threshold> <batch size>: a line of the table
    "${python}" -m espnet_layerskip.cli transcribe --model "${model}" --wav-scp "${data}/wav.scp" \
        --device "${device}" --blank-threshold "$1" --batch-size "$2" --stats "${work}/stats.json" \
        > "${work}/text"
    "${python}" -c '
import json, sys
found = json.load(open(sys.argv[3]))
cells = [sys.argv[1], sys.argv[2], *(f"{found[name]:.2f}" for name in ("audio_seconds", "encoder_seconds", "total_seconds"))]
skipped = found["skip_ratio"] or 0.0
print("| " + " | ".join([*cells, f"{100 * skipped:.0f}"]) + " |")' "$1" "$2" "${work}/stats.json"
}

{
    echo "# GPU check"
    echo
    echo '```'
    "${python}" -c 'import torch, espnet
print("torch", torch.__version__, "espnet", espnet.__version__)
print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'
    git log -1 --format='commit %h' 2> /dev/null || true
    echo '```'
    echo
    echo "## Tests"
    echo
    echo '```'
    "${python}" -m pytest -q -p no:cacheprovider -m gpu tests 2>&1 | tail -n 30 || status=1
    echo '```'
    for precision in float32 bfloat16 float16; do
        [ "${device}" != cpu ] || [ "${precision}" != float16 ] || continue
        printf '\n## Encoder, %s\n\n' "${precision}"
        "${python}" tools/encoder_speed.py "${encoder[@]}" --threads 1 --min-skipped 0 --budget 2 \
            --device "${device}" --precision "${precision}" || status=1
    done
    if [ -n "${data}" ]; then
        printf '\n## Wave files to text\n\n| threshold | batch | audio s | encoder s | all s | skipped %% |\n'
        echo "|---|---|---|---|---|---|"
        for batch in 1 8 32; do
            for threshold in off auto; do
                transcribed "${threshold}" "${batch}" || status=1
            done
        done
    fi
    exit "${status}"
} | tee "${output}" || { echo "$0: something failed, see ${output}" >&2; exit 1; }
echo "$0: see ${output}"
