"""AN4: the layouts, ESPnet's ids and splits, what is missing, and the download."""

from __future__ import annotations

import http.server
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import an4
from espnet_layerskip.files import DataDir
from espnet_layerskip.recipe.download import fetch_archive, unpack

from .conftest import REPO, write_noise

TRAIN = {"an1-fash-b": "YES", "an2-fash-b": "NO", "cen1-mabc-b": "A B C"}
TEST = {"an3-ftst-b": "GO TO"}
ANY = {"ndev": 1, "num_train": 0, "num_test": 0}


def make_an4(root: Path, suffix: str) -> Path:
    """Write AN4's layout with four recordings."""
    (root / "etc").mkdir(parents=True)
    for part, texts, folder in (("train", TRAIN, "an4_clstk"), ("test", TEST, "an4test_clstk")):
        ids, lines = [], []
        for name, words in texts.items():
            file_id = f"{folder}/{name.split('-')[1]}/{name}"
            write_noise(root / "wav" / f"{file_id}{suffix}")
            ids.append(file_id)
            marked = f"<s> {words} </s>" if part == "train" else words
            lines.append(f"{marked} ({name})")
        (root / f"etc/an4_{part}.fileids").write_text("\n".join(ids) + "\n")
        (root / f"etc/an4_{part}.transcription").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("suffix", [".wav", ".sph"])
@pytest.mark.parametrize("inside", ["", "an4"])
def test_layouts(tmp_path: Path, suffix: str, inside: str) -> None:
    make_an4(tmp_path / "corpus" / inside, suffix)
    an4.prepare(tmp_path / "corpus", tmp_path / "data", **ANY)
    train = DataDir.load(tmp_path / "data/train")
    assert train.text == {"fash-an1-b": "YES", "fash-an2-b": "NO", "mabc-cen1-b": "A B C"}
    assert train.utt2spk["mabc-cen1-b"] == "mabc"
    assert all(p.endswith(suffix) and Path(p).is_file() for p in train.wav.values())
    assert set(DataDir.load(tmp_path / "data/train_dev").wav) == {"fash-an1-b"}
    assert set(DataDir.load(tmp_path / "data/train_nodev").wav) == {"fash-an2-b", "mabc-cen1-b"}
    assert DataDir.load(tmp_path / "data/test").text == {"ftst-an3-b": "GO TO"}
    an4.check_headers(tmp_path / "corpus" / inside)


def test_what_is_not_an4_is_described(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such directory"):
        an4.find_root(tmp_path / "nowhere")
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match=r"looked for etc/an4_train.fileids.*found photos"):
        an4.find_root(tmp_path)
    make_an4(tmp_path / "raw", ".raw.wav")
    with pytest.raises(ValueError, match=r"4 audio|3 audio file\(s\) missing: .*an1-fash-b"):
        an4.prepare(tmp_path / "raw", tmp_path / "data", **ANY)


def test_missing_parts_and_wrong_counts_are_named(tmp_path: Path) -> None:
    root = make_an4(tmp_path / "an4", ".wav")
    with pytest.raises(ValueError, match=r"the train part has 3 utterances; AN4 has 948"):
        an4.prepare(root, tmp_path / "data")
    with pytest.raises(ValueError, match=r"ndev_utt 3: it must be in 1\.\.2"):
        an4.prepare(root, tmp_path / "data", ndev=3, num_train=0, num_test=0)
    (root / "wav/an4_clstk/fash/an2-fash-b.wav").unlink()
    with pytest.raises(ValueError, match=r"1 audio file\(s\) missing: an4_clstk/fash/an2-fash-b"):
        an4.prepare(root, tmp_path / "data", **ANY)
    (root / "etc/an4_test.transcription").write_text("SOMETHING ELSE (an9-ftst-b)\n")
    with pytest.raises(ValueError, match=r"1 without a transcript: an3-ftst-b"):
        an4.read_part(root, "test")


def test_a_bad_transcript_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("YES (a-b-c)\nNO NAME HERE\n")
    with pytest.raises(ValueError, match=r"t:2: 'WORDS \(name\)' is needed"):
        an4.read_transcripts(path)


