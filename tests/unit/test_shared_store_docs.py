"""The examples of docs/shared-store.md: they are settings of the proxy, and name the rights that it uses."""

import json
import re
from pathlib import Path

from regproxy.policy.bucket_address import BucketAddress
from regproxy.settings import load_settings

DOCUMENT = (Path(__file__).parents[2] / "docs" / "shared-store.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```(\w+)\n(.*?)```", DOCUMENT, re.DOTALL))


def test_the_settings_are_those_of_the_proxy(tmp_path: Path) -> None:
    """The YAML file and the variables lead to the bucket, without a warning."""
    key = tmp_path / "store-key"
    key.write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "settings.yaml").write_text(EXAMPLES["yaml"])
    variables = dict(line.split("=", 1) for line in EXAMPLES["sh"].split())
    assert variables.pop("STORE_KEY_FILE") == "/secrets/store-key"
    settings = load_settings({**variables, "STORE_KEY_FILE": str(key), "CONFIG_FILE": str(tmp_path / "settings.yaml")})

    assert settings.store_url == BucketAddress(
        "registry-cache", "prod", "https://s3.example.net", "eu-central-1", virtual_hosted=False
    )
    assert settings.store_key == "0123456789abcdef0123456789abcdef"
    assert (settings.enable_manifest_cache, settings.warnings) == (True, ())


def test_the_rights_are_for_that_bucket() -> None:
    """Objects below the prefix, and listing."""
    objects, listing = json.loads(EXAMPLES["json"])["Statement"]

    assert objects["Resource"].endswith(":registry-cache/prod/*")
    assert {"s3:GetObject", "s3:PutObject", "s3:DeleteObject"} <= set(objects["Action"])
    assert (listing["Action"], listing["Resource"].endswith(":registry-cache")) == ("s3:ListBucket", True)
