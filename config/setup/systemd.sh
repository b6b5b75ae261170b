#!/bin/sh
# Points this host's Docker at the registry proxy {{ base_url }}/ and trusts its CA.
set -eu
[ -d /etc/systemd ] || { echo "this host has no systemd; see {{ base_url }}/ for other ways" >&2; exit 1; }

mkdir -p /etc/systemd/system/docker.service.d
cat > /etc/systemd/system/docker.service.d/http-proxy.conf <<END
[Service]
Environment="HTTPS_PROXY={{ base_url }}/"
END

# While the proxy's CA is being replaced it gives two certificates, and each needs a file of its own: OpenSSL's folder of
# authorities passes over a file with two.
fetched=$(mktemp)
curl -fsS "{{ base_url }}/ca.crt" > "$fetched"
rm -f /usr/share/ca-certificates/docker_registry_proxy*.crt
awk '/-----BEGIN CERTIFICATE-----/ { number++ }
    number { print > ("/usr/share/ca-certificates/docker_registry_proxy" (number > 1 ? "_" number : "") ".crt") }' "$fetched"
rm -f "$fetched"
touch /etc/ca-certificates.conf
sed -i '/^docker_registry_proxy.*[.]crt$/d' /etc/ca-certificates.conf
(cd /usr/share/ca-certificates && ls docker_registry_proxy*.crt) >> /etc/ca-certificates.conf
update-ca-certificates --fresh

systemctl daemon-reload
systemctl restart docker.service
echo "Docker now pulls through {{ base_url }}/"
