import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchaudio.functional import resample

from espnet_layerskip.inference import audio
from espnet_layerskip.inference.audio import (
    AudioBlocks,
    AudioError,
    Utterance,
    read_audio,
    read_wav_scp,
    resampled,
)


def test_wav_scp(tmp_path):
    scp = tmp_path / "wav.scp"
    scp.write_text("a  x y.wav \n\nb cat z |\nc\n")
    assert read_wav_scp(scp) == [
        Utterance("a", "x y.wav"),
        Utterance("b", "cat z |"),
        Utterance("c", ""),
    ]


def test_wav_scp_that_cannot_be_used(tmp_path):
    with pytest.raises(ValueError, match="no such file: .*none.scp"):
        read_wav_scp(tmp_path / "none.scp")
    scp = tmp_path / "wav.scp"
    scp.write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        read_wav_scp(scp)
    scp.write_text("a x\na y\n")
    with pytest.raises(ValueError, match=r"two utterances are named 'a' \(x and y\)"):
        read_wav_scp(scp)


def test_samples_are_those_of_the_file(tmp_path, waves):
    path = tmp_path / "a.wav"
    soundfile.write(path, waves[0], 16000, subtype="FLOAT")
    samples = read_audio(Utterance("a", str(path)), 16000)
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, waves[0])


def test_pipes_are_not_run(tmp_path):
    canary = tmp_path / "canary"
    with pytest.raises(AudioError, match="utterance a: touch .* is a pipe"):
        read_audio(Utterance("a", f"touch {canary} |"), 16000)
    assert not canary.exists()


def test_bad_files_are_named(corpus):
    with pytest.raises(AudioError, match="utterance a: .*noise.wav: cannot be decoded"):
        read_audio(Utterance("a", str(corpus.noise)), 16000)
    with pytest.raises(AudioError, match="utterance b: gone.wav: no such audio file"):
        read_audio(Utterance("b", "gone.wav"), 16000)
    with pytest.raises(AudioError, match="utterance c: no path given: no such audio file"):
        read_audio(Utterance("c", ""), 16000)


def test_rate_and_channels(tmp_path):
    path = tmp_path / "stereo.wav"
    t = np.arange(8000) / 8000
    left = 0.5 * np.sin(2 * np.pi * 200 * t)
    soundfile.write(path, np.stack([left, 0 * left], 1), 8000, subtype="FLOAT")
    utt = Utterance("a", str(path))
    with pytest.raises(AudioError, match="stereo.wav has 2 channels"):
        read_audio(utt, 8000)
    with pytest.raises(AudioError, match="has 8000 Hz, but the model was trained on 16000 Hz"):
        read_audio(utt, 16000, mix=True)
    samples = read_audio(utt, 16000, mix=True, resample=True)
    assert samples.shape == (16000,)
    expected = 0.25 * np.sin(2 * np.pi * 200 * np.arange(16000) / 16000)
    np.testing.assert_allclose(samples[1000:-1000], expected[1000:-1000], atol=2e-3)


def test_blocks_are_the_file_and_can_be_read_again(corpus, waves, monkeypatch):
    monkeypatch.setattr(audio, "BLOCK_SECONDS", 1)
    blocks = AudioBlocks(Utterance("a", str(corpus.files[2])), 16000)
    assert blocks.seconds == pytest.approx(1.3)
    for _ in range(2):
        assert [len(block) for block in blocks] == [16000, 4800]
        np.testing.assert_array_equal(np.concatenate(list(blocks)), waves[2])


def test_a_file_that_breaks_off_is_named(tmp_path, waves, monkeypatch):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.tile(waves[0], 20), 16000)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2))
    with pytest.raises(AudioError, match="utterance a: .*a.flac: cannot be decoded as audio"):
        read_audio(Utterance("a", str(path)), 16000)


@given(
    st.sampled_from([(8000, 16000), (44100, 16000), (48000, 16000), (22050, 8000), (16000, 11025)]),
    st.lists(st.integers(0, 3000), max_size=5),
    st.integers(0, 10**6),
)
def test_resampling_in_blocks_is_resampling_the_whole(rates, lengths, seed):
    rng = np.random.default_rng(seed)
    blocks = [rng.standard_normal(n).astype(np.float32) for n in lengths]
    got = np.concatenate([np.zeros(0, np.float32), *resampled(iter(blocks), *rates)])
    whole = np.concatenate([np.zeros(0, np.float32), *blocks])
    if not whole.size:
        assert not got.size
        return
    expected = resample(torch.from_numpy(whole), *rates).numpy()
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=1e-5)
