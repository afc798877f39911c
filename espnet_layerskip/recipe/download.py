"""Download of a corpus archive: resumes where it stopped, verified before it is used."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path

from espnet_layerskip.inference.pretrained import check_growth

TIMEOUT_SECONDS = 60
CHUNK_BYTES = 1 << 20


def fetch_archive(url: str, directory: Path, sha256: str = "", hint: str = "") -> Path:
    """Download ``url`` into ``directory`` unless it is there; return the file.

    A download that was cut off lies beside it as NAME.part and is continued.

    Args:
        url: Where it is; the last part is the file's name.
        directory: Where it goes.
        sha256: What its hash must be; empty: it is not checked.
        hint: Ends the message if it cannot be had: what else can be done.

    Raises:
        ValueError: The server cannot be reached or refuses, the connection ended early, or the
            hash is another.
    """
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / (url.rstrip("/").rsplit("/", 1)[-1] or "archive")
    if target.is_file():
        logging.info("%s is there already", target)
        return target
    part = target.with_name(target.name + ".part")
    have = part.stat().st_size if part.is_file() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    logging.info("downloading %s%s", url, f" from byte {have}" if have else "")
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as reply:
            resumed = have > 0 and getattr(reply, "status", None) == 206
            length = reply.headers.get("Content-Length")
            expected = (have if resumed else 0) + int(length) if length else None
            with part.open("ab" if resumed else "wb") as out:
                shutil.copyfileobj(reply, out, CHUNK_BYTES)
    except urllib.error.HTTPError as err:
        if err.code == 416 and have:
            part.unlink()
            return fetch_archive(url, directory, sha256, hint)
        raise ValueError(f"{url}: the server answered {err.code} {err.reason}") from err
    except (urllib.error.URLError, OSError, ValueError) as err:
        reason = getattr(err, "reason", err)
        raise ValueError(f"{url}: cannot be downloaded ({reason}){hint and f'. {hint}'}") from err
    size = part.stat().st_size
    if expected is not None and size != expected:
        raise ValueError(f"{url}: {size} of {expected} bytes came; run it again to go on")
    if sha256:
        with part.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != sha256:
            raise ValueError(f"{part}: its SHA-256 is {found}, not {sha256}: remove it, try again")
    os.replace(part, target)
    return target


def unpack(archive: Path, directory: Path) -> None:
    """Unpack a tar archive; a directory that was unpacked in full before is left as it is.

    Raises:
        ValueError: The archive is broken or holds unsafe paths (it says to remove it), or would
            grow without bounds.
    """
    stat = archive.stat()
    stamp = f"{archive.name} {stat.st_size} {stat.st_mtime_ns}\n"
    done = directory / ".unpacked"
    if done.is_file() and done.read_text(encoding="utf-8") == stamp:
        return
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        with tarfile.open(archive) as tar:
            size = 0
            for member in tar:
                size += member.size
                check_growth(archive, size)
                tar.extract(member, directory, filter="data")
    except (tarfile.TarError, zlib.error, EOFError, OSError) as err:
        if getattr(err, "errno", None):  # a full disk: the archive is not to blame
            raise
        raise ValueError(
            f"{archive}: not a whole tar archive ({err}): remove it, try again"
        ) from err
    done.write_text(stamp, encoding="utf-8")
