"""The start: what is wrong is said in one line, nothing runs without its addon, and the CA is what it should be."""

import datetime as dt
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from lab.fixtures import MakeImage, StartProxy
from lab.lab import Lab
from lab.programs import Program
from lab.proxy import Proxy

pytestmark = pytest.mark.e2e

MITMDUMP = Path(sys.executable).with_name("mitmdump")
ENTRY = Path(__file__).parents[2] / "addons/registry_proxy.py"
SECRET = "hunter2"


def write_ca(
    directory: Path,
    encryption: KeySerializationEncryption,
    *,
    key_format: PrivateFormat = PrivateFormat.PKCS8,
    key: rsa.RSAPrivateKey | None = None,
) -> None:
    """Write an RSA CA as the predecessor's openssl made it; another `key` does not fit the certificate."""
    own = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an old CA")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, own.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=400))
        .not_valid_after(now + dt.timedelta(days=3000))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own.public_key()), critical=False)
        .add_extension(_ca_usage(), critical=True)
        .sign(own, hashes.SHA256())
    )
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (directory / "ca.key").write_bytes((key or own).private_bytes(Encoding.PEM, key_format, encryption))


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def refusal(proxy: Proxy) -> str:
    """Return the one line with which a start is refused."""
    completed = proxy.start_refused()
    assert completed.returncode not in (0, None)
    assert completed.stdout == ""
    (line,) = completed.stderr.splitlines()
    assert SECRET not in line
    return line


