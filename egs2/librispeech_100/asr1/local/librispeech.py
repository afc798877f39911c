"""LibriSpeech -> data/{train_clean_100,dev,dev_clean,dev_other,test_clean,test_other}.

A part is a directory such as ``train-clean-100`` with ``SPEAKER/CHAPTER/*.flac`` and one
``SPEAKER-CHAPTER.trans.txt`` a chapter. Parts are taken from the given directory, from
``LibriSpeech/`` in it, or from where the download puts them. The speaker is LibriSpeech's reader
(Kaldi takes reader and chapter). ``dev`` is dev_clean and dev_other together, as in ESPnet.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from espnet_layerskip.files import DataDir, read_rows, run_main, some
from espnet_layerskip.recipe.download import fetch_archive, unpack

DEFAULT_URL = "https://www.openslr.org/resources/12"
HINT = (
    "Without a network, fetch the corpus elsewhere and give its directory with "
    "--librispeech_root; another address goes with --librispeech_url"
)
# Utterances; SHA-256 of the archive, which torchaudio.datasets.librispeech has too.
PARTS = {
    "train-clean-100": (28539, "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"),
    "dev-clean": (2703, "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
    "dev-other": (2864, "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
    "test-clean": (2620, "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
    "test-other": (2939, "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"),
}


def find_part(root: Path, part: str) -> Path:
    """Return the directory of a part.

    Raises:
        ValueError: It is not there; the message says where it was looked for and what is there.
    """
    places = [root / part, root / "LibriSpeech" / part, root / part / "LibriSpeech" / part]
    for place in reversed(places):
        if place.is_dir():
            return place.resolve()
    found = some(p.name for p in root.iterdir()) if root.is_dir() else "no such directory"
    raise ValueError(
        f"librispeech_root '{root}': looked for {part} here and in LibriSpeech/; "
        f"found {found or 'nothing'}"
    )


def read_part(directory: Path) -> DataDir:
    """Return audio, transcripts and speakers of one part.

    Raises:
        ValueError: Audio or transcripts are missing, or a transcript comes twice; all are named.
    """
    data = DataDir({}, {}, {})
    audio = {path.stem: path for path in directory.glob("*/*/*.flac")}
    for table in sorted(directory.glob("*/*/*.trans.txt")):
        for number, utt, text in read_rows(table):
            if utt in data.text:
                raise ValueError(f"{table}:{number}: the utterance '{utt}' comes a second time")
            data.text[utt] = text
            data.utt2spk[utt] = utt.split("-")[0]
    if no_audio := data.text.keys() - audio.keys():
        raise ValueError(f"{directory}: {len(no_audio)} .flac file(s) missing: {some(no_audio)}")
    if no_text := audio.keys() - data.text.keys():
        raise ValueError(f"{directory}: {len(no_text)} without a transcript: {some(no_text)}")
    if not audio:
        raise ValueError(f"{directory}: there is no SPEAKER/CHAPTER/*.flac in it")
    data.wav = {utt: str(path) for utt, path in audio.items()}
    return data


def prepare(root: Path, out: Path, *, check_counts: bool = True) -> dict[str, DataDir]:
    """Write the data directories.

    Args:
        root: LibriSpeech.
        out: The recipe's data directory.
        check_counts: Each part must have as many utterances as LibriSpeech's.

    Raises:
        ValueError: Something is missing, or the counts are others.
    """
    sets: dict[str, DataDir] = {}
    for part, (needed, _) in PARTS.items():
        directory = find_part(root, part)
        data = sets[part.replace("-", "_")] = read_part(directory)
        if check_counts and len(data.wav) != needed:
            raise ValueError(f"{directory}: {len(data.wav)} utterances; LibriSpeech has {needed}")
    clean, other = sets["dev_clean"], sets["dev_other"]
    sets["dev"] = DataDir(
        clean.wav | other.wav, clean.text | other.text, clean.utt2spk | other.utt2spk
    )
    for name, data in sets.items():
        data.save(out / name)
        words = sum(len(text.split()) for text in data.text.values())
        logging.info("%s/%s: %d utterances, %d words", out, name, len(data.wav), words)
    return sets


def download(url: str, directory: Path) -> Path:
    """Fetch, verify and unpack the archives, each of which may be there; return their directory.

    Raises:
        ValueError: No network, or an archive that is not LibriSpeech's.
    """
    for part, (_, sha256) in PARTS.items():
        archive = fetch_archive(f"{url.rstrip('/')}/{part}.tar.gz", directory, sha256, HINT)
        unpack(archive, directory / part)
    return directory


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Data preparation for LibriSpeech, 100 h")
    parser.add_argument("--librispeech_root", type=Path, help="Left out: it is downloaded")
    parser.add_argument("--librispeech_url", default=DEFAULT_URL, help="Where the archives are")
    parser.add_argument("--download_dir", type=Path, default=Path("downloads"))
    parser.add_argument("--out", type=Path, default=Path("data"))
    parser.add_argument("--check_counts", choices=("true", "false"), default="true")
    args = parser.parse_args()
    root = args.librispeech_root or download(args.librispeech_url, args.download_dir)
    prepare(root, args.out, check_counts=args.check_counts == "true")


if __name__ == "__main__":
    run_main(main)
