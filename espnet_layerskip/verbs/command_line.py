"""The parser of the command line: forgives ``_`` for ``-``, and suggests what may be meant."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import fcntl
import math
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from textwrap import fill
from typing import Any, NoReturn

EXIT_STATUSES = (
    "Exit status: 0; 1 if some of the input failed (the rest is done); 2 if nothing could run: the "
    "call, the model or the output cannot be used."
)


MAX_NUMBER = 2**31 - 1  # what C libraries take
MAX_THREADS = 1024


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors say what may be meant, and whose epilog keeps its lines."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"formatter_class": KeepEpilog, **kwargs})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; ``--batch_size`` is read as ``--batch-size``, and the other way round.

        Files may stand before, between and after the options; behind ``--`` everything is one.
        """
        words, behind = None if args is None else self._spelt(args), []
        several = [action for action in self._get_positional_actions() if action.nargs == "*"]
        if several and words and "--" in words:
            place = words.index("--")
            words, behind = words[:place], words[place + 1 :]
        found, rest = super().parse_known_args(words, namespace)
        for action in several:
            files = [word for word in rest if word == "-" or not word.startswith("-")]
            setattr(found, action.dest, [*getattr(found, action.dest), *files, *behind])
            rest = [word for word in rest if word not in files]
        return found, rest

    def _spelt(self, args: Sequence[str]) -> list[str]:
        """Return the arguments with the spelling of the options; refuse those that are none."""
        words, verbs = list(args), self._has_verbs()
        for place, word in enumerate(words):
            if word == "--" or (verbs and not word.startswith("-")):  # the rest is for the verb
                break
            if word.startswith("--") and " " not in word.partition("=")[0]:
                name, sign, value = word.partition("=")
                words[place] = f"{self._option(name)}{sign}{value}"
        return words

    def _option(self, name: str) -> str:
        known = self._option_string_actions
        for spelling in (
            name,
            "--" + name[2:].replace("_", "-"),
            "--" + name[2:].replace("-", "_"),
        ):
            if spelling in known or any(option.startswith(spelling) for option in known):
                return spelling
        self.error(f"there is no option {name}{meant(name, self.options())}")

    def _has_verbs(self) -> bool:
        return any(isinstance(action, argparse._SubParsersAction) for action in self._actions)

    def options(self) -> list[str]:
        """Return the long options, those of one meaning once."""
        return [
            next(name for name in action.option_strings if name.startswith("--"))
            for action in self._actions
            if any(name.startswith("--") for name in action.option_strings)
        ]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(
                action,
                f"{value!r} is none of {', '.join(choices)}{meant(str(value), choices)}",
            )

    def _get_value(self, action: argparse.Action, text: str) -> Any:
        if text == "" and action.option_strings:  # "." as a path, and so the folder one is in
            raise argparse.ArgumentError(action, "a value is needed, but it is empty")
        value = super()._get_value(action, text)  # type: ignore[misc]
        most = MAX_THREADS if action.dest == "num_threads" else MAX_NUMBER
        if isinstance(value, float) and not math.isfinite(value):
            raise argparse.ArgumentError(action, f"a finite number is needed, but got {text}")
        if isinstance(value, int) and value > most:
            raise argparse.ArgumentError(action, f"at most {most} is possible, but got {text}")
        return value

    def error(self, message: str) -> NoReturn:
        """Print the message in one line, and how to learn more; exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n(see {self.prog} --help)\n")


def check_output(option: str, path: str | Path, inputs: Iterable[str | Path] = ()) -> None:
    """Look whether a file can be written, before the work is done.

    Args:
        option: That names it.
        path: The file.
        inputs: What is read; an output does not replace it.

    Raises:
        ValueError: If it cannot, or is one of the inputs.
    """
    path = Path(path)
    folder = Path(os.path.realpath(path)).parent  # of what a link points to
    if not folder.is_dir():
        raise ValueError(f"{option} {path}: there is no such directory to write it to")
    if path.is_dir():
        raise ValueError(f"{option} {path} is a directory: name a file")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ValueError(f"{option} {path} cannot be written: {_why_not(folder)}")
    for source in inputs if path.is_file() else ():
        with contextlib.suppress(OSError):  # it is no file, or there is none
            if path.samefile(os.fsdecode(source).replace("\0", "")):
                raise ValueError(f"{option} {path} is an input, and would be lost: name another")


def check_inputs(args: argparse.Namespace) -> None:
    """Look whether the models and the data that options name are there; imports nothing heavy.

    Args:
        args: Of a verb: ``--model``, ``--exp`` and ``--compare`` name models, several by "," and
            with "LABEL=" before them; ``--data`` folders; ``--wav-scp``, ``--text`` and
            ``--times-from`` files.

    Raises:
        ValueError: If one is not; says which.
    """
    from espnet_layerskip.inference.pretrained import is_model_tag

    for name in ("model", "exp", "compare"):
        for spec in _several(getattr(args, name, None)):
            for model in spec.partition("=")[2].split(",") if "=" in spec else spec.split(","):
                if not (Path(model).exists() or Path(spec).exists() or is_model_tag(model)):
                    raise ValueError(
                        f"--{name} {model} is neither an experiment directory nor a packed zip (no "
                        "such path), nor a tag of espnet_model_zoo (name/of_model)"
                    )
    for folder in _several(getattr(args, "data", None)):
        if not Path(folder).is_dir():
            raise ValueError(f"--data {folder}: no such data directory")
        if not Path(folder, "wav.scp").is_file():
            found = sorted(os.listdir(folder))[:5]
            raise ValueError(
                f"--data {folder}: wav.scp missing; found {', '.join(found) or 'nothing'}"
            )
    for name in ("wav_scp", "text", "times_from"):
        for table in _several(getattr(args, name, None)):
            if not Path(table).is_file():
                raise ValueError(f"--{name.replace('_', '-')} {table}: no such file")


def _several(value: Any) -> list[str]:
    """Return the values of an option that takes one, several or none."""
    values = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    return [str(one) for one in values]


def make_folder(option: str, folder: Path, *files: str) -> None:
    """Make a folder for output, before the work is done.

    Args:
        option: That names it.
        folder: To make.
        files: Names of those that will be written into it.

    Raises:
        ValueError: If it cannot be made, or it or one of the files cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ValueError(f"{option} {folder} cannot be made ({e.strerror}): name another") from e
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{option} {folder} cannot be written to: {_why_not(folder)}")
    for name in files:
        check_output(option, folder / name)


