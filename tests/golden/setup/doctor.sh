#!/bin/sh
# Says whether this host uses the registry proxy http://proxy.lan:3128, and what to do where it does not. Changes nothing.
# Run it:  curl -fsS 'http://proxy.lan:3128/setup/doctor?no_proxy=10.0.0.0/8,.lan&fp=cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd' | sh    (as root it sees more)
# shellcheck disable=SC2034  # the variables are those of every script

client='doctor'
proxy='http://proxy.lan:3128'
fingerprint='cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd'
exceptions='10.0.0.0/8,.lan'
registries='docker.io registry.k8s.io quay.io reg.lan:5000'
test_registry='registry-1.docker.io'

### config/setup/parts/doctor.sh as it is
main "$@"
