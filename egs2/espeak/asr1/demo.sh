#!/usr/bin/env bash
# From nothing to a comparison of the stock encoder with layer-skipping, in about 10 minutes on two
# CPU cores: ESPnet's Conformer is trained; ours is the same with a gate, distilled from it.
# Each step is a call that you can make yourself; what it prints is in exp/demo/*.log.
# Stopped, it goes on where it was when it is started again; steps that are done are left alone.
set -e -u -o pipefail

size=demo             # of the corpus: demo, medium or large; smoke is too small to learn from
asr_args=             # arguments for ESPnet's training, e.g. "--optim_conf lr=0.001"
retrofit_epochs=6     # of the distillation
max_wer_increase=10   # percent by which skipping may raise the WER of dev2
max_wer_points=1      # points by which it may raise that of test
repeats=5             # timed passes of the comparison
python=python3        # the Python to use
[ -f utils/parse_options.sh ] || { echo "$0: run this from its directory: cd '${0%/*}'" >&2; exit 2; }
. utils/parse_options.sh
. utils/stages.sh
. ./path.sh

say() { echo "[demo] $(date '+%H:%M:%S') $*"; }

# step NAME WHAT MAKES [JOB=A,B] COMMAND...: run a command, unless it was run before with the same
# options and configurations and what it makes is there. JOB=A,B: once for each, side by side.
number=0
depends=()  # more files that a step's results depend on
step() {
    local name=$1 what=$2 makes=$3 start=${SECONDS} log=exp/demo/$1.log jobs=()
    shift 3
    if [[ $1 == JOB=* ]]; then
        jobs=("$1") log=exp/demo/${name}.JOB.log
        shift
    fi
    number=$((number + 1))
    say "${number}/9 ${what} (log: ${log/JOB/*})"
    if ! recipe run_jobs --done "${log%.log}.done" --makes "${makes}" --show ' left$| to go$|^row: ' \
        --depends conf/train_asr_conformer.yaml --depends conf/decode_asr.yaml --depends run.sh \
        ${depends[@]+"${depends[@]}"} \
        ${jobs[@]+"${jobs[@]}"} "${log}" "$@" \
        | (trap '' INT; sed -u -E -e 's/^[0-9]{4}-.* INFO: /    /' -e 's/^row: /    measuring: /' \
            -e 's/^(update [^,]*),.*, (.* to go)$/    \1, \2/' -e 's/^ *([^ ].* to go)$/    \1/'); then
        say "stopped in step ${number}/9; 'make demo' goes on from here" >&2
        exit 1
    fi
    say "${number}/9 done [elapsed=$((SECONDS - start))s]"
}

mkdir -p exp/demo
exec 9> exp/demo/lock
flock -n 9 || { say "another demo runs in this directory: wait for it, or stop it" >&2; exit 1; }

stock=exp/asr_conformer
ours=exp/asr_retrofit
common=(--python "${python}" --size "${size}")
cores=$(getconf _NPROCESSORS_ONLN)
cores=$((cores < 4 ? cores : 4))  # more do not help networks this small
export OMP_NUM_THREADS=${cores}

step corpus "espeak-ng speaks the corpus (half a minute)" dump/raw/test/wav.scp \
    ./run.sh "${common[@]}" --stop_stage 5
step stats "statistics of the features (a quarter of a minute)" exp/asr_stats_raw_en_word/train/feats_stats.npz \
    ./run.sh "${common[@]}" --stage 10 --stop_stage 10

# Every quarter of a minute a line says where the training is, unless it would be the same again.
(while sleep 15 &> /dev/null; do
    now=$(recipe training_progress "${stock}")
    [ "${now}" = "${before:-}" ] || echo "    ${now}"
    before=${now}
done) 9>&- &
trap 'kill $! 2> /dev/null' EXIT
step train "training: ESPnet's Conformer (4 minutes)" "${stock}/valid.cer_ctc.ave.pth" \
    ./run.sh "${common[@]}" --stage 11 --stop_stage 11 --asr_config conf/train_asr_conformer.yaml \
    --asr_tag conformer --asr_args "${asr_args}"
