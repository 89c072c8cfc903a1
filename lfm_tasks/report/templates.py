"""Templates, styles and scripts of the pages: text goes in as text, and each page allows its own script and style."""

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined


def templates() -> Environment:
    """Return the templates: what they are given is text, never markup."""
    return Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(resource),
    )


def resource(name: str) -> str:
    """Return a template, a style or a script."""
    return files(__package__).joinpath("web", name).read_text(encoding="utf-8")


def allowed(content: str) -> str:
    """Return the source expression of a content security policy that allows this script or style alone."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
