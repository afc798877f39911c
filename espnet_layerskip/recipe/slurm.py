"""Slurm for run_jobs: each job is run by srun, with the options of Kaldi's conf/slurm.conf.

Lines of the file, as Kaldi's slurm.pl reads them (``$0`` stands for the value)::

    command srun --export=ALL
    option mem=* --mem-per-cpu $0
    option gpu=0 -p cpu
    option gpu=* -p gpu --gres=gpu:$0
    default gpu=0

A command ``sbatch`` is taken as srun, which has the same options: srun waits for its job, and the
job ends when srun is ended.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from espnet_layerskip.files import read_lines

USAGE = (
    "a line is 'command srun ...', 'option NAME=VALUE ...' (VALUE * = any, $0 in it) or "
    "'default NAME=VALUE'"
)


def srun_words(path: Path | str, given: Mapping[str, str]) -> list[str]:
    """Return the words to put before a command, so that Slurm runs it.

    Args:
        path: conf/slurm.conf.
        given: Options of the call, such as ``{"gpu": "1", "mem": "4G"}``.

    Raises:
        ValueError: A line that is not understood, no command, or an option that the file does
            not have; the message names the file and the line or option.
    """
    command = ["srun"]
    options: dict[str, dict[str, list[str]]] = {}
    values: dict[str, str] = {}
    for number, line in read_lines(path):
        kind, *words = shlex.split(line, comments=True) or [""]
        if not kind:
            continue
        name, _, value = words[0].partition("=") if words else ("", "", "")
        if kind == "command" and words:
            command = ["srun" if words[0] == "sbatch" else words[0], *words[1:]]
        elif kind == "option" and name and value:
            options.setdefault(name, {})[value] = words[1:]
        elif kind == "default" and name and value:
            values[name] = value
        else:
            raise ValueError(f"{path}:{number}: '{line.strip()}': {USAGE}")
    for name, value in (values | dict(given)).items():
        known = options.get(name, {})
        if value not in known and "*" not in known:
            raise ValueError(
                f"{path}: there is no line 'option {name}={value}' or 'option {name}=*'"
            )
        chosen = known[value] if value in known else known["*"]
        command += [word.replace("$0", value) for word in chosen]
    return command