class TestBadSettings:
    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            pytest.param({"LISTEN_PORT": "ninety"}, ["LISTEN_PORT=ninety", "port number"], id="port"),
            pytest.param({"LISTEN_PORT": "70000"}, ["LISTEN_PORT=70000"], id="port out of range"),
            pytest.param({"LISTEN_HOST": "192.0.2.7"}, ["LISTEN_HOST=192.0.2.7"], id="foreign address"),
            pytest.param({"CACHE_MAX_SIZE": "a lot"}, ["CACHE_MAX_SIZE=a lot", "32g"], id="size"),
            pytest.param({"CACHE_INACTIVE": "soon"}, ["CACHE_INACTIVE=soon", "60d"], id="time"),
            pytest.param(
                {"ENABLE_MANIFEST_CACHE": "true", "MANIFEST_CACHE_PRIMARY_TIME": "10x"},
                ["MANIFEST_CACHE_PRIMARY_TIME=10x"],
                id="time of a tier",
            ),
            pytest.param({"UPSTREAM_MAPPINGS": "nonsense"}, ["UPSTREAM_MAPPINGS", "entry 1"], id="mapping"),
            pytest.param(
                {"UPSTREAM_CA_FILE": "/nonexistent/ca.pem"}, ["UPSTREAM_CA_FILE=/nonexistent/ca.pem"], id="bundle"
            ),
            pytest.param({"CONFIG_FILE": "/nonexistent/x.yaml"}, ["CONFIG_FILE=/nonexistent/x.yaml"], id="no file"),
            pytest.param({"CONFIG_FILE": "/usr"}, ["CONFIG_FILE=/usr"], id="file is a directory"),
            pytest.param({"CONFIG_FILE": "/proc/self/mem"}, ["CONFIG_FILE=/proc/self/mem"], id="unreadable file"),
            # nobody may make a directory there, not even root
            pytest.param({"CACHE_DIRECTORY": "/sys/cache"}, ["CACHE_DIRECTORY=/sys/cache"], id="cache directory"),
            pytest.param({"CACHE_DIRECTORY": "/etc/passwd"}, ["CACHE_DIRECTORY=/etc/passwd"], id="cache is a file"),
            pytest.param(
                {"CACHE_DIRECTORY": "/etc/passwd/cache"}, ["CACHE_DIRECTORY=/etc/passwd/cache"], id="below a file"
            ),
            pytest.param({"CA_DIRECTORY": "/sys/ca"}, ["CA_DIRECTORY=/sys/ca"], id="CA directory"),
            pytest.param({"CA_KEY_FILE": "/sys/new/ca.key"}, ["CA_KEY_FILE=/sys/new/ca.key"], id="CA key elsewhere"),
        ],
    )
    def test_a_bad_value_is_told_in_one_line(
        self, start_proxy: StartProxy, settings: dict[str, str], told: list[str]
    ) -> None:
        """The line names the variable, the value and the reason, and the exit code is not 0."""
        line = refusal(start_proxy(settings, start=False))
        assert all(part in line for part in told), line

    def test_several_mistakes_are_told_at_once_a_line_each(self, start_proxy: StartProxy) -> None:
        """An operator who has made three mistakes needs one start to learn of them."""
        settings = {"LISTEN_PORT": "x", "CACHE_MAX_SIZE": "y", "CACHE_INACTIVE": "z"}
        completed = start_proxy(settings, start=False).start_refused()
        told = [line.split(": ")[2] for line in completed.stderr.splitlines()]
        assert completed.returncode != 0
        assert sorted(told) == [
            "CACHE_INACTIVE=z",
            "CACHE_MAX_SIZE=y",
            "LISTEN_PORT=x",
        ]

    def test_a_port_in_use_is_told(self, start_proxy: StartProxy) -> None:
        """The line has the port and what to set."""
        proxy = start_proxy(start=False)
        with socket.create_server(proxy.address):
            line = refusal(proxy)
        assert f"port {proxy.address.port}" in line
        assert "LISTEN_PORT" in line

    def test_an_unknown_yaml_key_is_told_with_the_one_that_was_meant(
        self, start_proxy: StartProxy, tmp_path: Path
    ) -> None:
        """A misspelt key is an error: the default in its place would be a silent surprise."""
        file = tmp_path / "proxy.yaml"
        file.write_text("alow_push: true\n")
        line = refusal(start_proxy({"CONFIG_FILE": str(file)}, start=False))
        assert str(file) in line
        assert "did you mean allow_push?" in line

    @pytest.mark.parametrize(
        "settings",
        [
            pytest.param(
                {"AUTH_REGISTRIES": f"quay.io:robot:{SECRET} {SECRET} : ::{SECRET}", "LISTEN_PORT": "x"}, id="logins"
            ),
            pytest.param({"CERT_PASSWORD": SECRET, "LISTEN_PORT": "x"}, id="passphrase"),
            pytest.param({"UPSTREAM_MAPPINGS": f"https://me:{SECRET}@quay.io=192.0.2.1:x"}, id="login in a mapping"),
            pytest.param({"REGISTRIES": f"https://me:{SECRET}@quay.io", "LISTEN_PORT": "x"}, id="login in a host"),
        ],
    )
    def test_a_secret_is_never_printed(self, start_proxy: StartProxy, settings: dict[str, str]) -> None:
        """Whatever is wrong beside it or with it, a password is in no line."""
        completed = start_proxy(settings, start=False).start_refused()
        assert completed.returncode != 0
        assert completed.stderr
        assert SECRET not in completed.stderr + completed.stdout

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param(f"cert_password: [{SECRET}\n", id="not YAML"),
            pytest.param(f"cert_password:{SECRET}\n", id="no blank after the key"),
            pytest.param(f"credentials:\n  - host: quay.io\n    pasword: {SECRET}\n", id="misspelt key of a login"),
        ],
    )
    def test_a_secret_of_the_yaml_file_is_never_printed(
        self, start_proxy: StartProxy, tmp_path: Path, text: str
    ) -> None:
        """An error of the file names the file and does not repeat its text."""
        file = tmp_path / "proxy.yaml"
        file.write_text(text)
        assert str(file) in refusal(start_proxy({"CONFIG_FILE": str(file)}, start=False))

    def test_secrets_of_a_working_proxy_are_in_no_log(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """With logins in use and the most talkative log, neither password nor its Basic form is printed."""
        lab.push(build_image(), "private/logged")
        settings = {"AUTH_REGISTRIES": f"{lab.basic.name}:alice:secret {lab.token.name}:alice:{SECRET}"}
        proxy = start_proxy({**settings, "DEBUG_NGINX": "true"})
        proxy.skopeo().pull(f"{lab.basic.name}/private/logged:latest", tmp_path / "pulled")
        proxy.skopeo().pull(f"{lab.token.name}/private/logged:latest", tmp_path / "failed", check=False)
        proxy.stop()
        assert "private/logged" in proxy.log
        for secret in ("alice:secret", ":secret", "YWxpY2U6c2VjcmV0", SECRET):
            assert secret not in proxy.log
        arguments = b"".join(path.read_bytes() for path in (proxy.cache_directory).rglob("*") if path.is_file())
        assert SECRET.encode() not in arguments


class TestAuthority:
    @pytest.mark.parametrize(
        ("present", "missing", "variable"),
        [
            pytest.param("ca.crt", "ca.key", "CA_KEY_FILE", id="key"),
            pytest.param("ca.key", "ca.crt", "CA_CRT_FILE", id="certificate"),
        ],
    )
    def test_half_a_ca_is_refused_and_left_as_it_is(
        self, start_proxy: StartProxy, present: str, missing: str, variable: str
    ) -> None:
        """A CA that clients trust is never replaced by a new one because its other half is missing."""
        proxy = start_proxy(start=False)
        write_ca(proxy.ca_directory, NoEncryption())
        (proxy.ca_directory / missing).unlink()
        before = (proxy.ca_directory / present).read_bytes()
        line = refusal(proxy)
        assert variable in line
        assert str(proxy.ca_directory / missing) in line
        assert [path.name for path in proxy.ca_directory.iterdir()] == [present]
        assert (proxy.ca_directory / present).read_bytes() == before

    @pytest.mark.parametrize(
        ("spoil", "told"),
        [
            pytest.param(lambda path: path.write_text("no PEM\n"), "ca.crt", id="certificate is no PEM"),
            pytest.param(lambda path: path.with_name("ca.key").write_text("no PEM\n"), "ca.key", id="key is no PEM"),
            pytest.param(lambda path: path.with_name("ca.key").write_text(""), "ca.key", id="key is empty"),
        ],
    )
    def test_a_damaged_ca_is_refused(self, start_proxy: StartProxy, spoil: Callable[[Path], object], told: str) -> None:
        """The line names the file that cannot be used."""
        proxy = start_proxy(start=False)
        write_ca(proxy.ca_directory, NoEncryption())
        spoil(proxy.ca_directory / "ca.crt")
        assert str(proxy.ca_directory / told) in refusal(proxy)

    def test_a_key_of_another_certificate_is_refused(self, start_proxy: StartProxy) -> None:
        """The line names both files."""
        proxy = start_proxy(start=False)
        write_ca(proxy.ca_directory, NoEncryption(), key=rsa.generate_private_key(65537, 2048))
        line = refusal(proxy)
        assert str(proxy.ca_directory / "ca.key") in line
        assert str(proxy.ca_directory / "ca.crt") in line

    def test_a_wrong_passphrase_is_told_but_not_shown(self, start_proxy: StartProxy) -> None:
        """The line names the key file and CERT_PASSWORD."""
        proxy = start_proxy({"CERT_PASSWORD": SECRET}, start=False)
        write_ca(proxy.ca_directory, BestAvailableEncryption(b"another"))
        line = refusal(proxy)
        assert str(proxy.ca_directory / "ca.key") in line
        assert "CERT_PASSWORD" in line

    @pytest.mark.parametrize(
        ("key_format", "settings"),
        [
            pytest.param(PrivateFormat.PKCS8, {}, id="the predecessor's, PKCS 8"),
            pytest.param(PrivateFormat.TraditionalOpenSSL, {}, id="the predecessor's, traditional"),
            pytest.param(PrivateFormat.PKCS8, {"CERT_PASSWORD": SECRET}, id="the operator's"),
        ],
    )
    def test_an_existing_ca_is_used(
        self, lab: Lab, start_proxy: StartProxy, key_format: PrivateFormat, settings: dict[str, str]
    ) -> None:
        """Clients that trust the old RSA CA, encrypted as it may be, go on to do so; its files are left as they are."""
        proxy = start_proxy(settings, start=False)
        passphrase = settings.get("CERT_PASSWORD", "foobar").encode()
        write_ca(proxy.ca_directory, BestAvailableEncryption(passphrase), key_format=key_format)
        files = {path.name: path.read_bytes() for path in proxy.ca_directory.iterdir()}
        proxy.start()
        assert b"ENCRYPTED" in files["ca.key"]
        assert proxy.client().get(f"https://{lab.noauth.name}/v2/").status == 200
        assert proxy.request("GET", "/ca.crt").body == files["ca.crt"]
        assert {path.name: path.read_bytes() for path in proxy.ca_directory.iterdir()} == files

    def test_a_new_ca_is_ecdsa_p256_with_a_private_key_file(self, proxy: Proxy) -> None:
        """The key is for the proxy's user alone, belongs to the certificate, and stays over a restart."""
        key_file = proxy.ca_directory / "ca.key"
        key = load_pem_private_key(key_file.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(proxy.ca_file.read_bytes())
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert isinstance(key.curve, ec.SECP256R1)
        assert certificate.public_key() == key.public_key()
        assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(proxy.ca_directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(proxy.cache_directory.stat().st_mode) == 0o700
        files = {path.name: path.read_bytes() for path in proxy.ca_directory.iterdir()}
        proxy.restart()
        assert {path.name: path.read_bytes() for path in proxy.ca_directory.iterdir()} == files


class TestBareMitmdump:
    """`mitmdump -s addons/registry_proxy.py`, without entrypoint.sh."""

    def environment(self, proxy: Proxy) -> dict[str, str]:
        """Return the environment of a user who has installed nothing but mitmproxy."""
        return {"PATH": os.defpath, "HOME": str(proxy.ca_directory.parent), "LANG": "C.UTF-8", **proxy.settings}

    def test_it_comes_up_on_the_port_of_the_settings(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """The settings of the environment count, not mitmproxy's defaults, and pulls work."""
        image = build_image()
        lab.push(image, "start/bare")
        proxy = start_proxy(start=False)
        bare = Program(
            "mitmdump",
            [str(MITMDUMP), "-s", str(ENTRY)],
            tmp_path,
            environment=self.environment(proxy),
            listens_on=proxy.address,
        )
        try:
            bare.start()
            assert proxy.readiness() == 200
            proxy.skopeo().pull(f"{lab.noauth.name}/start/bare:latest", tmp_path / "pulled")
            assert bare.stop() == 0
        finally:
            bare.kill()

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            pytest.param({"LISTEN_PORT": "ninety"}, "LISTEN_PORT=ninety", id="value"),
            pytest.param({"CONFIG_FILE": "/nonexistent/x.yaml"}, "CONFIG_FILE=/nonexistent/x.yaml", id="file"),
            pytest.param({"CACHE_DIRECTORY": "/etc/passwd/cache"}, "/etc/passwd/cache", id="cache directory"),
            pytest.param({"CA_DIRECTORY": "/etc/passwd/ca"}, "/etc/passwd/ca", id="CA directory"),
            pytest.param({"UPSTREAM_CA_FILE": "/nonexistent/ca.pem"}, "/nonexistent/ca.pem", id="bundle"),
        ],
    )
    def test_it_ends_instead_of_running_without_its_addon(
        self, start_proxy: StartProxy, settings: dict[str, str], told: str
    ) -> None:
        """A broken setting ends the process with what is wrong; an open proxy is not what was asked for."""
        proxy = start_proxy({**settings, "AUTH_REGISTRIES": f"quay.io:me:{SECRET}"}, start=False)
        completed = self.run_refused(proxy)
        assert told in completed.stdout + completed.stderr
        assert SECRET not in completed.stdout + completed.stderr

    def test_it_ends_when_its_port_is_in_use(self, start_proxy: StartProxy) -> None:
        """It does not fall back to another port."""
        proxy = start_proxy(start=False)
        with socket.create_server(proxy.address):
            completed = self.run_refused(proxy)
        assert str(proxy.address.port) in completed.stdout + completed.stderr

    def test_a_setting_given_as_an_option_is_refused(self, start_proxy: StartProxy) -> None:
        """An unknown `--set` is ignored by mitmproxy; one that means us would be a silent default."""
        completed = self.run_refused(start_proxy(start=False), "--set", "registry_allow_push=true")
        assert "registry_allow_push" in completed.stderr

    def run_refused(self, proxy: Proxy, *options: str) -> subprocess.CompletedProcess[str]:
        """Run it until it ends by itself, which it must, with a code other than 0."""
        completed = subprocess.run(
            [str(MITMDUMP), "-s", str(ENTRY), *options],
            env=self.environment(proxy),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert completed.returncode != 0
        assert "Traceback" not in completed.stdout + completed.stderr
        return completed
