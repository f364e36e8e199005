"""Footage and stores that lie elsewhere: s3://, gs://, az://, sftp://, zip:// and all of fsspec's.

Endpoints, credentials and the like are fsspec's own to know: its configuration files, FSSPEC_*
variables, and what each of its packages reads.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from syncdisc_plugin.errors import MediaError, RunError, is_machines_fault

_T = TypeVar("_T")
# Chained ones too (simplecache::s3://..., zip://*::s3://...); no letter of a Windows drive.
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]+::)*[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_PATH_OF_URL = re.compile(r"[a-z][a-z0-9+.-]+:/[^/]", re.IGNORECASE)
# By what a listing tells a new content from an old one, best first: file systems name it variously,
# and their times are of several roundings, in a listing and of one object.
_VERSIONS = (
    *("etag", "md5", "md5hash", "blob_id", "crc", "generation"),
    *("mtime", "lastmodified", "last_modified", "updated", "modified", "modify", "date_time"),
)
INCOMING = ".*.incoming*"  # what `local_copy` calls its copies
PAUSES_S = (1.0, 4.0)  # before the second and the third try of a transfer


def is_url(place: str | Path) -> bool:
    """Whether a place is a URL; a Path never is."""
    return isinstance(place, str) and bool(_URL.match(place))


def location(text: str) -> str | Path:
    """A place as it was typed: a URL stays one, all else is a path."""
    return text if is_url(text) else Path(text)


def check_local(name: str, path: Path, fix: str) -> None:
    """Refuse a URL of which `Path` has dropped a slash.

    Raises:
        RunError: it names the parameter, and ends with the fix.
    """
    if _PATH_OF_URL.match(str(path)) and not path.exists():
        raise RunError(f"{name} {path}: expected a path on this machine, got a URL. {fix}")


def open_url(url: str) -> tuple[Any, str]:
    """The file system of a URL (fsspec.AbstractFileSystem), and the path in it.

    Raises:
        RunError: no such protocol, or its package is missing.
        Exception: whatever that package raises, where it connects at once.
    """
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise RunError(
            f"{url}: cannot be opened ({_text(error)}). Check the part before ://; s3 needs the "
            "package s3fs, gs gcsfs, az adlfs, http and https aiohttp, sftp paramiko: pip install "
            "it."
        ) from error
    fs.invalidate_cache()  # a listing of long ago says nothing of now
    return fs, path


def list_videos(url: str) -> list[tuple[str, str, list[Any]]]:
    """(URL, name below `url`, version) of each video there: recursive, sorted, no hidden ones.

    A URL of one file, without a slash at its end, is taken as it is, whatever its suffix.

    Raises:
        RunError: as `open_url`, or it cannot be listed.
        MediaError: nothing is there.
    """
    from syncdisc_plugin.media import VIDEO_SUFFIXES

    try:
        fs, path = open_url(url)
        if not url.endswith("/") and fs.isfile(path):
            return [(url, PurePosixPath(path).name, _version(fs.info(path)))]
        found = fs.find(path, detail=True)
        out = []
        for name, about in sorted(found.items()):
            below = PurePosixPath(name[len(path) :].lstrip("/"))
            hidden = any(part.startswith(".") for part in below.parts)
            if hidden or below.suffix.lower() not in VIDEO_SUFFIXES:
                continue
            # Some listings have names only.
            version = _version(about) if _has_version(about) else _version(fs.info(name))
            out.append((join(url, str(below)), str(below), version))
    except RunError:
        raise
    except Exception as error:
        raise RunError(
            f"{url}: cannot be listed ({_text(error)}). Check the name and the credentials."
        ) from error
    if not found:
        raise MediaError(f"{url}: nothing is there. Check the spelling.")
    return out


def version(url: str) -> list[Any]:
    """What changes when the object changes: its size, and ETag, checksum or time; three tries.

    Raises:
        RunError: as `open_url`.
        OSError: there is none, or it cannot be looked at.
    """
    return _tried(lambda fs, path: _version(fs.info(path)), url)


def fetch(url: str, local: Path) -> None:
    """Copy the object to `local`, in up to three tries.

    Raises:
        RunError: as `open_url`.
        OSError: it cannot be read, or not whole; or this machine's disk is full.
    """

    def get(fs: Any, path: str) -> None:
        fs.get_file(path, str(local))
        expected, got = fs.info(path).get("size"), local.stat().st_size
        if expected not in (None, got):
            raise OSError(f"{got} of {expected} bytes came")

    _tried(get, url)


def send(local: Path, url: str) -> None:
    """Copy a file to `url`, in up to three tries.

    Raises:
        RunError: as `open_url`.
        OSError: it cannot be written, or not whole.
    """
    size = local.stat().st_size

    def put(fs: Any, path: str) -> None:
        fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        fs.put_file(str(local), path)
        fs.invalidate_cache()
        if (there := fs.info(path).get("size")) != size:
            raise OSError(f"{there} of {size} bytes arrived")

    _tried(put, url)


def sizes(url: str) -> dict[str, int | None]:
    """Bytes of all that is below `url`, by name; {} where nothing is.

    Raises:
        RunError: as `open_url`.
        OSError: it cannot be listed.
    """

    def find(fs: Any, path: str) -> dict[str, int | None]:
        try:
            found = fs.find(path, detail=True)
        except FileNotFoundError:
            return {}
        return {name[len(path) :].lstrip("/"): about.get("size") for name, about in found.items()}

    return _tried(find, url)


def remove(url: str) -> None:
    """Delete an object.

    Raises:
        RunError, OSError: as `fetch`.
    """
    _tried(lambda fs, path: fs.rm_file(path), url)


def _tried(act: Callable[[Any, str], _T], url: str) -> _T:
    """What the act gives, at the first, second or third try: networks have their moments."""
    for pause in (*PAUSES_S, None):
        try:
            return act(*open_url(url))
        except RunError:
            raise
        except Exception as error:
            if is_machines_fault(error):
                raise
            for_good = isinstance(error, FileNotFoundError | PermissionError)
            if pause is None or for_good:
                number = getattr(error, "errno", None) or errno.EIO
                raise OSError(number, _text(error), url) from error
            time.sleep(pause)
    raise AssertionError  # the last try has no pause


@contextmanager
def local_copy(url: str, beside: Path) -> Iterator[Path]:
    """A copy of the object on this machine while the block lasts: hidden, `beside` another file.

    After a kill it is still there, and `INCOMING` matches it.

    Raises:
        RunError, OSError: as `fetch`.
    """
    link = _links(url)[1].split("?")[0]  # decoders look at the suffix too
    copy = beside.with_name(f".{beside.stem}.incoming{PurePosixPath(link).suffix}")
    try:
        fetch(url, copy)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _links(url: str) -> tuple[list[str], str, list[str]]:
    """A chain of URLs, divided at the link that carries the path."""
    links = url.split("::")
    at = next(i for i, link in enumerate(links) if "://" in link)
    return links[:at], links[at], links[at + 1 :]


def join(url: str, below: str) -> str:
    """The URL of something below another."""
    before, link, behind = _links(url)
    return "::".join([*before, link + ("" if link.endswith("/") else "/") + below, *behind])


def parts(url: str) -> list[str]:
    """Names on the way to it, as of a path; of an archive that is taken whole, the way to that."""
    _, link, behind = _links(url)
    for one in (link, *behind):
        if names := [name for name in one.partition("://")[2].split("/") if name]:
            return names
    return []


def _has_version(about: dict[str, Any]) -> bool:
    return len(_version(about)) > 1


def _version(about: dict[str, Any]) -> list[Any]:
    """[size] and the best of what else is known, as JSON takes it."""
    named = {name.lower().replace("-", "_"): value for name, value in about.items()}
    size = [named.get("size")]
    for name in _VERSIONS:
        if named.get(name) not in (None, ""):
            return [*size, str(named[name]).strip('"')]
    return size


def _text(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
