"""The files of a `multipart/form-data` body, in memory.

Starlette's form parser writes files above 1 MB to the disk; here the body is in memory already, and limited.
"""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from model_trainer.serving.http.errors import HttpError

__all__ = ["read_files"]

MAX_OTHER_FIELDS = 100
MAX_HEADERS = 16  # of a part
MAX_HEADER_BYTES = 4096


class _Parts:
    """Collects the parts that are files; the callbacks of python-multipart."""

    def __init__(self, max_files: int) -> None:
        self.files: list[list[bytes]] = []
        self._max_files = max_files
        self._num_others = 0
        self._name = self._value = b""
        self._is_file = False
        self.is_complete = False

    def on_part_begin(self) -> None:
        self._is_file = False

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        name, value = self._name.lower(), self._value
        self._name = self._value = b""
        if name == b"content-disposition":
            self._is_file |= b"filename" in parse_options_header(value)[1]
        elif name == b"content-type":
            self._is_file |= value.strip().lower().startswith((b"image/", b"application/"))

    def on_headers_finished(self) -> None:
        if self._is_file:
            self.files.append([])
            if len(self.files) > self._max_files:
                raise HttpError(400, f"The form has more than {self._max_files} files, the limit of one request.")
            return
        self._num_others += 1
        if self._num_others > MAX_OTHER_FIELDS:
            raise HttpError(400, f"The form has more than {MAX_OTHER_FIELDS} fields that are not files.")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.files[-1].append(data[start:end])

    def on_end(self) -> None:
        self.is_complete = True


def read_files(body: bytes, content_type: bytes, max_files: int) -> list[bytes]:
    """Returns the contents of all files of a form, in their order.

    Args:
        content_type: the whole header, with its boundary.
        max_files: more are an error.

    Raises:
        HttpError: 400, the form cannot be read or has no file.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise HttpError(400, "The Content-Type multipart/form-data has no boundary.")
    parts = _Parts(max_files)
    callbacks = {name: getattr(parts, name) for name in dir(parts) if name.startswith("on_")}
    try:
        parser = MultipartParser(
            boundary,
            callbacks,  # type: ignore[arg-type]
            max_header_count=MAX_HEADERS,
            max_header_size=MAX_HEADER_BYTES,
        )
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise HttpError(400, "The form cannot be read as multipart/form-data with the boundary given.") from None
    if not parts.is_complete:
        raise HttpError(400, "The form is not complete: its last boundary is missing.")
    if not parts.files:
        raise HttpError(400, "The form contains no file; with curl: -F image=@photo.jpg")
    return [b"".join(chunks) for chunks in parts.files]
