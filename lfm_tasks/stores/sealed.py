"""Small files that tell when a byte of them has changed: receipts, notes, names of maps."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def seal(body: Mapping[str, Any]) -> bytes:
    """Return ``body`` as JSON, with its SHA-256 beside it; the same body gives the same bytes."""
    return json.dumps({"body": body, "sha256": seal_of(body)}, sort_keys=True, indent=1).encode()


def unseal(content: bytes) -> dict[str, Any]:
    """Return the body; ValueError unless these are, byte for byte, what `seal` made of it."""
    try:
        body = json.loads(content)["body"]
        is_sound = isinstance(body, dict) and seal(body) == content
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it is no sealed file ({type(error).__name__})") from error
    if not is_sound:
        raise ValueError("its checksum does not fit")
    return dict(body)


def seal_of(body: Mapping[str, Any]) -> str:
    """Return the SHA-256 of ``body`` as JSON."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
