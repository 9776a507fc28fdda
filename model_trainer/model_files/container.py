"""A model file opened: its HDF5, bare or out of a `.keras` archive, after everything in it was looked at."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py

from model_trainer.errors import ModelFileError
from model_trainer.model_files.attributes import MAX_STRING_BYTES
from model_trainer.model_files.scan import EXPANSION, Scanned, scan_hdf5
from model_trainer.model_files.structure import Content, check_skeleton, root_address
from model_trainer.storage import files
from model_trainer.storage.mapped import mapped

__all__ = ["ModelFile", "open_model_file", "reading"]

_ZIP = b"PK\x03\x04"
_PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
_WEIGHTS = "model.weights.h5"
_MEMBERS = {"metadata.json", "config.json", _WEIGHTS}


@dataclass(frozen=True)
class ModelFile:
    """An open model file that holds nothing but groups, numbers and short texts.

    Attributes:
        path: of the file.
        scanned: what its HDF5 holds.
        archived_config: the `config.json` of a `.keras` archive, which is never followed.
    """

    path: Path
    scanned: Scanned
    archived_config: str | None

    @property
    def config(self) -> str | None:
        """Keras' own description of the network, JSON; None where the file holds weights only."""
        return self.archived_config or self.text("model_config")

    def text(self, name: str) -> str | None:
        """A text at the root of the file, such as our description; None where there is none.

        Raises:
            ModelFileError: it is no text.
        """
        texts = self.texts("", name, MAX_STRING_BYTES)
        return texts[0] if texts else None

    def texts(self, group: str, name: str, longest: int) -> list[str] | None:
        """The texts of an attribute of a group; None where it has none of that name."""
        attribute = self.scanned.attributes[group].get(name)
        if attribute is None:
            return None
        try:
            return attribute.texts(longest)
        except ModelFileError as error:
            raise ModelFileError(f"{self.path} is refused: {error}, in {name!r} of {group or '/'!r}.") from error


@contextlib.contextmanager
def open_model_file(path: files.StrPath) -> Iterator[ModelFile]:
    """Opens a `.h5`, `.hdf5`, `.weights.h5` or `.keras` file; no code in it is run, and no other file is read.

    Raises:
        ModelFileError: there is no such file, it is damaged, or it holds what no model file needs; names it.
    """
    path = files.as_path(path)
    if not files.is_file(path):
        raise ModelFileError(f"There is no model file {path}.")
    with contextlib.ExitStack() as stack:
        try:
            with reading(path):
                root, content, config = _opened(path, stack.enter_context(files.local_copy(path)), stack)
                scanned = scan_hdf5(root, content)
        except _Foreign:
            raise
        except ModelFileError as error:
            if str(error).startswith(str(path)):
                raise
            raise ModelFileError(f"{path} is refused: {error}. Files that Keras saved are not like that.") from error
        yield ModelFile(path, scanned, config)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What HDF5 raises at damaged places becomes a ModelFileError that names the file."""
    try:
        yield
    except ModelFileError:
        raise
    except RecursionError:
        raise ModelFileError(f"{path} is damaged: it nests too deep.") from None
    except (OSError, LookupError, ValueError, TypeError, RuntimeError, NotImplementedError, MemoryError) as error:
        raise ModelFileError(f"{path} is damaged or no Keras file: {str(error).rstrip('.')}.") from error
    except zipfile.BadZipFile as error:
        raise ModelFileError(f"{path} is damaged or no Keras file: {str(error).rstrip('.')}.") from error


class _Foreign(ModelFileError):
    """A file of another kind."""


def _opened(path: Path, local: Path, stack: contextlib.ExitStack) -> tuple[h5py.File, Content, str | None]:
    """The HDF5 file, its bytes, and the text of a `config.json`.

    Args:
        path: for messages.
        local: where it can be read.
    """
    with files.open_file(local) as opened:
        beginning = opened.read(4)
    if beginning.startswith(_PICKLES):
        raise _Foreign(
            f"{path} is a pickle, and reading one runs the code in it. Save the network with Keras, as .h5 or .keras."
        )
    content: Content
    source: Path | io.BytesIO = local
    config = None
    if beginning == _ZIP:
        content, config = _members(local)
        source = io.BytesIO(content)
    elif h5py.is_hdf5(local):
        content = stack.enter_context(mapped(local))
    else:
        raise _Foreign(f"{path} is damaged or no Keras file: its beginning is neither HDF5's nor that of .keras.")
    check_skeleton(content, root_address(content), "/", set())  # before HDF5 itself looks at it
    return stack.enter_context(h5py.File(source, "r")), content, config


def _members(path: Path) -> tuple[bytes, str | None]:
    """Weights and `config.json` of a `.keras` archive; nothing is unpacked to the disk."""
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
                raise ModelFileError(f"it holds {member.filename} compressed in another way than zip's own")
            most = EXPANSION * size if member.filename == _WEIGHTS else MAX_STRING_BYTES
            if member.file_size > most:
                raise ModelFileError(
                    f"it declares {member.file_size:,} bytes of {member.filename}; {most:,} are the most"
                )
        config = archive.read("config.json").decode() if "config.json" in names else None
        return archive.read(_WEIGHTS), config
