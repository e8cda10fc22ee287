"""What a training leaves to be looked at: history, ESPnet's reporter, TensorBoard, curves."""

import contextlib
import json
import logging
import warnings
from pathlib import Path
from typing import Any, Dict, Iterator, List

from espnet_spire.utils.atomic import PathLike, atomic_write, disk_errors
from espnet_spire.utils.errors import SpireError

HISTORY = "history.jsonl"
IMAGES = "images"
CURVES = "curves.png"
# Entries that differ from run to run.
MEASURED = ("tokens_per_second", "target_tokens_per_second", "share_of_peak", "memory_gib")


def read_entries(path: PathLike) -> List[Dict[str, Any]]:
    """Whole lines of a history; half a line that a killed run left is not one."""
    if not Path(path).exists():
        return []
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


class Records:
    """Takes one entry a step, on the first rank.

    ``history.jsonl`` is the truth: ESPnet's reporter is filled from it when a run is resumed, and
    TensorBoard is told to forget what came after. The reporter's *epochs* are the intervals
    between checkpoints; it shows losses by task, the others those of each language too.

    Args:
        output_dir: of the training.
        step: where the run is; later entries are forgotten, they will be recorded again.
        interval: steps between checkpoints.
        log_interval: steps between log messages.
        tensorboard: whether to write event files.
    """

    def __init__(
        self,
        output_dir: PathLike,
        *,
        step: int,
        interval: int,
        log_interval: int,
        tensorboard: bool,
    ) -> None:
        from espnet2.train.reporter import Reporter

        self.output_dir = Path(output_dir)
        self.path = self.output_dir / HISTORY
        self._interval, self._log_interval = interval, log_interval
        self._writer = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            # Events after `step` are hidden by TensorBoard when purge_step is given.
            self._writer = SummaryWriter(str(self.output_dir / "tensorboard"), purge_step=step + 1)
        self._reporter = Reporter()
        self._open: Dict[str, Any] = {}  # reporters of the interval that goes on
        self._epoch = self._logged = 0
        entries = [entry for entry in read_entries(self.path) if entry["step"] <= step]
        with atomic_write(self.path) as stream:
            stream.write("".join(json.dumps(entry) + "\n" for entry in entries))
        for entry in entries:
            self._report(entry, log=False)

    def add(self, entry: Dict[str, Any]) -> None:
        """Record one entry: ``step`` and numbers, validation's named ``valid_…``."""
        with disk_errors(self.path), open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
        if self._writer is not None:
            with _unimportant("TensorBoard is not written"):
                for name, value in entry.items():
                    if name != "step" and value is not None:
                        self._writer.add_scalar(_with_folder(name), value, entry["step"])
        self._report(entry, log=True)

    def _report(self, entry: Dict[str, Any], *, log: bool) -> None:
        """ESPnet's reporter: an epoch is the interval that ends with a checkpoint."""
        epoch = (entry["step"] - 1) // self._interval + 1
        if epoch != self._epoch:
            self._close(log)
            self._epoch, self._logged = epoch, 0
            self._reporter.set_epoch(epoch)
        valid = "valid_loss" in entry
        which = "valid" if valid else "train"
        if which not in self._open:
            with warnings.catch_warnings():
                # An interval without validation is no mistake.
                warnings.filterwarnings("ignore", message="The stats of the previous epoch")
                self._open[which] = self._reporter.start_epoch(which, epoch)
        now = self._open[which]
        now.register(
            {
                name.removeprefix("valid_"): value
                for name, value in entry.items()
                if name != "step" and "." not in name and value is not None
            }
        )
        now.next()
        if log and not valid and entry["step"] % self._log_interval == 0:
            logging.info("%s", now.log_message(self._logged, now.count))
            self._logged = now.count

    def _close(self, log: bool) -> None:
        """End an interval: its means are logged and drawn, as ESPnet does after an epoch."""
        for reporter in self._open.values():
            self._reporter.finish_epoch(reporter)
        if self._open and log:
            logging.info("%s", self._reporter.log_message())
            with _unimportant("images are not drawn"):
                self._reporter.matplotlib_plot(self.output_dir / IMAGES)
        self._open = {}

    def draw(self) -> None:
        """Draw the curves of the whole run."""
        from espnet_spire.utils.curves import plot_training

        with _unimportant("curves are not drawn"):
            plot_training(self.path, self.output_dir / CURVES, self.output_dir.name)

    def close(self) -> None:
        """End the last interval, and the files."""
        self._close(log=True)
        if self._writer is not None:
            self._writer.close()


def _with_folder(name: str) -> str:
    """TensorBoard groups by what stands before a slash: ``valid_loss_asr`` → ``valid/loss_asr``."""
    if name.startswith("valid_"):
        return "valid/" + name.removeprefix("valid_")
    return f"{'speed' if name in MEASURED else 'train'}/{name}"


@contextlib.contextmanager
def _unimportant(words: str) -> Iterator[None]:
    """No training ends for a picture; on a full disk the checkpoint is what says so."""
    try:
        yield
    except (OSError, SpireError) as error:
        logging.warning("%s: %s", words, error)
