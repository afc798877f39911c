import numpy as np
import pytest
from scipy.signal import welch

from espnet_layerskip.evaluation import inputs
from espnet_layerskip.evaluation.inputs import Speech
from espnet_layerskip.evaluation.shift_names import ALL, DEFAULT, read_shifts
from espnet_layerskip.evaluation.shifts import shift_samples, shifted

RATE = 16000


def tone(name, seconds=1.0, hz=1000.0, level=0.3):
    t = np.arange(round(seconds * RATE)) / RATE
    return Speech(name, (level * np.sin(2 * np.pi * hz * t)).astype(np.float32), RATE)


@pytest.fixture
def corpus():
    speech = [tone("a1"), tone("a2", 0.7), tone("b1", 0.5, 400.0), tone("c1", 0.9, 2500.0)]
    names = [one.utt_id for one in speech]
    return inputs.TestSet(speech, dict.fromkeys(names, "YES"), {name: name[0] for name in names})


def copy_of(corpus, name, seed=0, index=0):
    [shift] = read_shifts(name)
    return shifted(corpus, shift, seed).speech[index].samples


def db(x):
    return 10 * np.log10(np.mean(np.square(x, dtype=np.float64)))


@pytest.mark.parametrize("name", ALL)
def test_a_copy_is_the_same_each_time_and_is_speech_of_a_kind(corpus, name):
    [shift] = read_shifts(name)
    made, again = shifted(corpus, shift), shifted(corpus, shift)
    for one, same, before in zip(made.speech, again.speech, corpus.speech, strict=True):
        assert (one.utt_id, one.rate) == (before.utt_id, RATE)
        assert one.samples.dtype == np.float32
        assert np.abs(one.samples).max() <= 1.0
        assert np.array_equal(one.samples, same.samples)
        assert not np.array_equal(one.samples, before.samples)
        if shift.kind != "speed":
            assert len(one.samples) == len(before.samples)
    assert (made.text, made.utt2spk) == (corpus.text, corpus.utt2spk)


@pytest.mark.parametrize("name", ["noise10", "babble10", "reverb"])
def test_what_is_random_depends_on_name_and_seed_but_not_on_the_order(corpus, name):
    first = copy_of(corpus, name)
    assert not np.array_equal(first, copy_of(corpus, name, seed=1))
    turned = inputs.TestSet(corpus.speech[::-1], corpus.text, corpus.utt2spk)
    assert np.array_equal(first, copy_of(turned, name, index=-1))
    renamed = Speech("a2", corpus.speech[0].samples, RATE)
    other = inputs.TestSet([renamed, *corpus.speech[2:]], corpus.text, corpus.utt2spk)
    assert not np.array_equal(first, copy_of(other, name))


@pytest.mark.parametrize("name", ["noise20", "noise5", "babble10"])
def test_the_ratio_of_speech_to_noise(corpus, name):
    clean = corpus.speech[0].samples
    [shift] = read_shifts(name)
    assert db(clean) - db(copy_of(corpus, name) - clean) == pytest.approx(shift.amount, abs=0.1)


def test_babble_is_made_of_other_speakers(corpus):
    """The other tone of the same speaker is not in it."""
    noise = copy_of(corpus, "babble10") - corpus.speech[0].samples
    freqs, power = welch(noise, RATE, nperseg=2048)

    def at(hz):
        return power[np.argmin(np.abs(freqs - hz))]

    assert min(at(400), at(2500)) > 100 * at(1000)
    alone = inputs.TestSet(corpus.speech[:1], {"a1": "YES"}, {"a1": "a"})
    with pytest.raises(ValueError, match="babble needs other utterances than a1"):
        copy_of(alone, "babble10")


def test_a_room_keeps_the_level_and_dies_away(corpus):
    """It falls by 60 dB in the time that is asked for, and the direct sound keeps its place."""
    [shift] = read_shifts("reverb0.3")
    clap = np.zeros(8000, np.float32)
    clap[100] = 0.5
    heard = shift_samples(shift, clap, RATE, "a1")
    assert np.argmax(np.abs(heard)) == 100
    np.testing.assert_allclose(heard[:100], 0.0, atol=1e-6)
    early, late = heard[200:1000], heard[3400:4200]  # 0.2 s apart
    assert db(early) - db(late) == pytest.approx(40.0, abs=2.0)
    speech = corpus.speech[0].samples
    assert db(copy_of(corpus, "reverb")) == pytest.approx(db(speech), abs=0.1)


@pytest.mark.parametrize(("hz", "loss"), [(1000.0, 0.5), (100.0, 20.0), (6000.0, 30.0)])
def test_a_telephone_carries_its_band(hz, loss):
    [shift] = read_shifts("telephone")
    x = tone("a", hz=hz).samples
    lost = db(x) - db(shift_samples(shift, x, RATE, "a"))
    assert lost < loss if hz == 1000.0 else lost > loss


def test_levels_and_speed():
    x = tone("a").samples

    def heard(name):
        return shift_samples(read_shifts(name)[0], x, RATE, "a")

    np.testing.assert_allclose(heard("gain-20"), 0.1 * x, atol=1e-6)
    np.testing.assert_allclose(heard("gain+6"), 10**0.3 * x, atol=1e-6)
    assert np.abs(heard("gain+20")).max() == 1.0
    clipped = heard("clip6")
    assert np.abs(clipped).max() == pytest.approx(0.3 / 10**0.3, abs=1e-5)
    quiet = np.abs(x) < 0.1
    np.testing.assert_array_equal(clipped[quiet], x[quiet])
    assert len(heard("speed0.5")) == 2 * len(x)
    freqs, power = welch(heard("speed0.5"), RATE, nperseg=4096)
    assert freqs[np.argmax(power)] == pytest.approx(500, abs=8)
    assert len(shift_samples(read_shifts("gain-20")[0], x[:0], RATE, "a")) == 0


def test_names():
    assert tuple(one.name for one in read_shifts("default clip")) == (*DEFAULT, "clip")
    assert read_shifts("none") == ()
    assert read_shifts(["noise10,telephone", "reverb"]) == read_shifts("noise10 telephone reverb")
    for names, message in (
        ("echo", "shift 'echo' is not known: name KIND or KINDAMOUNT with a KIND of noise"),
        ("Noise10", "is not known"),
        ("telephone8", "telephone takes no amount"),
        ("reverb9", "0.05 to 3 is possible"),
        ("noise noise10", "one comes twice"),
    ):
        with pytest.raises(ValueError, match=message):
            read_shifts(names)
