"""Find the files of a trained model: an experiment directory or a packed zip."""

from __future__ import annotations

import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from espnet_layerskip.files import read_yaml, what_is_wrong

# What is looked for, best first. ESPnet's default, valid.acc, needs an attention decoder.
# ave is the average over most epochs; ESPnet3, and trainings that keep several, name its number
MODEL_FILES = (
    *(
        f"valid.{criterion}.{kind}.pth"
        for kind in ("ave", "ave_*best", "best")
        for criterion in ("cer_ctc", "acc", "loss")
    ),
    *(f"valid.*.{kind}.pth" for kind in ("ave", "ave_*best", "best")),
    "last.ckpt",
)
# Where there is one: of Lightning without an average, or what ESPnet's pack makes of a link.
SINGLE_FILES = ("*.ckpt", "*epoch.pth")

# An archive that would grow more than MAX_GROWTH times, and to more than MIN_SIZE bytes, is
# refused.
MAX_GROWTH = 100
MIN_SIZE = 100_000_000
MAX_MEMBERS = 10_000
# parts of a training configuration that name files which the model needs
FILE_KEYS = (
    *("normalize_conf", "bpemodel", "non_linguistic_symbols", "preprocessor_conf"),
    *("frontend_conf", "preencoder_conf", "token_list"),
)
MAX_VALUES = 1_000_000  # in a configuration; aliases in YAML can stand for any number of them


@dataclass(frozen=True)
class ModelFiles:
    """Files of one model.

    Attributes:
        train_config: Training configuration with its paths resolved.
        model_file: Checkpoint.
        tmpdir: Holds what was extracted or rewritten; it goes when this object goes, so
            keep the object as long as the model (SentencePiece models are read late).
    """

    train_config: Path
    model_file: Path
    tmpdir: tempfile.TemporaryDirectory[str]


def find_model(path: str | Path, model_file: str | Path | None = None) -> ModelFiles:
    """Locate configuration and checkpoint.

    Relative paths inside the configuration (``normalize_conf: stats_file``, ``bpemodel``)
    are looked up in the archive, or beside the experiment directory and in the directories
    above it, before the working directory.

    Args:
        path: EXPDIR with ``config.yaml`` and ``*.pth`` or ``*.ckpt``, a zip made by
            ``python -m espnet2.bin.pack asr`` or the directory that it was unpacked into, or a tag
            of espnet_model_zoo (``name/of_model``).
        model_file: Checkpoint, as a path or as a name inside ``path``; None takes the
            first of ``MODEL_FILES`` that exists; of several averages that over most epochs.

    Raises:
        ValueError: If something is missing or the archive is not safe to extract; says
            what is there.
    """
    tmpdir = tempfile.TemporaryDirectory(prefix="espnet_layerskip_")
    with named(tmpdir.name, path):
        return _find(str(path), Path(path), model_file, tmpdir)


@contextmanager
def named(tmpdir: str, path: str | Path) -> Iterator[None]:
    """Let errors name what the user gave, in the place of what was unpacked or rewritten."""
    try:
        yield
    except ValueError as e:
        said = str(e).replace(f"{tmpdir}/model", str(path)).replace(tmpdir, str(path))
        raise (e if said == str(e) else ValueError(said)) from e.__cause__


def _find(
    tag: str, path: Path, model_file: str | Path | None, tmpdir: tempfile.TemporaryDirectory[str]
) -> ModelFiles:
    if path.is_dir() and (path / "meta.yaml").is_file():  # an archive that somebody unpacked
        config_file, checkpoint = _packed_files(path, path)
        if model_file is not None:
            checkpoint = _choose_checkpoint(checkpoint.parent, model_file)
        roots = [path.resolve()]
    elif path.is_dir():
        config_file, checkpoint = find_in_directory(path, model_file)
        absolute = path.resolve()
        roots = [absolute, *absolute.parents]
    elif path.is_file() and zipfile.is_zipfile(path):
        root = Path(tmpdir.name) / "model"
        _unzip(path, root)
        config_file, checkpoint = _packed_files(path, root)
        if model_file is not None:
            checkpoint = _choose_checkpoint(checkpoint.parent, model_file)
        roots = [root]
    elif is_model_tag(tag):
        found = download_model(tag)
        config_file, checkpoint = Path(found["asr_train_config"]), Path(found["asr_model_file"])
        if model_file is not None:
            checkpoint = _choose_checkpoint(checkpoint.parent, model_file)
        roots = []  # its paths are absolute
    else:
        raise ValueError(
            f"{path} is neither an experiment directory (config.yaml and *.pth) nor a zip made by "
            "espnet2.bin.pack, nor a tag of espnet_model_zoo (name/of_model)"
        )
    config = _resolve(read_yaml(config_file), roots, config_file)
    check_files(config, path)
    resolved = Path(tmpdir.name) / "config.yaml"
    resolved.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    return ModelFiles(resolved, checkpoint, tmpdir)


