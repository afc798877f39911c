"""Two processes of one training, over gloo on the CPU: ESPnet's launcher, and torchrun."""

from __future__ import annotations

import itertools
import json
import math
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import Recipe, data_options, training, write_yaml

pytestmark = pytest.mark.slow


def watch_draws(file: Path) -> Callable[[], None]:
    """Have a process write what it drew for the gates, and what it took instead."""

    def before() -> None:
        from espnet_layerskip.encoders import base, distributed

        calls = itertools.count()

        def noted(drawn: torch.Tensor) -> torch.Tensor:
            if next(calls) == 0:  # ESPnet has given all processes the same seed
                torch.manual_seed(os.getpid())
            taken = distributed.of_first_process(drawn)
            with file.open("a") as f:
                f.write(json.dumps([float(drawn), float(taken)]) + "\n")
            return taken

        base.of_first_process = noted

    return before


def check(recipe: Recipe, exp: str) -> None:
    """The losses of a training are finite; both processes gated the same batches."""
    state = torch.load(recipe.root / exp / "checkpoint.pth", weights_only=False)
    stats = [epoch["train"] for epoch in state["reporter"]["stats"].values()]
    assert len(stats) == 3
    assert all(math.isfinite(v) for epoch in stats for k, v in epoch.items() if "loss" in k)
    assert any("loss_kd_blank_layer1" in epoch for epoch in stats)  # some batches were gated
    first, second = (
        [json.loads(line) for line in (recipe.root / f"{exp}.{rank}").read_text().splitlines()]
        for rank in range(2)
    )
    assert len(first) >= 9  # a draw for each batch
    assert [taken for _, taken in first] == [taken for _, taken in second]
    assert [drawn for drawn, _ in first] != [drawn for drawn, _ in second]


def config(**model_conf: Any) -> dict[str, Any]:
    """Three epochs of three batches for two processes."""
    made = training(max_epoch=3)
    made["model_conf"] |= model_conf
    made["encoder_conf"]["train_spike_extensions"] = [[0, 0], [1, 1]]
    return made


def test_espnets_launcher_starts_two_processes(recipe: Recipe) -> None:
    """``--host a,b --ngpu 0``: a process on each host by ssh (here a shell), gloo, a file."""
    write_yaml(recipe.root / "conf/train.yaml", config(kd_blank_weight=0.1))
    (recipe.root / "path.sh").touch()
    options = " ".join([*data_options(), "--config conf/train.yaml --output_dir exp/hosts"])
    [launch] = recipe.shell(
        'python="python3 -m espnet_layerskip"\n'
        "${python} -m espnet2.bin.launch --host host1,host2 --ngpu 0 --log exp/train.log \\\n"
        f"--init_file_prefix exp/.dist_init_ -- ${{python}} -m espnet2.bin.asr_train {options}"
    )
    path = {"PATH": f"{recipe.root / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    recipe.fork(launch, env=path).wait()
    calls = recipe.take_calls()
    assert len(calls) == 2
    assert all("gloo" in call for call in calls)
    calls.sort(key=lambda call: call[call.index("--dist_rank") + 1])
    started = [
        recipe.fork(call, before=watch_draws(recipe.root / f"exp/hosts.{rank}"))
        for rank, call in enumerate(calls)
    ]
    for process in started:
        process.wait()
    check(recipe, "exp/hosts")


def test_torchrun(recipe: Recipe) -> None:
    """Own heads at the gates, of which a batch that is not gated has no use."""
    heads = {"ctc_head": "factorized", "interctc_head": "own", "kd_blank_weight": 0.1}
    write_yaml(recipe.root / "conf/heads.yaml", config(**heads))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    options = ["--ngpu", "0", "--dist_backend", "gloo", "--multiprocessing_distributed", "false"]
    options += ["--config", "conf/heads.yaml", "--output_dir", "exp/torchrun", *data_options()]
    started = []
    for rank in range(2):  # what torchrun --nproc_per_node 2 gives to its processes
        env = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        env |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        call = ["-m", "espnet_layerskip", "-m", "espnet_layerskip.bin.asr_train", *options]
        draws = watch_draws(recipe.root / f"exp/torchrun.{rank}")
        (recipe.root / "exp").mkdir(exist_ok=True)
        started.append(recipe.fork(call, env=env, before=draws))
    for process in started:
        process.wait()
    check(recipe, "exp/torchrun")
