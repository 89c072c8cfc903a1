"""Small files that tell when a byte of them has changed: receipts, notes, names of maps."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

# What stands before and behind the body; with its checksum that is every byte of the file.
_START = b'{"body": '
_END = re.compile(rb', "sha256": "([0-9a-f]{64})"\}\Z')
_END_BYTES = len(b', "sha256": ""}') + 64


def seal(body: Mapping[str, Any]) -> bytes:
    """Return ``body`` as JSON, with its SHA-256 beside it; the same body gives the same bytes."""
    text = _text(body)
    return b'%s%s, "sha256": "%s"}' % (_START, text, hashlib.sha256(text).hexdigest().encode())


def unseal(content: bytes) -> dict[str, Any]:
    """Return the body; ValueError unless these are, byte for byte, what `seal` made of it."""
    try:
        body = json.loads(content)["body"]
        is_sound = isinstance(body, dict) and (_is_sealed(content) or _indented(body) == content)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it is no sealed file ({type(error).__name__})") from error
    if not is_sound:
        raise ValueError("its checksum does not fit")
    return dict(body)


def seal_of(body: Mapping[str, Any]) -> str:
    """Return the SHA-256 of ``body`` as JSON."""
    return hashlib.sha256(_text(body)).hexdigest()


def _text(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True).encode()


def _is_sealed(content: bytes) -> bool:
    end = _END.fullmatch(content, max(0, len(content) - _END_BYTES))
    if end is None or not content.startswith(_START):
        return False
    return hashlib.sha256(content[len(_START) : end.start()]).hexdigest().encode() == end[1]


def _indented(body: Mapping[str, Any]) -> bytes:
    """Return what sealed files were before: indented, which json does ten times as slowly."""
    return json.dumps({"body": body, "sha256": seal_of(body)}, sort_keys=True, indent=1).encode()