def find_in_directory(path: Path, model_file: str | Path | None = None) -> tuple[Path, Path]:
    """Return configuration and checkpoint of an experiment directory; opens neither.

    Raises:
        ValueError: If one is missing; says what is there.
    """
    config_file = path / "config.yaml"
    if not config_file.is_file():
        raise ValueError(f"{path} has no config.yaml: {_listing(path)}")
    return config_file, _choose_checkpoint(path, model_file)


def is_model_tag(name: str) -> bool:
    """Return whether this can be a tag of espnet_model_zoo: a URL, or name/of_model.

    >>> is_model_tag("espnet/some_model"), is_model_tag("exp/asr.zip"), is_model_tag("./exp/asr")
    (True, False, False)
    """
    if re.match(r"https?://", name):
        return True
    owner, _, model = name.partition("/")
    named = owner.strip(".~") and model and "/" not in model and not Path(owner).exists()
    return bool(named) and Path(model).suffix not in (".zip", ".pth", ".ckpt", ".yaml")


def download_model(model_tag: str) -> dict[str, Any]:
    """Return the arguments of ESPnet's Speech2Text that name the files of a tag of the zoo.

    Raises:
        ValueError: If espnet_model_zoo is not installed, there is no such model or no network,
            or the model is not one of the ASR task.
    """
    try:
        from espnet_model_zoo.downloader import ModelDownloader  # type: ignore[import-not-found]
    except ImportError as e:
        raise ValueError(
            f"{model_tag} is not a path, and a model tag needs: pip install espnet_model_zoo"
        ) from e
    try:
        files: dict[str, Any] = ModelDownloader().download_and_unpack(model_tag)
    except (OSError, RuntimeError, ValueError, KeyError) as e:
        why = f"{type(e).__name__}: {e}".splitlines()[0]
        raise ValueError(
            f"{model_tag} is not a path, and as a model tag it could not be fetched ({why})"
        ) from e
    missing = [name for name in ("asr_train_config", "asr_model_file") if name not in files]
    if missing:
        raise ValueError(
            f"{model_tag} is not a model of ESPnet's ASR task: it has {', '.join(files)}, and not "
            + ", ".join(missing)
        )
    return files


def _choose_checkpoint(directory: Path, model_file: str | Path | None) -> Path:
    if model_file is not None:
        for candidate in (directory / model_file, Path(model_file)):
            if candidate.is_file():
                return candidate
        raise ValueError(f"no checkpoint {model_file} in {directory}: {_listing(directory)}")
    for pattern in (*MODEL_FILES, *SINGLE_FILES):
        found = [path for path in directory.glob(pattern) if path.is_file()]
        going_on = pattern == "*epoch.pth" and (directory / "checkpoint.pth").exists()
        if pattern in SINGLE_FILES and (len(found) > 1 or going_on):
            break  # nothing tells which is the best
        if found:
            return max(found, key=lambda path: (_averaged(path), path.name))
    raise ValueError(
        f"{directory} has none of {', '.join(MODEL_FILES)}, or a single .ckpt or *epoch.pth: name "
        f"one of its checkpoints (model_file); {_listing(directory)}"
    )


def _averaged(path: Path) -> int:
    """Return over how many epochs a checkpoint is the average, by its name; 0: it does not say."""
    match = re.search(r"\.ave_(\d+)best\.", path.name)
    return int(match[1]) if match else 0


def _listing(directory: Path) -> str:
    suffixes = (".pth", ".ckpt", ".yaml", ".zip")
    names = sorted(p.name for p in directory.iterdir() if p.suffix in suffixes)
    return "it holds " + (", ".join(names) if names else "no .pth, .ckpt, .yaml or .zip file")


