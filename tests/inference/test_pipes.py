"""Audio that does not lie in a file, where the disk of temporary files is full."""

import errno
import io
import os
from types import SimpleNamespace

import pytest

from espnet_layerskip.inference.audio import AudioBlocks, AudioError, Utterance
from espnet_layerskip.inference.pipes import hold_stdin


def test_a_command_that_ends_by_a_full_disk_is_no_broken_audio(monkeypatch):
    """It cannot say so: what it says is held on the same disk."""
    utt = Utterance("a", "exit 1 |")
    with pytest.raises(AudioError, match="cannot be decoded as audio .*ended with status 1"):
        AudioBlocks(utt, None, pipes=True)
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_bavail=0))
    with pytest.raises(AudioError, match="espnet_layerskip_.*; the disk is full") as error:
        AudioBlocks(utt, None, pipes=True)
    assert "decoded" not in str(error.value)


@pytest.mark.parametrize(("fault", "named"), [(errno.ENOSPC, True), (errno.EBADF, False)])
def test_the_file_that_holds_standard_input_is_named_where_it_is_to_blame(
    monkeypatch, fault, named
):
    class Faulty(io.BytesIO):
        def read(self, size=-1):
            raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=Faulty()))
    with pytest.raises(OSError, match=os.strerror(fault)) as error:
        hold_stdin()
    assert ("espnet_layerskip_" in str(error.value)) == named