class RangeServer(http.server.BaseHTTPRequestHandler):
    """Serves one file, from a byte on where it is asked to; remembers what was asked."""

    content = b""
    asked: list[str | None] = []  # noqa: RUF012  (reset by the fixture)

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        start = int(wanted.split("=")[1].rstrip("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start:])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, bytes]]:
    root = make_an4(tmp_path / "src" / "an4", ".sph")
    with tarfile.open(tmp_path / "an4_sphere.tar.gz", "w:gz") as tar:
        tar.add(root, arcname="an4")
    RangeServer.content = (tmp_path / "an4_sphere.tar.gz").read_bytes()
    RangeServer.asked = []
    httpd = http.server.HTTPServer(("127.0.0.1", 0), RangeServer)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}/an4_sphere.tar.gz", RangeServer.content
    httpd.shutdown()
    httpd.server_close()


def test_a_download_goes_on_where_it_stopped(server: tuple[str, bytes], tmp_path: Path) -> None:
    url, content = server
    out = tmp_path / "downloads"
    out.mkdir()
    (out / "an4_sphere.tar.gz.part").write_bytes(content[:1000])
    archive = fetch_archive(url, out)
    assert archive.read_bytes() == content
    assert RangeServer.asked == ["bytes=1000-"]
    assert fetch_archive(url, out) == archive
    assert len(RangeServer.asked) == 1
    unpack(archive, out / "unpacked")
    assert an4.find_root(out / "unpacked") == (out / "unpacked/an4").resolve()


def test_a_download_is_verified_by_its_content(server: tuple[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"3 train utterances; AN4 has 948"):
        an4.download(server[0], tmp_path / "downloads")


def test_a_cut_archive_is_refused(server: tuple[str, bytes], tmp_path: Path) -> None:
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(server[1][: len(server[1]) // 2])
    with pytest.raises(ValueError, match=r"not a whole tar archive .*remove it"):
        unpack(cut, tmp_path / "unpacked")


def hostile_tar(path: Path, name: str, kind: bytes = tarfile.REGTYPE, size: int = 1) -> Path:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, "/etc/passwd"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(member, io.BytesIO(bytes(size)) if kind == tarfile.REGTYPE else None)
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [("../evil", tarfile.REGTYPE), ("link", tarfile.SYMTYPE), ("link", tarfile.LNKTYPE)],
)
def test_archives_cannot_write_outside(tmp_path: Path, name: str, kind: bytes) -> None:
    archive = hostile_tar(tmp_path / "a.tar.gz", name, kind)
    with pytest.raises(ValueError, match=r"not a whole tar archive .*remove it"):
        unpack(archive, tmp_path / "out/in")
    assert not (tmp_path / "out/evil").exists()
    assert not (tmp_path / "out/in/link").exists()
    absolute = hostile_tar(tmp_path / "a.tar.gz", f"{tmp_path}/evil")
    with suppress(ValueError):
        unpack(absolute, tmp_path / "out/in")
    assert not (tmp_path / "evil").exists()


def test_archives_do_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espnet_layerskip.inference.pretrained.MIN_SIZE", 0)
    bomb = hostile_tar(tmp_path / "a.tar.gz", "zeros", size=1_000_000)
    with pytest.raises(ValueError, match="bytes would become 1000000: refused"):
        unpack(bomb, tmp_path / "out")
    assert not (tmp_path / "out/zeros").exists()


def test_no_network_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be downloaded .*--an4_root"):
        fetch_archive("http://127.0.0.1:9/an4_sphere.tar.gz", tmp_path, hint=an4.HINT)
    with pytest.raises(ValueError, match=r"cannot be downloaded"):
        fetch_archive("no-url", tmp_path)


def test_the_real_corpus_has_espnets_counts(tmp_path: Path) -> None:
    root = Path(os.environ.get("ESPNET_LAYERSKIP_AN4_ROOT", REPO.parent / "shared/data/an4"))
    if not root.is_dir():
        pytest.skip(f"no AN4 at {root}; set ESPNET_LAYERSKIP_AN4_ROOT to run this")
    parts = an4.prepare(root, tmp_path)
    found = {
        name: (len(data.wav), sum(len(text.split()) for text in data.text.values()))
        for name, data in parts.items()
    }
    assert found["train_nodev"][0] == 848
    assert found["train_dev"] == (100, 591)
    assert found["test"] == (130, 773)
    assert sum(len(text) for text in parts["test"].text.values()) == 2565
