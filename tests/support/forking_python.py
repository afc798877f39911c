"""A Python that forks instead of starting: a recipe starts many, and ESPnet's import takes seconds.

``python forking_python.py serve SOCKET`` imports ESPnet once and waits. `write_python` writes a
program that stands for ``python3``: what it is asked to run is run in a fork of that server, with
its own arguments, directory, environment and streams. What has to start from nothing is tested
elsewhere (test_launcher.py, test_transcribe_scale.py).

``STAND_INS=DIR`` in its environment: where ``-m MODULE`` is asked for and DIR/MODULE.py is there,
that is run in the module's place.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
passed_on = (signal.SIGTERM, signal.SIGINT)
signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)  # until it is known to whom
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"x"], [0, 1, 2])
    asked = {{"args": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}}
    server.sendall(json.dumps(asked).encode())
    server.shutdown(socket.SHUT_WR)
    answers = server.makefile()
    child = int(answers.readline())
    for number in passed_on:
        signal.signal(number, lambda number, frame: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
    sys.exit(int(answers.readline()))
"""


@contextlib.contextmanager
def forking_python(directory: Path) -> Iterator[Path]:
    """Start a server; give the program that stands for ``python3``."""
    address = directory / "server"
    server = subprocess.Popen(
        [sys.executable, __file__, "serve", str(address)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        process_group=0,
        text=True,
    )
    try:
        assert server.stdout is not None
        assert "ready\n" in iter(server.stdout.readline, "")
        program = directory / "python3"
        program.write_text(CLIENT.format(python=sys.executable, address=str(address)))
        program.chmod(0o755)
        yield program
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.communicate()


def preload() -> None:
    """Import what a training and a decoding import late: seconds, in each fork otherwise."""
    import librosa
    import torch._dynamo  # noqa: F401  (PyTorch's optimizers)

    import espnet_layerskip.inference.speech2text
    import espnet_layerskip.training.task  # noqa: F401

    librosa.filters.mel(sr=16000, n_fft=512, n_mels=20)  # and Numba


def serve(address: str) -> None:
    """Import what the programs of a recipe import, then fork for each call."""
    from espnet_layerskip._late_imports import start_sooner

    start_sooner()
    preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("ready", flush=True)
        while True:
            call, _ = server.accept()
            if os.fork() == 0:
                server.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                answer(call)
                os._exit(0)
            call.close()


def answer(call: socket.socket) -> None:
    """Run what is asked in a child; tell its process number, then its exit status."""
    _, streams, _, _ = socket.recv_fds(call, 1, 3)
    asked = json.loads(call.makefile("rb").read())
    child = os.fork()
    if child == 0:
        call.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os._exit(run(**asked))
    for stream in streams:
        os.close(stream)
    with contextlib.suppress(BrokenPipeError):  # the caller was killed
        call.sendall(f"{child}\n".encode())
        threading.Thread(target=end_with_caller, args=(call, child), daemon=True).start()
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        call.sendall(f"{code if code >= 0 else 128 - code}\n".encode())


def end_with_caller(call: socket.socket, child: int) -> None:
    """Kill the child when its caller is gone: it was killed, and stands for the child."""
    gone = select.poll()
    gone.register(call, 0)  # nothing but that the other end was closed
    gone.poll()
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


def run(args: list[str], cwd: str, env: dict[str, str]) -> int:
    """Do what ``python3 ARGS`` does; return its exit status."""
    import atexit
    import logging

    import torch

    os.chdir(cwd)
    wanted = set(filter(None, env.get("PYTHONPATH", "").split(os.pathsep)))
    if not wanted <= set(sys.path):  # other modules in the place of ours: it starts from nothing
        os.execve(sys.executable, [sys.executable, *args], env)
    os.environ.clear()
    os.environ.update(env)
    torch.set_num_threads(int(env.get("OMP_NUM_THREADS", 1)))
    logging.root.handlers.clear()
    status: Any = 0
    try:
        while args[0] == "-u":
            args = args[1:]
        here = cwd if args[0] in ("-m", "-c") else str(Path(args[0]).resolve().parent)
        sys.path.insert(0, here)
        stand_in = Path(env.get("STAND_INS", ""), f"{args[1]}.py") if args[0] == "-m" else None
        if stand_in is not None and "STAND_INS" in env and stand_in.is_file():
            args = [str(stand_in), *args[2:]]
        if args[0] == "-m":
            sys.argv = args[1:]
            runpy.run_module(args[1], run_name="__main__", alter_sys=True)
        elif args[0] == "-c":
            sys.argv = ["-c", *args[2:]]
            exec(compile(args[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = args
            runpy.run_path(args[0], run_name="__main__")
    except SystemExit as e:
        status = e.code or 0
        if not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return int(status)


if __name__ == "__main__":
    sys.path.pop(0)  # this directory
    serve(sys.argv[2])
