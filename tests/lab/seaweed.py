"""A real S3 engine on loopback: SeaweedFS, with one login and any number of buckets."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import obstore
from obstore.store import S3Store

from lab.addresses import Address, free_port
from lab.programs import LabError, Program

ACCESS_KEY = "LABACCESSKEY"
SECRET_KEY = "only-in-the-lab-5Tx9"

_HOST = "127.0.0.1"
_READY_LIMIT_S = 60.0
_POLL_S = 0.05


class Seaweed:
    """One engine in `directory`; `start` after `kill` brings back what it had. A bucket is made by its first object."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        (directory / "blocks").mkdir()
        self.address = Address(_HOST, free_port())
        login = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        identity = {"name": "lab", "credentials": [login], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        configuration = directory / "s3.json"
        configuration.write_text(json.dumps({"identities": [identity]}))
        options = {
            "ip": _HOST,
            "ip.bind": _HOST,
            "dir": directory / "blocks",
            "master.port": free_port(),
            "master.port.grpc": free_port(),
            "master.telemetry": "false",
            "master.electionTimeout": "1s",
            "master.volumeSizeLimitMB": 128,
            "volume.port": free_port(),
            "volume.port.grpc": free_port(),
            "volume.max": 64,
            "volume.preStopSeconds": 0,
            "filer": "true",
            "filer.port": free_port(),
            "filer.port.grpc": free_port(),
            "filer.localSocket": directory / "filer.sock",
            "s3": "true",
            "s3.port": self.address.port,
            "s3.port.grpc": free_port(),
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.localSocket": directory / "s3.sock",
            "s3.config": configuration,
        }
        command = [str(Path(sys.executable).with_name("weed")), "-logtostderr=true", "server"]
        self._program = Program(
            "weed",
            [*command, *(f"-{name}={value}" for name, value in options.items())],
            directory,
            environment={"PATH": "/usr/bin:/bin", "HOME": str(directory)},
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until an object can be written; LabError with the end of its log when that fails."""
        self._program.start()
        deadline_s = time.monotonic() + _READY_LIMIT_S
        while True:
            try:
                obstore.put(self.bucket("ready"), "ready", b"")
            except Exception as error:  # noqa: BLE001 - obstore's errors have no common base
                if not self._program.is_running or time.monotonic() > deadline_s:
                    self.kill()
                    raise LabError(f"SeaweedFS is not ready: {error}\n{self._program.log_tail()}") from None
                time.sleep(_POLL_S)
            else:
                return

    def kill(self) -> None:
        """End it at once."""
        self._program.kill()

    def bucket(self, name: str) -> S3Store:
        """Return a client for one bucket."""
        return S3Store(
            name,
            endpoint=f"http://{self.address}",
            region="us-east-1",
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            client_options={"allow_http": True, "timeout": "10s"},
            retry_config={"max_retries": 0},
        )

    def settings(self, bucket: str, *, at: Address | None = None, prefix: str = "cache") -> Mapping[str, str]:
        """Return what leads a proxy to a bucket, by the engine's own address or another one that leads there.

        The bucket has room for objects by then: on a busy machine to make it takes longer than a proxy waits.
        """
        made = self.bucket(bucket)
        obstore.put(made, "first", b"the first byte needs a place")
        obstore.delete(made, "first")
        return {
            "STORE_URL": f"s3://{bucket}/{prefix}?endpoint=http://{at or self.address}&region=us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }


def names_in(bucket: S3Store) -> list[str]:
    """Return the names of all objects of a bucket."""
    return sorted(entry["path"] for page in obstore.list(bucket) for entry in page)
