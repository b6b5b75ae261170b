"""What a start leaves to children and to other users."""

import os

from regproxy.settings.table import SETTINGS_TABLE
from regproxy.stack.private_process import keep_private

SECRET = "hunter2-s3cret"


def test_the_secrets_of_the_settings_are_forgotten() -> None:
    """Every secret goes from the environment that children inherit; the way out, and what is no secret, stays."""
    kept = {
        "HTTPS_PROXY": f"http://u:{SECRET}@p:1",
        "https_proxy": "x",
        "HTTP_PROXY": "y",
        "PATH": "/bin",
        "AWS_REGION": "eu",
    }
    secrets = {each.variable: SECRET for each in SETTINGS_TABLE if each.secret}
    environ = {**secrets, **kept}
    assert {"AUTH_REGISTRIES", "CERT_PASSWORD", "PROXY_AUTH", "DEBUG_PASSWORD"} <= environ.keys()

    keep_private(environ)

    assert environ == kept


def test_files_are_for_their_user() -> None:
    """Also without the entry point, which sets the same umask."""
    keep_private({})

    assert os.umask(0o077) == 0o077
