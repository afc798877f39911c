"""Processes of one training: what they draw."""

import multiprocessing

import torch

from espnet_layerskip.encoders.distributed import of_first_process


def _draw(rank: int, store: str, queue) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    queue.put((rank, float(of_first_process(torch.tensor(0.25 + rank)))))
    torch.distributed.destroy_process_group()


def test_all_processes_take_what_the_first_one_drew(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [
        context.Process(target=_draw, args=(rank, str(tmp_path / "store"), queue))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    drawn = dict(queue.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    assert drawn == {0: 0.25, 1: 0.25}


def test_alone_a_process_takes_its_own():
    drawn = torch.tensor(0.75)
    assert of_first_process(drawn) is drawn
