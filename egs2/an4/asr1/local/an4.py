"""CMU AN4 -> data/{train,train_nodev,train_dev,test} with ESPnet's splits.

Layouts that are taken (each also one level down, in ``an4/``):

- the GitHub distribution: ``etc/an4_{train,test}.{fileids,transcription}``, ``wav/**/*.wav``;
- the official sphere tarball: the same ``etc``, ``wav/**/*.sph``.

The ids are ``<speaker>-<recording>-b``; train_dev is the first 100 utterances of the sorted
training set, train_nodev the rest.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import soundfile

from espnet_layerskip.files import DataDir, read_lines, run_main, some
from espnet_layerskip.recipe.download import fetch_archive, unpack

DEFAULT_URL = "http://www.speech.cs.cmu.edu/databases/an4/an4_sphere.tar.gz"
HINT = (
    "Without a network, fetch the corpus elsewhere and give its directory with --an4_root; "
    "another address goes with --an4_url"
)
NUM_TRAIN = 948
NUM_TEST = 130
SUFFIXES = (".wav", ".sph")


def find_root(path: Path) -> Path:
    """Return the directory that holds ``etc`` and ``wav``: the path itself or its ``an4``.

    Raises:
        ValueError: Neither is AN4; the message says what was looked for and what is there.
    """
    if not path.is_dir():
        raise ValueError(f"an4_root '{path}': no such directory")
    needed = [f"etc/an4_{s}.{x}" for s in ("train", "test") for x in ("fileids", "transcription")]
    for root in (path, path / "an4"):
        if root.is_dir() and all((root / name).is_file() for name in needed):
            if not (root / "wav").is_dir():
                raise ValueError(
                    f"an4_root '{root}': looked for wav/ with .wav or .sph files "
                    "(the raw and feature distributions are not read); "
                    f"found {some(p.name for p in root.iterdir())}"
                )
            return root.resolve()
    found = some(p.name for p in path.iterdir()) or "nothing"
    raise ValueError(
        f"an4_root '{path}': looked for {', '.join(needed)} and wav/, here and in an4/; "
        f"found {found}"
    )


def read_transcripts(path: Path) -> dict[str, str]:
    """Read lines like ``<s> YES </s> (an251-fash-b)``: recording name -> words.

    Raises:
        ValueError: A line without a name in brackets at its end, or a name that comes twice.
    """
    texts: dict[str, str] = {}
    for number, line in read_lines(path):
        if not line.strip():
            continue
        words, _, name = line.strip().rpartition("(")
        name = name.rstrip(")").strip()
        if not name or not line.rstrip().endswith(")"):
            raise ValueError(f"{path}:{number}: 'WORDS (name)' is needed, not '{line.strip()}'")
        if name in texts:
            raise ValueError(f"{path}:{number}: the name '{name}' comes a second time")
        texts[name] = " ".join(w for w in words.split() if w not in ("<s>", "</s>"))
    return texts


def utterance_id(name: str) -> tuple[str, str]:
    """Return id and speaker of a recording.

    >>> utterance_id("an251-fash-b")
    ('fash-an251-b', 'fash')
    """
    parts = name.split("-")
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"recording '{name}': a name like an251-fash-b is needed")
    recording, speaker, channel = parts
    return f"{speaker}-{recording}-{channel}", speaker


def read_part(root: Path, part: str) -> DataDir:
    """Collect one part ('train' or 'test').

    Raises:
        ValueError: Recordings without a file or a transcript, all of them named.
    """
    texts = read_transcripts(root / "etc" / f"an4_{part}.transcription")
    ids_file = root / "etc" / f"an4_{part}.fileids"
    data = DataDir({}, {}, {})
    no_audio: list[str] = []
    no_text: list[str] = []
    for file_id in ids_file.read_text(encoding="utf-8").split():
        name = file_id.rsplit("/", 1)[-1]
        base = root / "wav" / file_id
        path = next((p for s in SUFFIXES if (p := base.with_name(name + s)).is_file()), None)
        if path is None:
            no_audio.append(f"{file_id}{{{','.join(SUFFIXES)}}}")
        if name not in texts:
            no_text.append(name)
        if path is not None and name in texts:
            utt, speaker = utterance_id(name)
            data.wav[utt], data.text[utt], data.utt2spk[utt] = str(path), texts[name], speaker
    if no_audio:
        raise ValueError(f"{root}/wav: {len(no_audio)} audio file(s) missing: {some(no_audio)}")
    if no_text:
        raise ValueError(f"{ids_file}: {len(no_text)} without a transcript: {some(no_text)}")
    return data


def prepare(
    root: Path, out: Path, *, ndev: int = 100, num_train: int = NUM_TRAIN, num_test: int = NUM_TEST
) -> dict[str, DataDir]:
    """Write data/train, train_dev, train_nodev and test.

    Args:
        root: AN4, in one of the layouts above.
        out: The recipe's data directory.
        ndev: Number of utterances of train_dev.
        num_train: How many training utterances there must be (0: any number).
        num_test: How many test utterances there must be (0: any number).

    Raises:
        ValueError: Something is missing, or the counts are not AN4's.
    """
    root = find_root(root)
    parts = {"train": read_part(root, "train"), "test": read_part(root, "test")}
    for part, needed in (("train", num_train), ("test", num_test)):
        found = len(parts[part].wav)
        if needed and found != needed:
            raise ValueError(f"{root}: the {part} part has {found} utterances; AN4 has {needed}")
    ids = sorted(parts["train"].wav)
    if not 0 < ndev < len(ids):
        raise ValueError(f"ndev_utt {ndev}: it must be in 1..{len(ids) - 1}")
    parts["train_dev"] = parts["train"].subset(ids[:ndev])
    parts["train_nodev"] = parts["train"].subset(ids[ndev:])
    for name, data in parts.items():
        data.save(out / name)
        words = sum(len(text.split()) for text in data.text.values())
        logging.info("%s/%s: %d utterances, %d words", out, name, len(data.wav), words)
    return parts


def check_headers(root: Path) -> None:
    """Open every audio file's header.

    Raises:
        ValueError: Files that cannot be opened, all of them named.
    """
    broken = []
    for path in sorted(p for s in SUFFIXES for p in (root / "wav").rglob(f"*{s}")):
        try:
            soundfile.info(str(path))
        except (soundfile.LibsndfileError, RuntimeError):
            broken.append(str(path))
    if broken:
        raise ValueError(f"{root}: {len(broken)} file(s) cannot be opened: {some(broken)}")


def download(url: str, directory: Path) -> Path:
    """Fetch and unpack the official archive (a partial download goes on); return its root.

    Raises:
        ValueError: No network, a broken archive, or content that is not AN4.
    """
    archive = fetch_archive(url, directory, hint=HINT)
    unpack(archive, directory / "an4_unpacked")
    root = find_root(directory / "an4_unpacked")
    for part, needed in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        found = len(read_part(root, part).wav)
        if found != needed:
            raise ValueError(f"{archive}: {found} {part} utterances; AN4 has {needed}: remove it")
    check_headers(root)
    return root


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Data preparation for AN4")
    parser.add_argument("--an4_root", type=Path, help="AN4; left out: it is downloaded")
    parser.add_argument("--an4_url", default=DEFAULT_URL, help="The official archive")
    parser.add_argument("--download_dir", type=Path, default=Path("downloads"))
    parser.add_argument("--out", type=Path, default=Path("data"))
    parser.add_argument("--ndev_utt", type=int, default=100)
    parser.add_argument("--num_train", type=int, default=NUM_TRAIN, help="0: do not check")
    parser.add_argument("--num_test", type=int, default=NUM_TEST, help="0: do not check")
    args = parser.parse_args()
    root = args.an4_root or download(args.an4_url, args.download_dir)
    counts = {"num_train": args.num_train, "num_test": args.num_test}
    prepare(root, args.out, ndev=args.ndev_utt, **counts)


if __name__ == "__main__":
    run_main(main)
