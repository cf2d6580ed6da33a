"""The members of a zip archive as regions of its file."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.store.tensor_files.tensor import Region, UnreadableTensorsError

if TYPE_CHECKING:
    from zipfile import ZipInfo

MAX_DIRECTORY = 8 << 20
"""Bytes of an archive's directory; about 80,000 members."""
MAX_EXPANSION = 100
"""How many times its own size an archive may unpack to, ..."""
FREE_EXPANSION = 1 << 30
"""... or to so many bytes, whichever is more."""
_LOCAL_HEADER = 30
_ENCRYPTED = 0x1
_STORED, _DEFLATED = 0, 8


class _BoundedReads(io.FileIO):
    """A file that survives `zipfile`, which believes every size and offset in it."""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_SET and offset < 0:
            raise UnreadableTensorsError("the archive's directory points before the file")
        return super().seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > MAX_DIRECTORY:
            raise UnreadableTensorsError(
                f"the archive's directory takes over {MAX_DIRECTORY:,} bytes"
            )
        return super().read(max(wanted, 0)) or b""


def archive_members(path: Path) -> Mapping[str, Region]:
    """Raises UnreadableTensorsError."""
    import struct
    import zipfile

    size = path.stat().st_size
    with _BoundedReads(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            raise UnreadableTensorsError("it is not a valid zip archive") from error
        expanded = sum(member.file_size for member in members)
        if expanded > max(FREE_EXPANSION, MAX_EXPANSION * size):
            raise UnreadableTensorsError(f"{size:,} bytes would unpack to {expanded:,}")
        found = {member.filename: _region(path, size, file, member) for member in members}
    if len(found) != len(members):
        raise UnreadableTensorsError("the archive has a member twice")
    return found


def _region(path: Path, size: int, file: io.FileIO, member: ZipInfo) -> Region:
    if member.flag_bits & _ENCRYPTED or member.compress_type not in (_STORED, _DEFLATED):
        raise UnreadableTensorsError(
            f"member {member.filename!r} is encrypted or packed in another way"
        )
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or header[:4] != b"PK\3\4":
        raise UnreadableTensorsError(f"member {member.filename!r} is not where the directory says")
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    offset = member.header_offset + _LOCAL_HEADER + name + extra
    if offset + member.compress_size > size:
        raise UnreadableTensorsError(f"member {member.filename!r} ends behind the file's end")
    packed = member.compress_size if member.compress_type == _DEFLATED else None
    if packed is None and member.compress_size != member.file_size:
        raise UnreadableTensorsError(f"member {member.filename!r} has two sizes")
    return Region(path=path, offset=offset, length=member.file_size, packed=packed)
