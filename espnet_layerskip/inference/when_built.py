"""Skipping in every model that ESPnet's inference classes build, as the launcher is told."""

from __future__ import annotations

import atexit
import sys
import threading
from typing import Any

from espnet_layerskip._compat import abs_task
from espnet_layerskip.encoders.base import LayerSkipEncoder
from espnet_layerskip.encoders.prefix import audio_part
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.method.frames import Encoded
from espnet_layerskip.method.settings import SkipSettings
from espnet_layerskip.patch import choose_skipping


class SkipWhenBuilt:
    """From now on models that ESPnet builds from files skip; tells on stderr what was skipped.

    ESPnet's inference classes (Speech2Text, ForcedAligner, CTCSegmentation ... of ASR and S2T
    models) have one function that builds models from files. A model without an encoder and a
    CTC head, such as a language model, stays as it is.

    Args:
        settings: See `choose_skipping`.
    """

    def __init__(self, settings: SkipSettings):
        self.settings, self.count = settings, SkipCount()
        self._pass, self._lock = threading.local(), threading.Lock()  # threads may encode at once
        task, encoder = abs_task(), LayerSkipEncoder
        self._undo = [(task, "build_model_from_file"), (encoder, "run")]
        self._before = [vars(owner)[name] for owner, name in self._undo]
        build, run = task.build_model_from_file.__func__, encoder.run

        def built(cls: Any, *args: Any, **kwargs: Any) -> Any:
            model, train_args = build(cls, *args, **kwargs)
            self.change(model)
            return model, train_args

        def counted(one: LayerSkipEncoder, *args: Any, **kwargs: Any) -> Encoded:
            inner, self._pass.busy = getattr(self._pass, "busy", False), True
            try:
                found = run(one, *args, **kwargs)
            finally:
                self._pass.busy = inner
            if not inner:  # else it is part of a batch that runs one by one
                self.note(one, found)
            return found

        task.build_model_from_file = classmethod(built)
        encoder.run = counted  # type: ignore[assignment, method-assign]
        atexit.register(self.tell)

    def change(self, model: Any) -> None:
        """Let a model skip, in evaluation mode."""
        if getattr(model, "encoder", None) is None or getattr(model, "ctc", None) is None:
            return
        try:
            choose_skipping(model.eval(), self.settings)
        except ValueError as err:  # the launcher's --skip: nothing can be done without it
            raise SystemExit(f"espnet_layerskip: error: --skip: {err}") from err
        encoder = model.encoder
        say(
            f"{encoder.STOCK.__name__} skips after layers "
            f"{', '.join(map(str, encoder.gate_layer_idx))} of {len(encoder.encoders)} "
            f"({encoder.settings.describe()})"
        )

    def note(self, encoder: Any, found: Encoded) -> None:
        """Count the frames of a pass, those of a prompt left out."""
        prefix = encoder.num_prefix() if hasattr(encoder, "num_prefix") else 0
        depth = audio_part(found, prefix).depth(len(encoder.encoders))
        count = SkipCount.of(depth[depth > 0], len(encoder.encoders))
        with self._lock:
            self.count += count

    def tell(self) -> None:
        """Write how much was skipped, if anything was encoded."""
        if self.count.num_frames:
            say(
                f"{self.count.num_skipped} of {self.count.num_frames} frames skipped "
                f"({100 * self.count.ratio:.1f} %), {100 * self.count.ceiling:.1f} % of the "
                "layers' work"
            )

    def undo(self) -> None:
        """Leave the models that are built after this as they are."""
        atexit.unregister(self.tell)
        for (owner, name), before in zip(self._undo, self._before, strict=True):
            setattr(owner, name, before)


def say(text: str) -> None:
    """Write a line to stderr: ESPnet's commands print results to stdout, and log only warnings."""
    print(f"espnet_layerskip: {text}", file=sys.stderr)