kill $!
trap - EXIT

# What is there of another retrofit is out of date: this step runs only when it has to. It judges
# itself too, on many settings. That is to catch a failure only: the next step chooses. Two small
# networks, teacher and student, are faster in processes of their own than with more threads.
depends=(--depends "${stock}/valid.cer_ctc.ave.pth")
# shellcheck disable=SC2016
step retrofit "retrofit: it gets a gate and learns from its own full depth (2 minutes)" "${ours}/retrofit.json" \
    bash -c '[ ! -e "$0/retrofit.json" ] || set -- "$@" --force; exec "$@"' "${ours}" \
    "${python}" -m espnet_layerskip.cli retrofit --model "${stock}" --data dump/raw/train --dev dump/raw/dev \
    --gates 2 --epochs "${retrofit_epochs}" --max-wer-increase 50 --num-threads 1 --inference-nj "${cores}" --output "${ours}"
export OMP_NUM_THREADS=1

# Status 3: no threshold keeps the budget, so that skipping is off; the table will say so. dev2 has
# chosen nothing, but is too small to show a budget: what is stored says so. Shifted copies of it
# would take two minutes more: none. High thresholds only: it has four voices, and test others.
step calibrate "the gate's threshold, chosen on dev2 (half a minute)" "${ours}/calibration.json" \
    bash -c '"$@" || [ $? -eq 3 ]' calibrate \
    "${python}" -m espnet_layerskip.cli calibrate --exp "${ours}" --data dump/raw/dev2 \
    --max-wer-increase "${max_wer_increase}" --allow-point-estimate --shifts none \
    --thresholds 0.99 0.999 --extensions 0,0 1,1
depends+=(--depends "${ours}/calibration.json")
# shellcheck disable=SC2016
step decode "decoding and scoring of test, voices that no training heard" \
    exp/asr_JOB/RESULTS.md JOB=conformer,retrofit \
    bash -c 'model=valid.cer_ctc.ave.pth
        [ JOB = conformer ] || model=valid.loss.best.pth
        exec "$@" --inference_asr_model "${model}"' decode \
    ./run.sh "${common[@]}" --test_sets test --stage 12 --stop_stage 13 --asr_tag JOB --inference_nj 1
step compare "comparison on test" exp/compare/compare.json \
    "${python}" -m espnet_layerskip.bin.compare_exps --data dump/raw/test \
    --repeats "${repeats}" --max_wer_points "${max_wer_points}" --seconds 3 10 20 --exp "stock=${stock}" "ours=${ours}" --output exp/compare --cache exp/demo/cache
step runtimes "PyTorch beside onnxruntime (a minute)" exp/benchmark/benchmark.json \
    "${python}" -m espnet_layerskip.cli benchmark --model "${ours}" --scope model \
    --wav-scp dump/raw/test/wav.scp --text dump/raw/test/text --seconds 3,10,20 --batch-size 1 --num-threads 1 \
    --max-wer-increase "${max_wer_increase}" --output exp/benchmark/benchmark.json
depends+=(--depends exp/compare/compare.json)
step report "report" exp/report/index.html \
    "${python}" -m espnet_layerskip.cli report --exp "${ours}" --compare "${stock}" \
    --times-from exp/compare/compare.json --data dump/raw/test --output exp/report --cache exp/demo/cache

summary=(local/demo_summary.py exp/compare/compare.json exp/benchmark/benchmark.json)
"${python}" "${summary[@]}"
cat << END

The report: ${PWD}/exp/report/index.html
All numbers: ${PWD}/exp/compare/compare.md, ${PWD}/exp/benchmark/benchmark.md

What to try next, from ${PWD}, after . $(dirname "${python}")/activate:
$("${python}" "${summary[@]}" --next)
- More: conf/train_asr_layerskip.yaml has the gate's options; real speech: ../../an4/asr1/README.md;
  your own recipe, checkpoints and audio: ../../../README.md
END
