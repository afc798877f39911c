import pickle

import pytest

from espnet_layerskip.evaluation import retrofit_teacher
from espnet_layerskip.evaluation.retrofit_data import (
    examples,
    read_corpus,
    with_usable_audio,
)
from espnet_layerskip.evaluation.retrofit_teacher import Teacher, parts, seconds
from espnet_layerskip.parallel import Workers
from espnet_layerskip.training.retrofit import Example, Schedule, Step, batches


def steps_of(found, **schedule):
    plan = batches(found, Schedule(**schedule), 0)
    return [Step(number, batch, 0) for number, batch in enumerate(plan)]


def test_a_teacher_travels_without_its_model_and_teaches_the_same(exps, data_dir):
    corpus = read_corpus(data_dir, labels=False)
    steps = steps_of(examples(corpus, 16000, {}, []), batch_seconds=2.0)
    here = Teacher(str(exps["stock"]), None, [2], corpus, True, "cpu")
    there = pickle.loads(pickle.dumps(here))
    assert len(pickle.dumps(here)) < 4000
    whole = [one for [one] in here.lessons(steps, Workers())]
    assert len(pickle.dumps(here)) < 4000  # the loaded model stays here
    alone = [one for step in reversed(steps) for [one] in there([step])][::-1]
    assert len(whole) == len(steps) > 1
    for one, other in zip(whole, alone, strict=True):
        assert one.out.equal(other.out)
        assert one.below.equal(other.below)
        assert not one.below.equal(one.out)


def test_batch_jobs_are_given_so_much_audio_at_a_time(monkeypatch):
    monkeypatch.setattr(retrofit_teacher, "JOB_SECONDS", 10.0)
    steps = [Step(i, [Example("a", s), Example("b", 1.0)], 0) for i, s in enumerate([5, 3, 12, 1])]
    assert [seconds(step) for step in steps] == [6.0, 4.0, 13.0, 2.0]
    assert [[step.number for step in part] for part in parts(steps)] == [[0, 1], [2], [3]]
    assert list(parts([])) == []


def test_a_step_names_itself_and_draws_the_same_each_time():
    step = Step(7, [Example("u1", 1.0), Example("u2", 1.0)], seed=3)
    assert str(step) == "update 7 (u1, u2)"
    (one, rest), (again, same) = step.draws(), step.draws()
    assert one == again
    assert rest.random() == same.random()
    assert one != Step(8, step.batch, 3).draws()[0] != Step(8, step.batch, 4).draws()[0]


def test_a_wrong_line_of_a_table_costs_its_utterance(tmp_path, caplog):
    (tmp_path / "wav.scp").write_bytes(b"a a.wav\nb b\xe9.wav\nc c.wav\nd d.wav\ne e.wav\n")
    (tmp_path / "text").write_bytes(b"a A\nb B\n\xff C\ne\nd D\n")
    (tmp_path / "utt2spk").write_text("a s\nb s\nc s\nd\ne s\n")
    corpus = read_corpus(tmp_path, labels=True)
    assert (list(corpus.wav), corpus.text) == (["a", "e"], {"a": "A"})
    assert sorted(corpus.refused) == ["b", "c", "d"]
    assert caplog.messages == [f"left out: {why}" for why in corpus.refused.values()]
    assert "wav.scp:2: the line is not UTF-8" in corpus.refused["b"]
    assert "text:3: the line is not UTF-8" in corpus.refused["c"]
    assert read_corpus(tmp_path, labels=False).wav.keys() == {"a", "c", "e"}


def test_audio_that_cannot_be_read_costs_its_utterance(data_dir, tmp_path, caplog):
    good = (data_dir / "wav.scp").read_text().splitlines()[0]
    (tmp_path / "noise.wav").write_bytes(b"no audio")
    (tmp_path / "wav.scp").write_text(f"{good}\nx gone.wav\ny {tmp_path}/noise.wav\n")
    corpus = with_usable_audio(read_corpus(tmp_path, labels=False))
    assert list(corpus.wav) == [good.split()[0]]
    assert sorted(corpus.refused) == ["x", "y"]
    assert caplog.messages == [f"left out: {why}" for why in corpus.refused.values()]
    (tmp_path / "wav.scp").write_text("x gone.wav\n")
    with pytest.raises(ValueError, match=r"no audio can be used: .*gone.wav"):
        with_usable_audio(read_corpus(tmp_path, labels=False))


def test_audio_that_cannot_be_read_is_said(exps, tmp_path):
    (tmp_path / "wav.scp").write_text(f"a {tmp_path}/gone.wav\n")
    teacher = Teacher(
        str(exps["stock"]), None, [2], read_corpus(tmp_path, labels=False), False, "cpu"
    )
    with pytest.raises(ValueError, match="gone.wav"):
        list(teacher([Step(0, [Example("a", 1.0)], 0)]))
