"""Logins of ECR: whose hosts, botocore on a scripted AWS on loopback, how long a token is used."""

import asyncio
import base64
import datetime as dt
import json
import logging
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from regproxy.origin.ecr import RETRY_S, EcrLogin, EcrLogins, parse_authorization, region_of

HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
SECRET = "s3cret-word"
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("host", "region"),
    [
        (HOST, "eu-west-1"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("123456789012.dkr-ecr.eu-west-1.on.aws", "eu-west-1"),
        ("123456789012.dkr-ecr-fips.us-east-1.on.aws", "us-east-1"),
        ("public.ecr.aws", None),
        ("123.dkr.ecr.eu-west-1.amazonaws.com", None),
        (f"{HOST}.evil.test", None),
        (f"x.{HOST}", None),
        ("quay.io", None),
    ],
)
def test_the_region_of_a_registry(host: str, region: str | None) -> None:
    """Only private registries of AWS are asked for; a look-alike gets nothing."""
    assert region_of(host) == region


class _Aws(BaseHTTPRequestHandler):
    server: "Aws"

    def do_POST(self) -> None:
        self.server.seen.append({"target": self.headers["X-Amz-Target"], "signed": self.headers["Authorization"]})
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.silence.wait()
        body = json.dumps(self.server.answer).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""


class Aws(ThreadingHTTPServer):
    """The ECR API as far as logins go."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Aws)
        self.seen: list[dict[str, str]] = []
        self.status = 200
        self.silence = threading.Event()
        """Answers wait until it is set."""
        self.silence.set()
        self.give(SECRET)

    def give(self, password: str) -> None:
        """Answer with this password from now on, good for 12 hours."""
        token = base64.b64encode(f"AWS:{password}".encode()).decode()
        expires_at = dt.datetime.now(dt.UTC).timestamp() + 12 * 3600
        self.answer: object = {"authorizationData": [{"authorizationToken": token, "expiresAt": expires_at}]}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """Start a scripted AWS, and give this process an identity of environment keys and no other."""
    server = Aws()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    settings = {
        "AWS_ENDPOINT_URL_ECR": f"http://127.0.0.1:{server.server_address[1]}",
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "key-of-the-test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def test_environment_keys_give_a_login(aws: Aws) -> None:
    """The request is signed for the host's region."""
    login = await EcrLogins().login_for(HOST)

    assert login == EcrLogin("AWS", SECRET)
    assert SECRET not in repr(login)
    (request,) = aws.seen
    assert request["target"] == "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
    assert "/eu-west-1/ecr/aws4_request" in request["signed"]


async def test_a_token_is_used_for_most_of_its_life(aws: Aws) -> None:
    """80 % of 12 hours; then AWS is asked for the next."""
    now_s = 0.0
    logins = EcrLogins(lambda: now_s)
    await logins.login_for(HOST)
    aws.give("next")
    now_s = 9.5 * 3600
    assert await logins.login_for(HOST) == EcrLogin("AWS", SECRET)
    now_s = 9.7 * 3600
    assert await logins.login_for(HOST) == EcrLogin("AWS", "next")


async def test_a_refused_login_is_asked_for_again(aws: Aws) -> None:
    """A token may be revoked; a registry that refuses every login does not make us ask without end."""
    now_s = 0.0
    logins = EcrLogins(lambda: now_s)
    await logins.login_for(HOST)
    aws.give("next")
    logins.distrust(HOST)
    assert await logins.login_for(HOST) == EcrLogin("AWS", SECRET)
    now_s = RETRY_S
    logins.distrust(HOST)
    assert await logins.login_for(HOST) == EcrLogin("AWS", "next")


async def test_other_hosts_are_not_asked_for(aws: Aws) -> None:
    """AWS hears of its own registries alone."""
    assert await EcrLogins().login_for("quay.io") is None
    assert aws.seen == []


async def test_the_end_does_not_wait_for_aws(aws: Aws) -> None:
    """A silent AWS holds neither who gave up waiting nor the end of the process."""
    aws.silence.clear()
    before = set(threading.enumerate())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(EcrLogins().login_for(HOST), 0.1)
    asking = [thread for thread in threading.enumerate() if thread not in before and "ECR" in thread.name]
    assert [thread.daemon for thread in asking] == [True]
    aws.silence.set()
    for thread in asking:  # it reads the environment, which is another test's soon
        await asyncio.to_thread(thread.join, 20)


async def test_a_refusal_of_aws_is_said_once(aws: Aws, caplog: pytest.LogCaptureFixture) -> None:
    """The pull goes on without a login; AWS is asked again after a minute."""
    aws.status, aws.answer = 400, {"__type": "AccessDeniedException", "message": f"not {SECRET}"}
    now_s = 0.0
    logins = EcrLogins(lambda: now_s)
    assert [await logins.login_for(HOST) for _ in range(3)] == [None] * 3
    assert len(aws.seen) == 1
    now_s = RETRY_S
    assert await logins.login_for(HOST) is None
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["ECR in eu-west-1: no login from AWS: ClientError"]
    assert SECRET not in "".join(warnings)


async def test_without_an_identity_there_is_no_login(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine outside AWS pulls on without one."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    assert await EcrLogins().login_for(HOST) is None
    assert aws.seen == []
    assert "NoCredentialsError" in caplog.text


async def test_without_botocore_the_remedy_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is an optional part."""
    for name in ("botocore", "botocore.config", "botocore.session"):
        monkeypatch.setitem(sys.modules, name, None)

    assert await EcrLogins().login_for(HOST) is None
    assert "install registry-proxy[ecr]" in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"authorizationData": []},
        {"authorizationData": [{"authorizationToken": "%", "expiresAt": NOW}]},
        {"authorizationData": [{"authorizationToken": base64.b64encode(b"AWS"), "expiresAt": NOW}]},
        {"authorizationData": [{"authorizationToken": base64.b64encode(b"AWS:p")}]},
    ],
)
def test_an_answer_that_is_none_is_refused(answer: object) -> None:
    """Nothing else than the one error comes of it."""
    with pytest.raises(ValueError, match="GetAuthorizationToken"):
        parse_authorization(answer, NOW)


@pytest.mark.parametrize(("hours", "used_s"), [(12, 34560), (1, 2880), (99, 34560), (-1, RETRY_S)])
def test_how_long_a_token_is_used(hours: int, used_s: float) -> None:
    """A part of what is left, by AWS's word, and neither longer than AWS promises nor over and over."""
    token = base64.b64encode(b"AWS:p").decode()
    answer = {"authorizationData": [{"authorizationToken": token, "expiresAt": NOW + dt.timedelta(hours=hours)}]}

    assert parse_authorization(answer, NOW) == (EcrLogin("AWS", "p"), used_s)
