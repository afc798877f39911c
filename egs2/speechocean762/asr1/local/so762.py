"""speechocean762 -> data/{train,dev,calib,test,test_adult,test_child,test_clean}.

Zhang et al., arXiv:2104.01378; OpenSLR 101: 5000 English sentences, each read once, by 250 speakers
whose first language is Mandarin, half of them children. The corpus has Kaldi tables for its two
parts of 125 speakers:

- of the train part, ``dev`` (checkpoints and seeds are chosen on it) and ``calib`` (thresholds are
  chosen on it) are speakers apart, half of them children; ``train`` is the rest. Sentences that the
  test part has too are left out of all three.
- ``test`` is the test part; ``test_adult`` and ``test_child`` are its speakers of 18 and more and
  those below; ``test_clean`` are the utterances whose readers said the prompt, by five experts'
  scores (sentence accuracy of 7 or more, no word of 3 or less).
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from espnet_layerskip.files import DataDir, read_rows, read_table, run_main, some
from espnet_layerskip.recipe.download import fetch_archive, unpack

DEFAULT_URL = "https://www.openslr.org/resources/101/speechocean762.tar.gz"
HINT = (
    "Without a network, fetch the corpus elsewhere and give its directory with --so762_root; "
    "another address goes with --so762_url"
)
PARTS = ("train", "test")
NUM_UTTERANCES = 2500
ADULT = 18
NUM_SPEAKERS = {"dev": 10, "calib": 16}
MIN_SENTENCE, MIN_WORD = 7.0, 3.0


def find_root(path: Path) -> Path:
    """Return the directory with ``train`` and ``test``: the path itself or its ``speechocean762``.

    Raises:
        ValueError: Neither is the corpus; the message says what was looked for and what is there.
    """
    for root in (path, path / "speechocean762"):
        if all((root / part / "wav.scp").is_file() for part in PARTS):
            return root.resolve()
    found = some(p.name for p in path.iterdir()) if path.is_dir() else "no such directory"
    raise ValueError(
        f"so762_root '{path}': looked for train/wav.scp and test/wav.scp, here and in "
        f"speechocean762/; found {found or 'nothing'}"
    )


def read_part(root: Path, part: str) -> DataDir:
    """Return audio, transcripts and speakers of a part.

    Raises:
        ValueError: Tables that do not fit, or missing audio; all of it is named.
    """
    directory = root / part
    data = DataDir(
        *(read_table(directory / name) for name in ("wav.scp", "text", "utt2spk")),
    )
    data.check_ids(directory)
    data.wav = {utt: str(root / path) for utt, path in data.wav.items()}
    if missing := [path for path in data.wav.values() if not Path(path).is_file()]:
        raise ValueError(f"{directory}: {len(missing)} audio file(s) missing: {some(missing)}")
    return data


def of_speakers(data: DataDir, speakers: Iterable[str]) -> DataDir:
    """Return the utterances of some speakers."""
    chosen = set(speakers)
    return data.subset(utt for utt, speaker in data.utt2spk.items() if speaker in chosen)


def speakers_apart(ages: dict[str, int], sizes: dict[str, int]) -> dict[str, list[str]]:
    """Choose speakers for each set, half of them children, spread over the ages.

    Args:
        ages: Age in years by speaker.
        sizes: Number of speakers by set; even.

    Raises:
        ValueError: There are not enough speakers.
    """
    chosen: dict[str, list[str]] = {name: [] for name in sizes}
    for adult in (False, True):
        pool = sorted((age, speaker) for speaker, age in ages.items() if (age >= ADULT) is adult)
        order = _in_turn(sizes)  # so that each set has all ages
        if len(order) >= len(pool):
            raise ValueError(f"{len(pool)} speakers of one age group are too few for {sizes}")
        for i, name in enumerate(order):
            chosen[name].append(pool[(2 * i + 1) * len(pool) // (2 * len(order))][1])
    return {name: sorted(speakers) for name, speakers in chosen.items()}


def read_scores(root: Path, part: str, scores: Path | None) -> dict[str, dict[str, Any]]:
    """Return the experts' scores by utterance, or nothing where the corpus has none.

    Args:
        root: The corpus; its ``resource/scores.json`` is read.
        part: "train" or "test".
        scores: Another place: ``train_utt2score`` and ``test_utt2score`` of the corpus's first
            release, a JSON object after each utterance id.

    Raises:
        ValueError: A file that cannot be read; the message names it.
    """
    if scores is not None:
        path = scores / f"{part}_utt2score"
        found = {}
        for number, utt, value in read_rows(path):
            try:
                found[utt] = json.loads(value)
            except json.JSONDecodeError as err:
                raise ValueError(f"{path}:{number}: no JSON object follows the id ({err})") from err
        return found
    path = root / "resource/scores.json"
    if not path.is_file():
        return {}
    try:
        content: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as err:
        raise ValueError(f"{path}: no JSON file ({err})") from err
    return content


def said_as_written(text: str, score: dict[str, Any] | None) -> bool:
    """Return whether the reader said the prompt, by the mean of the experts; False without scores.

    >>> said_as_written("GO ON", {"text": "go on", "accuracy": [8, 9], "words": [{"accuracy": 10}]})
    True
    """

    def mean(value: Any) -> float:
        return fmean(value) if isinstance(value, list) else float(value)

    if score is None:
        return False
    words = [mean(word["accuracy"]) for word in score["words"]]
    return (
        str(score["text"]).upper() == text
        and mean(score["accuracy"]) >= MIN_SENTENCE
        and min(words, default=0.0) > MIN_WORD
    )


def prepare(
    root: Path, out: Path, *, scores: Path | None = None, check_counts: bool = True
) -> dict[str, DataDir]:
    """Write the data directories.

    Args:
        root: The corpus.
        out: The recipe's data directory.
        scores: As in `read_scores`.
        check_counts: Each part must have as many utterances as speechocean762's.

    Raises:
        ValueError: Something is missing, or the counts are others.
    """
    root = find_root(root)
    parts = {part: read_part(root, part) for part in PARTS}
    for part, data in parts.items():
        if check_counts and len(data.wav) != NUM_UTTERANCES:
            raise ValueError(
                f"{root}/{part}: {len(data.wav)} utterances; speechocean762 has {NUM_UTTERANCES}"
            )
    test, whole = parts["test"], parts["train"]
    ages = {p: _ages(root / p / "spk2age", parts[p]) for p in PARTS}
    known = set(test.text.values())
    whole = whole.subset(utt for utt, text in whole.text.items() if text not in known)
    apart = speakers_apart(ages["train"], NUM_SPEAKERS)
    sets = {name: of_speakers(whole, speakers) for name, speakers in apart.items()}
    held = {speaker for speakers in apart.values() for speaker in speakers}
    sets["train"] = of_speakers(whole, ages["train"].keys() - held)
    sets["test"] = test
    sets["test_adult"] = of_speakers(test, (s for s, a in ages["test"].items() if a >= ADULT))
    sets["test_child"] = of_speakers(test, (s for s, a in ages["test"].items() if a < ADULT))
    if found := read_scores(root, "test", scores):
        sets["test_clean"] = test.subset(
            utt for utt, text in test.text.items() if said_as_written(text, found.get(utt))
        )
    else:
        logging.warning(
            "%s/resource/scores.json is not there: no test_clean; --so762_scores names another "
            "directory of scores",
            root,
        )
    for name, data in sets.items():
        data.save(out / name)
        words = sum(len(text.split()) for text in data.text.values())
        speakers = len(set(data.utt2spk.values()))
        logging.info(
            "%s/%s: %d utterances, %d words, %d speakers", out, name, len(data.wav), words, speakers
        )
    return sets


def download(url: str, directory: Path) -> Path:
    """Fetch and unpack the archive (a partial download goes on); return where the corpus is.

    Raises:
        ValueError: No network, or a broken archive.
    """
    archive = fetch_archive(url, directory, hint=HINT)
    unpack(archive, directory / "so762_unpacked")
    return find_root(directory / "so762_unpacked")


def combine(sources: list[Path], out: Path) -> DataDir:
    """Write one data directory with the utterances of several.

    Raises:
        ValueError: An utterance is in two of them.
    """
    data = DataDir({}, {}, {})
    for source in sources:
        more = DataDir.load(source)
        if twice := data.wav.keys() & more.wav.keys():
            raise ValueError(f"{source}: {len(twice)} id(s) came before: {some(twice)}")
        data = DataDir(data.wav | more.wav, data.text | more.text, data.utt2spk | more.utt2spk)
    data.save(out)
    logging.info("%s: %d utterances", out, len(data.wav))
    return data


def _ages(path: Path, data: DataDir) -> dict[str, int]:
    table = read_table(path)
    if missing := set(data.utt2spk.values()) - table.keys():
        raise ValueError(f"{path}: {len(missing)} speaker(s) without an age: {some(missing)}")
    wrong = [f"{speaker} {age}" for speaker, age in table.items() if not age.isdigit()]
    if wrong:
        raise ValueError(f"{path}: an age in years is needed, not {some(wrong)}")
    return {speaker: int(age) for speaker, age in table.items()}


def _in_turn(sizes: dict[str, int]) -> list[str]:
    """Return half of each set's places, spread evenly: ``{"a": 2, "b": 4}`` gives b, a, b."""
    places = [((2 * i + 1) / size, name) for name, size in sizes.items() for i in range(size // 2)]
    return [name for _, name in sorted(places)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Data preparation for speechocean762")
    parser.add_argument("--so762_root", type=Path, help="Left out: it is downloaded")
    parser.add_argument("--so762_url", default=DEFAULT_URL, help="Its archive")
    parser.add_argument("--so762_scores", type=Path, help="Left out: the corpus's scores.json")
    parser.add_argument("--download_dir", type=Path, default=Path("downloads"))
    parser.add_argument("--check_counts", choices=("true", "false"), default="true")
    parser.add_argument("--combine", type=Path, nargs="+", help="Only join data directories in OUT")
    parser.add_argument("--out", type=Path, default=Path("data"))
    args = parser.parse_args()
    if args.combine:
        combine(args.combine, args.out)
        return
    root = args.so762_root or download(args.so762_url, args.download_dir)
    prepare(root, args.out, scores=args.so762_scores, check_counts=args.check_counts == "true")


if __name__ == "__main__":
    run_main(main)
