import numpy as np
import pytest

from espnet_layerskip.inference.audio import AudioError, Utterance
from espnet_layerskip.inference.recognize import Recognized, recognize
from espnet_layerskip.inference.skip_count import SkipCount


class Fake:
    """Transcribes to the number of samples; fails where one is negative."""

    sample_rate = 10
    longest_whole = 3.0

    def __init__(self):
        self.batches = []

    def preprocess(self, utt_id, samples):
        return samples

    def recognize(self, waves, utt_ids):
        self.batches.append(list(utt_ids))
        if any((wave < 0).any() for wave in waves):
            raise RuntimeError("a negative\nsample")
        return [
            Recognized([(str(len(wave)), [], [], None)], None, SkipCount(len(wave), 1))
            for wave in waves
        ]

    def recognize_blocks(self, blocks, utt_id, batch_size, prepare):
        self.batches.append([utt_id])
        whole = prepare(np.concatenate(list(blocks)))
        return Recognized([(f"long {len(whole)}", [], [], None)], None, SkipCount(len(whole), 2))


class Audio:
    """So many samples; negative ones if the number is, and an unreadable end if it is odd."""

    def __init__(self, utt):
        if utt.path == "unreadable":
            raise AudioError(f"{utt.utt_id} is unreadable")
        self.utt_id, self.number = utt.utt_id, int(utt.path)
        self.seconds = abs(self.number) / 10

    def __iter__(self):
        yield self.read()[:30]
        if self.number % 2:
            raise AudioError(f"{self.utt_id} ends too soon")
        yield self.read()[30:]

    def read(self):
        return np.full(abs(self.number), 1.0 if self.number > 0 else -1.0)


UTTERANCES = [
    Utterance(name, path)
    for name, path in zip("abcdefg", ("9", "2", "unreadable", "7", "-4", "1", "8"), strict=True)
]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_order_and_failures_do_not_depend_on_the_batch(batch_size):
    results = list(recognize(Fake(), UTTERANCES, Audio, batch_size))
    assert [r.utt_id for r in results] == list("abcdefg")
    texts = [r.nbest[0][0] if r.error is None else r.error for r in results]
    unreadable, failed = "c is unreadable", "RuntimeError: a negative sample"
    assert texts == ["9", "2", unreadable, "7", failed, "1", "8"]
    assert results[0].seconds == pytest.approx(0.9)
    assert results[3].skips == SkipCount(7, 1)


def test_batches_are_of_similar_length():
    fake = Fake()
    list(recognize(fake, [u for u in UTTERANCES if u.utt_id not in "ce"], Audio, 2))
    assert fake.batches == [["f", "b"], ["d", "g"], ["a"]]


def test_long_audio_comes_in_blocks_and_in_its_place():
    numbers = {"a": "9", "long": "50", "broken": "51", "b": "2"}
    utterances = [Utterance(name, number) for name, number in numbers.items()]
    for batch_size in (1, 4):
        results = list(recognize(Fake(), utterances, Audio, batch_size))
        assert [r.utt_id for r in results] == list(numbers)
        texts = [r.nbest[0][0] if r.error is None else r.error for r in results]
        assert texts == ["9", "long 50", "broken ends too soon", "2"]
        assert results[1].seconds == pytest.approx(5.0)
        assert results[1].skips == SkipCount(50, 2)


def test_results_stream():
    fake = Fake()
    next(recognize(fake, UTTERANCES, Audio, 1))
    assert fake.batches == [["a"]]


def test_batch_size():
    with pytest.raises(ValueError, match="batch_size must be at least 1, but got 0"):
        next(recognize(Fake(), UTTERANCES, Audio, 0))