def _unzip(archive: Path, root: Path) -> None:
    """Extract into root."""
    try:
        with zipfile.ZipFile(archive) as zf:
            _check_members(archive, zf)
            zf.extractall(root)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError) as err:
        raise ValueError(f"{archive} cannot be unpacked into {root}: {what_is_wrong(err)}") from err


def _packed_files(archive: Path, root: Path) -> tuple[Path, Path]:
    """Return (configuration, checkpoint) of an archive that is unpacked in root."""
    meta = read_yaml(root / "meta.yaml")
    found = []
    for section, key in (("yaml_files", "asr_train_config"), ("files", "asr_model_file")):
        names = meta.get(section)
        member_name = names.get(key) if isinstance(names, dict) else None
        # pack() stores a file from outside its working directory under its absolute path
        # in meta.yaml and without the leading slash in the archive
        inside = PurePosixPath(str(member_name).lstrip("/"))
        member = root / inside
        if member_name is None or ".." in inside.parts or not member.is_file():
            raise ValueError(f"{archive}: meta.yaml names {key}: {member_name}, not in it")
        found.append(member)
    return found[0], found[1]


def _check_members(archive: Path, zf: zipfile.ZipFile) -> None:
    """Raise ValueError for an archive that would write outside, or without bounds."""
    for name in zf.namelist():
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts:
            raise ValueError(f"{archive}: member {name!r} would be written outside: refused")
    if "meta.yaml" not in zf.namelist():
        raise ValueError(f"{archive} has no meta.yaml: make it with espnet2.bin.pack asr")
    if len(zf.namelist()) > MAX_MEMBERS:
        raise ValueError(f"{archive} has more than {MAX_MEMBERS} members: refused")
    check_growth(archive, sum(member.file_size for member in zf.infolist()))


def check_growth(archive: Path, size: int) -> None:
    """Raise ValueError if an archive would become too many bytes."""
    if size > MAX_GROWTH * archive.stat().st_size + MIN_SIZE:
        raise ValueError(
            f"{archive}: its {archive.stat().st_size} bytes would become {size}: refused, what is "
            f"worth having does not grow {MAX_GROWTH} times"
        )


def _resolve(config: dict[str, Any], roots: list[Path], source: Path) -> dict[str, Any]:
    """Replace every relative path that names a file under one of the roots."""
    left = MAX_VALUES

    def resolve(value: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"{source}: more than {MAX_VALUES} values: refused")
        if isinstance(value, dict):
            return {
                k: v if k == "token_list" and isinstance(v, list) else resolve(v)
                for k, v in value.items()
            }
        if isinstance(value, list):
            return [resolve(v) for v in value]
        if not isinstance(value, str) or "/" not in value or len(value) > 1024 or "\n" in value:
            return value
        if Path(value).is_absolute() and Path(value).exists():
            return value
        candidates = (root / value.lstrip("/") for root in roots)
        return next((str(path) for path in candidates if path.is_file()), value)

    resolved: dict[str, Any] = resolve(config)
    return resolved


def map_files(config: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Return a configuration with ``change(name)`` for each file that its model needs."""

    def mapped(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: v if k == "token_list" else mapped(v) for k, v in value.items()}
        if isinstance(value, list):
            return [mapped(v) for v in value]
        if not isinstance(value, str) or "/" not in value or not Path(value).is_file():
            return value
        return change(value)

    return {key: mapped(value) if key in FILE_KEYS else value for key, value in config.items()}


def check_files(config: dict[str, Any], path: Path) -> None:
    """Look for the statistics and the SentencePiece model that a configuration names.

    Args:
        config: The configuration.
        path: Whose it is, for the message.

    Raises:
        ValueError: If one is missing.
    """
    normalize = config.get("normalize_conf")
    stats_file = normalize.get("stats_file") if isinstance(normalize, dict) else None
    wanted = {"normalize_conf: stats_file": stats_file}
    if config.get("token_type") == "bpe":
        wanted["bpemodel"] = config.get("bpemodel")
    for key, name in wanted.items():
        if name is None and key == "bpemodel":
            raise ValueError(f"{path}: its configuration has token_type: bpe and no bpemodel")
        if isinstance(name, str) and not Path(name).is_file():
            raise ValueError(
                f"{path}: its configuration names {key}: {name}, which is neither in it, nor in a "
                "directory above it, nor relative to the working directory: restore the file"
            )
