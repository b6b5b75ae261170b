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
update-ca-certificates --fresh

systemctl daemon-reload
systemctl restart docker.service
echo "Docker now pulls through {{ base_url }}/"