def _why_not(folder: Path) -> str:
    """Return why nothing can be written to a folder, or to a file in it."""
    read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    return "read-only file system" if read_only else "permission denied"


@contextlib.contextmanager
def held(option: str, folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder while the block runs, where its file system can do that.

    A folder that is empty at the end is removed.

    Raises:
        ValueError: If another run works there.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        os.close(handle)
        raise ValueError(
            f"{option} {folder}: another run works there: wait for its end, or name another folder"
        ) from e
    except OSError:
        pass  # some shared file systems have no locks
    try:
        yield
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):  # it is not empty
            folder.rmdir()


class KeepEpilog(argparse.HelpFormatter):
    """Help in which the epilog, where the examples stand, keeps its lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text:
            return super()._fill_text(text, width, indent)
        return "".join(f"{indent}{line}\n" for line in text.splitlines())


class Version(argparse.Action):
    """``--version``: ours and those of what it runs on, without importing any of it."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, *args: Any) -> None:
        """Print and exit."""
        print(version_line())
        parser.exit(0)


def version_line() -> str:
    """Return "espnet-layerskip 0.1.0 (Python 3.11.9, espnet 202511, ...)"."""
    from espnet_layerskip import __version__

    found = [f"Python {platform.python_version()}"]
    for name in ("espnet", "torch", "onnxruntime"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return f"espnet-layerskip {__version__} ({', '.join(found)})"


def meant(word: str, known: Iterable[str]) -> str:
    """Return ": did you mean X?", or nothing if nothing known is like the word.

    >>> meant("--batchsize", ["--beam-size", "--batch-size"])
    ': did you mean --batch-size?'
    """
    found = difflib.get_close_matches(word.replace("_", "-"), list(known), n=1, cutoff=0.6)
    return f": did you mean {found[0]}?" if found else ""


def examples(lines: str, more: str = "") -> str:
    """Return the epilog of a verb: its examples, and what its exit status means.

    Args:
        lines: The examples, one in a line.
        more: What other exit statuses of this verb mean.
    """
    shown = "\n".join(f"  {line}" for line in lines.strip().splitlines())
    statuses = f"{EXIT_STATUSES.rstrip('.')}; {more}." if more else EXIT_STATUSES
    return f"examples:\n{shown}\n\n{fill(statuses, 80)}\n"


def completion(parser: argparse.ArgumentParser) -> str:
    """Return a script with which bash, or zsh, completes verbs, options and their choices."""
    verbs = dict(_verbs(parser))
    cases = []
    for verb, sub in verbs.items():
        values = [
            f"        {verb}:{name}) words='{' '.join(map(str, action.choices))}' ;;"
            for action in sub._actions
            for name in action.option_strings
            if action.choices
        ]
        options = sub.options() if isinstance(sub, Parser) else []
        cases += [*values, f"        {verb}:*) options='{' '.join(options)}' ;;"]
    return COMPLETION.format(verbs=" ".join(verbs), cases="\n".join(cases))


def _verbs(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


COMPLETION = """\
# espnet-layerskip: completion for bash and zsh.
# bash: eval "$(espnet-layerskip --completion)"; zsh: autoload -U bashcompinit; bashcompinit first.
_espnet_layerskip() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words='' options=''
    if [ "${{COMP_CWORD}}" -eq 1 ]; then
        words='{verbs} --help --version --completion'
    else
        case "${{COMP_WORDS[1]}}:${{before}}" in
{cases}
        esac
        case "${{word}}" in -*) words=${{options}} ;; esac
    fi
    COMPREPLY=($(compgen -W "${{words}}" -- "${{word}}"))
}}
complete -o default -F _espnet_layerskip espnet-layerskip
"""
