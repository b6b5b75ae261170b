"""What `/setup/` and what is below it answer; the predecessor's `/setup/systemd` is not among them.

An answer may be on its way into a shell (`curl -s ... | sh`), errors too: their lines are comments to it, and nothing
of the request is in them.
"""

from mitmproxy import http

from regproxy.engine.rotation import fingerprint
from regproxy.policy.client_setup import CLIENTS, DOCTOR, BaseUrl, SetupOptions, client_registries, find_client
from regproxy.policy.mirror import find_mirrored
from regproxy.stack.answers import answer, plain_text
from regproxy.stack.core import Core
from regproxy.stack.setup_pages import ProxyFacts, client_text, clients_page, doctor_script


def setup_answer(core: Core, name: str, query: str, address: tuple[str, str], *, html: bool) -> http.Response:
    """Answer `/setup/<name>?<query>`; `address` is the scheme and the host by which the client reached us."""
    if not core.ready:
        return _refused(503, "the proxy is starting: ask again in a moment")
    try:
        base_url = BaseUrl.parse(*address)
    except ValueError:
        return _refused(400, "the Host field of this request is not of the form host or host:port")
    facts = _facts(core, base_url)
    if not name:
        kind = "text/html" if html else "text/plain"
        return answer(200, {"Content-Type": f"{kind}; charset=utf-8"}, clients_page(facts, html=html).encode())
    client = find_client(name)
    if client is None and name != DOCTOR:
        known = ", ".join(client.name for client in CLIENTS)
        return _refused(
            404, f"there is no such client here. There are: {known}, systemd, and doctor. See {base_url}/setup/"
        )
    try:
        options = SetupOptions.parse(query)
    except ValueError:
        return _refused(
            400,
            "the query is wrong. There are: door=proxy or door=mirror; no_proxy=HOST,NETWORK,...; "
            "fp=sha256:... (64 hex digits, the CA's)",
        )
    text = doctor_script(facts, options) if client is None else client_text(client, facts, options)
    return plain_text(200, text)


def _facts(core: Core, base_url: BaseUrl) -> ProxyFacts:
    authorities, settings = core.ca.authorities, core.settings
    mirrored = client_registries(settings.mirrored)
    return ProxyFacts(
        base_url=base_url,
        registries=client_registries(settings.registries),
        mirrored=tuple(name for name in mirrored if find_mirrored(name, settings.mirrored) is not None),
        ca_pem=authorities.trust_pem.decode(),
        ca_fingerprint=fingerprint(authorities.signing.certificate),
    )


def _refused(status: int, words: str) -> http.Response:
    return plain_text(status, f"# registry-proxy: {words}\n")
