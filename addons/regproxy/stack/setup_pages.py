"""The texts of the set-up pages, rendered from the templates in `config/setup/`."""

from functools import cache
from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).resolve().parents[3] / "config" / "setup"


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )


def systemd_script(base_url: str) -> str:
    """Return the script that points a Debian host's Docker at the proxy (contract section 1.3)."""
    return _environment().get_template("systemd.sh").render(base_url=base_url)


def index_page(base_url: str) -> str:
    """Return the page that a browser gets."""
    return _environment().get_template("index.html").render(base_url=base_url)
