"""Kaldi's extended file names: a file, a place in an ark (``file.ark:123``), a pipe (``… |``)."""

import io
import os
import re
import shlex
import signal
import subprocess
import threading
from typing import BinaryIO, Optional, Set, Tuple

from espnet_spire.units.containers import UNKNOWN_SIZE
from espnet_spire.utils.digest import stat_stamp
from espnet_spire.utils.errors import SpireError

_ARK = re.compile(r"(.+):(\d+)")


def is_pipe(rxfilename: str) -> bool:
    """Whether this is a command whose output is the audio."""
    return rxfilename.rstrip().endswith("|")


def ark_place(rxfilename: str) -> Optional[Tuple[str, int]]:
    """File and offset of a place in an ark, ``None`` for all other names."""
    place = _ARK.fullmatch(rxfilename)
    # A colon may be part of a plain name.
    if place is None or is_pipe(rxfilename) or os.path.exists(rxfilename):
        return None
    return place[1], int(place[2])


def file_state(rxfilename: str) -> Optional[str]:
    """Size and time of change of the file behind a name: another state, other audio.

    ``None`` for pipes, of which it cannot be known, and for what is not there.
    """
    if is_pipe(rxfilename):
        return None
    place = ark_place(rxfilename)
    try:
        found = os.stat(rxfilename if place is None else place[0])
    except OSError:
        return None
    return stat_stamp(found)


class Pipes:
    """Runs the commands of pipes, from any number of threads, and can end them all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Set[subprocess.Popen] = set()
        self._closed = False

    def read(self, rxfilename: str) -> bytes:
        """All that the command writes.

        Raises:
            SpireError: any part of the pipe failed; it shows the last line of stderr.
        """
        command = rxfilename.rstrip()[:-1]
        argv = ["bash", "-o", "pipefail", "-c", command]
        with self._lock:
            if self._closed:
                raise SpireError(f"{shlex.quote(command)}: not run, reading was stopped")
            # A session of its own: all parts of the pipe can be ended at once.
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            self._running.add(process)
        try:
            output, errors = process.communicate()
        except BaseException:
            _end(process)
            process.communicate()
            raise
        finally:
            with self._lock:
                self._running.discard(process)
        if process.returncode != 0:
            reason = errors.decode(errors="replace").strip().splitlines()[-1:]
            raise SpireError(f"{shlex.quote(command)}: status {process.returncode} {reason}")
        return output

    def close(self) -> None:
        """End what runs; nothing is started any more."""
        with self._lock:
            self._closed = True
            for process in self._running:
                _end(process)


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def read_ark(path: str, offset: int) -> bytes:
    """The audio file that lies at ``offset`` of an ark.

    As Kaldi's ``wav-copy`` (RIFF) and kaldiio (RIFF, or any format behind ``AUDIO`` and its
    size) write them. Nothing else is read, least of all kaldiio's pickles, which run code.

    Raises:
        SpireError: something else is there; it says what.
    """
    name = f"{path}:{offset}"
    with open(path, "rb") as stream:
        stream.seek(offset)
        head = stream.read(5)
        if head == b"AUDIO":
            size = int.from_bytes(stream.read(stream.read(1)[0]), "little")
            return _exactly(stream, size, name)
        if head[:4] in (b"RIFF", b"RIFX"):
            order = "little" if head[:4] == b"RIFF" else "big"
            size = 8 + int.from_bytes(head[4:] + stream.read(3), order)
            if size > UNKNOWN_SIZE:
                raise SpireError(f"{name}: WAV without its size, in an ark it cannot be read")
            stream.seek(offset)
            return _exactly(stream, size, name)
        if head[:4] == b"fLaC":
            # It does not say how long it is; its decoder stops where it ends.
            stream.seek(offset)
            return stream.read()
    if head[:3] == b"PKL":
        raise SpireError(f"{name}: a pickle, which runs code when read; write WAV or FLAC arks")
    if head[:2] == b"\0B":
        raise SpireError(f"{name}: a matrix without a sampling rate; write WAV or FLAC arks")
    raise SpireError(f"{name}: no audio at this place of the ark; make wav.scp again")


def _exactly(stream: BinaryIO, size: int, name: str) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise SpireError(
            f"{name}: cut off, {size - len(content)} bytes of it are missing; replace or remove it"
        )
    return content


def open_audio_bytes(rxfilename: str, pipes: Pipes) -> BinaryIO:
    """The audio file that a name stands for, as a seekable binary stream."""
    if is_pipe(rxfilename):
        return io.BytesIO(pipes.read(rxfilename))
    place = ark_place(rxfilename)
    if place is not None:
        return io.BytesIO(read_ark(*place))
    return open(rxfilename, "rb")
