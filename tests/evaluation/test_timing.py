import pytest
import torch

from espnet_layerskip.evaluation.timing import num_threads, summary, time_interleaved


class FakeClock:
    """A clock that only moves when a case runs."""

    def __init__(self):
        self.now = 100.0
        self.log = []

    def __call__(self):
        return self.now

    def case(self, name, durations):
        durations = iter(durations)

        def run():
            self.log.append(name)
            self.now += next(durations)

        return run


def test_order_is_interleaved_and_warm_up_is_not_measured():
    clock = FakeClock()
    cases = {
        "a": clock.case("a", [50.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        "b": clock.case("b", [60.0, 10.0, 20.0, 30.0, 40.0, 90.0]),
    }
    result = time_interleaved([cases], repeats=5, warmup=1, clock=clock)
    passes = ["".join(clock.log[i : i + 2]) for i in range(0, 12, 2)]
    assert set(passes) == {"ab", "ba"}, "no case always runs after the same other one"
    assert result["a"] == [1.0, 2.0, 3.0, 4.0, 5.0]
    found = summary(result["b"])
    assert (found["median_s"], found["min_s"], found["max_s"]) == (30.0, 10.0, 90.0)


def test_a_repeat_is_the_sum_over_the_inputs():
    clock = FakeClock()
    inputs = [
        {"a": clock.case("a0", [9.0] + [1.0] * 5), "b": clock.case("b0", [9.0] + [2.0] * 5)},
        {"a": clock.case("a1", [9.0] + [0.5] * 5), "b": clock.case("b1", [9.0] + [0.25] * 5)},
    ]
    result = time_interleaved(inputs, repeats=5, clock=clock)
    assert [name[1] for name in clock.log] == ["0", "0", "1", "1"] * 6
    assert result["a"] == [1.5] * 5
    assert result["b"] == [2.25] * 5


def test_summary_for_json():
    record = summary([0.002, 0.004, 0.003], per=2, unit="ms")
    assert record.pop("raw_ms") == pytest.approx([1.0, 2.0, 1.5])
    assert record == pytest.approx({"median_ms": 1.5, "min_ms": 1.0, "max_ms": 2.0})


@pytest.mark.parametrize(
    ("inputs", "kwargs", "message"),
    [
        ([], {}, "nothing to time"),
        ([{}], {}, "nothing to time"),
        ([{"a": int}], {"repeats": 4}, "repeats is 4"),
        ([{"a": int}], {"warmup": 0}, "warmup is 0"),
        ([{"a": int}, {"b": int}], {}, r"input 1 has the cases \['b'\]"),
    ],
)
def test_bad_input(inputs, kwargs, message):
    with pytest.raises(ValueError, match=message):
        time_interleaved(inputs, **kwargs)


def test_num_threads_is_pinned_and_restored():
    before = torch.get_num_threads()
    other = 2 if before == 1 else 1
    with num_threads(other):
        assert torch.get_num_threads() == other
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="threads is 0"), num_threads(0):
        pass
