"""Writing files so that they appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeAlias

Writer: TypeAlias = Callable[[IO[bytes]], None]


def write_all(writers: Mapping[Path, Writer], *, overwrite: bool = False) -> None:
    """Write several files so that all of them appear, whole, or none does.

    Each writer fills a temporary file in its target's folder; when all are done and on the disk
    they take their names. On any error, an interrupt included, the temporary files are removed.
    Errors: FileExistsError for a target that exists, unless `overwrite`; other OSErrors as the
    system gives them, with the target's path.
    """
    targets = {Path(path): Path(os.path.realpath(path)) for path in writers}
    for path, target in targets.items():
        _check_target(path, target, overwrite)
    temporary: dict[Path, Path] = {}
    placed: list[Path] = []
    try:
        for path, write in writers.items():
            target = targets[Path(path)]
            temporary[target] = target.with_name(f".fpemu-{secrets.token_hex(6)}.tmp")
            with _naming(path):
                _fill(temporary[target], write)
        for path, target in targets.items():
            with _naming(path):
                _place(temporary[target], target, overwrite)
            placed.append(target)
    except BaseException:
        if not overwrite:
            for target in placed:
                target.unlink(missing_ok=True)
        raise
    finally:
        for file in temporary.values():
            file.unlink(missing_ok=True)


def _check_target(path: Path, target: Path, overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(path.parent))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "output is a folder", str(path))
    if target.exists() and not overwrite:
        raise FileExistsError(
            errno.EEXIST, "output exists; --overwrite (overwrite=True) replaces it", str(path)
        )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Give errors of the temporary file the name the caller knows."""
    try:
        yield
    except OSError as error:
        if error.errno is None or ".fpemu-" not in (error.filename or ".fpemu-"):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def _fill(temporary: Path, write: Writer) -> None:
    with temporary.open("xb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())


def _place(temporary: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, target)
    else:
        try:
            os.link(temporary, target)  # unlike a rename, it fails if the target has appeared
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            os.replace(temporary, target)
    if os.name == "posix":
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
