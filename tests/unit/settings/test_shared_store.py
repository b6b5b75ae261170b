"""Settings of the shared store."""

import pytest

from regproxy.policy.bucket_address import BucketAddress
from regproxy.settings import SettingsError, load_settings


def test_without_them_there_is_no_shared_store() -> None:
    """The default is one proxy with its own disk."""
    settings = load_settings({})

    assert (settings.store_url, settings.store_key) == (None, "")


def test_they_are_read() -> None:
    """As the table says."""
    settings = load_settings({"STORE_URL": "s3://bucket/p?endpoint=http://h:1", "STORE_KEY": "0123456789abcdef"})

    assert settings.store_url == BucketAddress("bucket", "p", "http://h:1")
    assert settings.store_key == "0123456789abcdef"
    assert "0123456789abcdef" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("STORE_URL", "s3://key:hidden-word@bucket", "credentials do not belong here"),
        ("STORE_URL", "gs://bucket", "not an s3:// URL"),
        ("STORE_KEY", "hidden-word", "shorter than 16 characters"),
    ],
)
def test_mistakes_are_told_without_the_value(variable: str, value: str, reason: str) -> None:
    """The variable and the reason are enough."""
    with pytest.raises(SettingsError) as caught:
        load_settings({variable: value})

    (problem,) = caught.value.problems
    assert problem.startswith(f"{variable}: ")
    assert reason in problem
    assert "hidden-word" not in problem
