"""Opens a model file, an HDF5 file or a `.keras` archive that contains one, after checking everything in it."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py

from model_trainer.errors import ModelFileError, ModelTrainerError
from model_trainer.model_files.attributes import MAX_STRING_BYTES
from model_trainer.model_files.scan import EXPANSION, Scanned, scan_hdf5
from model_trainer.model_files.structure import Content, check_structure, root_address
from model_trainer.storage import files
from model_trainer.storage.mapped import mapped

__all__ = ["ModelFile", "open_model_file", "reading"]

_ZIP = b"PK\x03\x04"
_PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
_WEIGHTS = "model.weights.h5"
_MEMBERS = {"metadata.json", "config.json", _WEIGHTS}


@dataclass(frozen=True)
class ModelFile:
    """An open model file that contains nothing but groups, numeric arrays and short strings.

    Attributes:
        path: path of the file.
        scanned: the contents of its HDF5.
        archived_config: the `config.json` of a `.keras` archive; it is never deserialized by Keras.
    """

    path: Path
    scanned: Scanned
    archived_config: str | None

    @property
    def config(self) -> str | None:
        """Keras' own description of the network, JSON; None if the file contains weights only."""
        return self.archived_config or self.text("model_config")

    def text(self, name: str) -> str | None:
        """A string attribute at the root of the file, such as our description; None if there is none.

        Raises:
            ModelFileError: it is not a string.
        """
        strings = self.strings("", name, MAX_STRING_BYTES)
        return strings[0] if strings else None

    def strings(self, group: str, name: str, max_bytes: int) -> list[str] | None:
        """The strings of an attribute of a group, each of at most `max_bytes`; None if there is no such attribute.

        Raises:
            ModelFileError: they are not strings, or longer.
        """
        attribute = self.scanned.attributes[group].get(name)
        if attribute is None:
            return None
        try:
            return attribute.strings(max_bytes)
        except ModelFileError as error:
            raise ModelFileError(f"{self.path} is refused: {error}, in {name!r} of {group or '/'!r}.") from error


@contextlib.contextmanager
def open_model_file(path: files.StrPath) -> Iterator[ModelFile]:
    """Opens a `.h5`, `.hdf5`, `.weights.h5` or `.keras` file; no code in it is run, and no other file is read.

    Raises:
        ModelFileError: there is no such file, it is damaged, or it contains something that no model file needs.
    """
    path = files.as_path(path)
    if not files.is_file(path):
        raise ModelFileError(f"There is no model file {path}.")
    with contextlib.ExitStack() as stack:
        try:
            with reading(path):
                root, content, config = _open_hdf5(path, stack.enter_context(files.local_copy(path)), stack)
                scanned = scan_hdf5(root, content)
        except _NotAModelFile:
            raise
        except ModelFileError as error:
            if str(error).startswith(str(path)):
                raise
            raise ModelFileError(f"{path} is refused: {error}. Keras does not write such files.") from error
        yield ModelFile(path, scanned, config)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns the errors that HDF5 raises for damaged files into a ModelFileError that names the file."""
    try:
        yield
    except ModelTrainerError:  # also of a signal, which says nothing about the file
        raise
    except RecursionError:
        raise ModelFileError(f"{path} is damaged: its nesting is too deep.") from None
    except (OSError, LookupError, ValueError, TypeError, RuntimeError, NotImplementedError, MemoryError) as error:
        raise ModelFileError(f"{path} is damaged or not a Keras file: {str(error).rstrip('.')}.") from error
    except zipfile.BadZipFile as error:
        raise ModelFileError(f"{path} is damaged or not a Keras file: {str(error).rstrip('.')}.") from error


class _NotAModelFile(ModelFileError):
    """The file has another format than model files."""


def _open_hdf5(path: Path, local: Path, stack: contextlib.ExitStack) -> tuple[h5py.File, Content, str | None]:
    """Opens the HDF5 file; returns it, its bytes, and the `config.json` of an archive.

    Args:
        path: for messages.
        local: a local copy of the file.
    """
    with files.open_file(local) as opened:
        first_bytes = opened.read(4)
    if first_bytes.startswith(_PICKLES):
        raise _NotAModelFile(
            f"{path} is a pickle, and loading it would run the code in it. Save the network with Keras, as .h5 or "
            ".keras."
        )
    content: Content
    source: Path | io.BytesIO = local
    config = None
    if first_bytes == _ZIP:
        content, config = _read_archive(local)
        source = io.BytesIO(content)
    elif h5py.is_hdf5(local):
        content = stack.enter_context(mapped(local))
    else:
        raise _NotAModelFile(
            f"{path} is damaged or not a Keras file: its first bytes are neither those of HDF5 nor of .keras."
        )
    check_structure(content, root_address(content), "/", set())  # before the HDF5 library parses it
    return stack.enter_context(h5py.File(source, "r")), content, config


def _read_archive(path: Path) -> tuple[bytes, str | None]:
    """Reads the weights and the `config.json` of a `.keras` archive; nothing is extracted to the disk."""
    with files.open_file(path) as file, zipfile.ZipFile(file) as archive:
        size = file.seek(0, io.SEEK_END)
        names = archive.namelist()
        for name in names:
            if name not in _MEMBERS:
                raise ModelFileError(f"it holds {name[:60]!r}; a .keras file has only {', '.join(sorted(_MEMBERS))}")
        if len(set(names)) != len(names):
            raise ModelFileError("it holds the same name twice")
        if _WEIGHTS not in names:
            raise ModelFileError(f"it holds no {_WEIGHTS}")
        for member in archive.infolist():
            if member.flag_bits & 1:
                raise ModelFileError(f"it holds {member.filename} encrypted")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ModelFileError(f"it holds {member.filename} compressed with another method than deflate")
            max_bytes = EXPANSION * size if member.filename == _WEIGHTS else MAX_STRING_BYTES
            if member.file_size > max_bytes:
                raise ModelFileError(
                    f"it declares {member.file_size:,} bytes of {member.filename}; the maximum is {max_bytes:,}"
                )
        config = archive.read("config.json").decode() if "config.json" in names else None
        return archive.read(_WEIGHTS), config
