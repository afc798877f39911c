"""ESPnet's directory of decoding results, written as they come."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TextIO

from espnet_layerskip.inference.recognize import Result


class ResultDir:
    """Writes ``{n}best_recog/{token,token_int,score,text}``, ``skip_stats`` and ``failed``.

    ``skip_stats`` has lines "utt_id num_frames num_skipped"; ``failed`` has lines
    "utt_id reason" and exists only if something failed. Every result is flushed, so that
    an interrupted run leaves whole lines.

    Args:
        path: Directory; made if it does not exist.
        nbest: Number of n-best lists; shorter ones are written as far as they go.
    """

    def __init__(self, path: str | Path, nbest: int = 1):
        self.path = Path(path)
        self.nbest = nbest
        self._stack = ExitStack()
        self._files: dict[str, TextIO] = {}

    def __enter__(self) -> ResultDir:
        """Start: the results of an earlier run go, none is taken for one of this run."""
        self.path.mkdir(parents=True, exist_ok=True)
        for path in (
            *(self.path / name for name in ("failed", "skip_stats")),
            *(p for n in range(1, self.nbest + 1) for p in self.path.glob(f"{n}best_recog/*")),
        ):
            if path.is_file():
                path.unlink()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all files."""
        self._stack.close()

    def write(self, result: Result) -> None:
        """Write one utterance."""
        utt_id = result.utt_id
        if result.error is not None:
            self._line("failed", utt_id, result.error)
            return
        for n, (text, token, token_int, hyp) in enumerate(result.nbest[: self.nbest], 1):
            directory = f"{n}best_recog"
            self._line(f"{directory}/token", utt_id, " ".join(token))
            self._line(f"{directory}/token_int", utt_id, " ".join(map(str, token_int)))
            self._line(f"{directory}/score", utt_id, str(hyp.score))
            if text is not None:
                self._line(f"{directory}/text", utt_id, text)
        intermediate = None if result.found is None else result.found.intermediate
        for layer_idx, tokens in (intermediate or {}).items():
            name = f"1best_recog/encoder_interctc_layer{layer_idx}.txt"
            self._line(name, utt_id, " ".join(tokens))
        skips = result.skips
        self._line("skip_stats", utt_id, f"{skips.num_frames} {skips.num_skipped}")

    def _line(self, name: str, utt_id: str, value: str) -> None:
        if name not in self._files:
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files[name] = self._stack.enter_context(path.open("w", encoding="utf-8"))
        self._files[name].write(f"{utt_id} {value}\n")
        self._files[name].flush()
