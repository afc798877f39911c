import pytest

from espnet_layerskip.bin import asr_train
from espnet_layerskip.training.device import check_device


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)


def test_a_device_that_is_not_there():
    check_device("cpu")
    check_device("cpu", "float64")
    for device in ("cuda", "cuda:1"):
        with pytest.raises(
            ValueError, match=rf"device {device}: PyTorch finds 0 GPUs here .*use cpu"
        ):
            check_device(device)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_numbers_that_cannot_hold_the_features(dtype):
    with pytest.raises(ValueError, match=f"dtype {dtype} on device cpu: .* precision bfloat16"):
        check_device("cpu", dtype)


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        ("tokens.txt", ["--ngpu", "1"], "device cuda: PyTorch finds 0 GPUs here"),
        ("gone.txt", [], "No such file or directory: .*gone.txt"),
    ],
)
def test_a_training_that_cannot_begin_says_so_in_one_line(tmp_path, tokens, options, message):
    (tmp_path / "tokens.txt").write_text("<blank>\n<unk>\nA\n<sos/eos>\n")
    command = ["--token_type", "char", "--token_list", str(tmp_path / tokens), "--ngpu", "0"]
    command += ["--output_dir", str(tmp_path / "exp")]
    with pytest.raises(
        SystemExit, match=rf"^ERROR: .*{message}.*\(--log_level DEBUG shows where\)"
    ):
        asr_train.main([*command, *options])
