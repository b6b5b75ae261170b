#!/bin/sh
# Points this host's Docker at the registry proxy {{ base_url }}/ and trusts its CA.
set -eu
[ -d /etc/systemd ] || { echo "this host has no systemd; see {{ base_url }}/ for other ways" >&2; exit 1; }

mkdir -p /etc/systemd/system/docker.service.d
cat > /etc/systemd/system/docker.service.d/http-proxy.conf <<END
[Service]
Environment="HTTPS_PROXY={{ base_url }}/"
END

curl -fsS "{{ base_url }}/ca.crt" > /usr/share/ca-certificates/docker_registry_proxy.crt
if ! grep -qxF docker_registry_proxy.crt /etc/ca-certificates.conf; then
    echo docker_registry_proxy.crt >> /etc/ca-certificates.conf
fi
# While the proxy's CA is being replaced it gives two certificates. Each needs a file of its own: OpenSSL's folder of
# authorities passes over a file with two.
sed -i '/^docker_registry_proxy_next[.]crt$/d' /etc/ca-certificates.conf
(
    cd /usr/share/ca-certificates
    rm -f docker_registry_proxy_next.crt
    awk '/-----BEGIN CERTIFICATE-----/ { number++ }
        number == 1 { print > "docker_registry_proxy.crt.new" }
        number > 1 { print > "docker_registry_proxy_next.crt" }' docker_registry_proxy.crt
    mv docker_registry_proxy.crt.new docker_registry_proxy.crt
)
if [ -e /usr/share/ca-certificates/docker_registry_proxy_next.crt ]; then
    echo docker_registry_proxy_next.crt >> /etc/ca-certificates.conf
fi
update-ca-certificates --fresh

systemctl daemon-reload
systemctl restart docker.service
echo "Docker now pulls through {{ base_url }}/"
