#!/usr/bin/env bash
# Accuracy of the trained model with skipping off and on, speed at the real size -> RESULTS.md.
# Run it on an idle machine: local/results.sh [--speed true] [--share_layers true]
set -e -u -o pipefail

exp=exp/s2t_train_s2t_ctc                        # experiment
inference_s2t_model=valid.cer_ctc.ave_5best.pth  # parameters to decode with
repeats=3           # timed passes of the accuracy part
speed=false         # true: measure the real size too; takes long and 8 GB (2 GB with shared layers)
speed_repeats=5     # timed passes of the speed part; 0: a single one
share_layers=false  # true: the layers of the real size share their weights
python=python3      # the Python to use, with ESPnet 202611
. utils/parse_options.sh
. ./path.sh

"${python}" local/evaluate.py --exp "${exp}" --model_file "${inference_s2t_model}" \
    --repeats "${repeats}" --output exp/skipping.json
if "${speed}"; then
    "${python}" local/speed.py --share_layers "${share_layers}" --repeats "${speed_repeats}" --output exp/speed.json
fi
"${python}" local/results_page.py --accuracy exp/skipping.json --speed exp/speed.json --output RESULTS.md
