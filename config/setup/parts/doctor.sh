# --- Each check prints ok, warn or FAIL, and for the last two what to do

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL=C

has() { command -v "$1" >/dev/null 2>&1; }
ok() { printf 'ok    %s\n' "$1"; }
warn() { printf 'warn  %s\n      -> %s\n' "$1" "$2"; }
fail() {
    printf 'FAIL  %s\n      -> %s\n' "$1" "$2"
    failures=$((failures + 1))
}

host=${proxy#*://}
name=$(printf '%s\n' "$host" | sed 's/:[0-9]*$//; s/^\[//; s/\]$//')

main() {
    set -u
    failures=0
    proxy_users=
    mirror_users=
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    if ! has curl; then
        printf 'FAIL  curl is not installed\n      -> install it: this needs it to test\n'
        exit 1
    fi
    check_reached
    [ "$failures" = 0 ] || exit 1
    check_fingerprint
    find_docker
    find_containerd
    find_service crio crio
    find_registries
    find_k3s
    find_shell
    check_doors
    if [ -n "$proxy_users" ]; then
        check_trust
        check_through_proxy
    fi
    if [ -n "$mirror_users" ]; then check_through_mirror; fi
    [ "$failures" = 0 ]
}

direct() {
    (
        unset http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY
        exec curl -sS --connect-timeout 5 --max-time 30 "$@"
    )
}

check_reached() {
    code=$(direct -o /dev/null -w '%{http_code}' "$proxy/readyz" 2>"$work/error") || true
    case $code in
        200) ok "the proxy answers at $proxy and is ready" ;;
        503) fail "the proxy at $proxy is not ready" "it is starting, or its cache cannot be used: look at its log" ;;
        000) fail "nobody answers at $proxy: $(cat "$work/error")" "start the proxy; open its port to this host; look for a firewall" ;;
        *) fail "$proxy/readyz answers $code" "something else answers there: is the address right?" ;;
    esac
}

check_fingerprint() {
    direct -f "$proxy/ca.crt?look" >"$work/ca.all" 2>/dev/null || true
    awk '/^-----BEGIN/ { n++ } n == 1 { print } /^-----END/ { exit }' "$work/ca.all" >"$work/ca.crt"
    found=$(sed '/^-----/d' "$work/ca.crt" | tr -d '\r\n' | base64 -d 2>/dev/null | sha256sum | cut -d ' ' -f 1)
    if [ -n "$fingerprint" ] && [ "$found" != "$fingerprint" ]; then
        fail "the CA of $proxy has the fingerprint sha256:$found" "it should be sha256:$fingerprint: is this the right proxy?"
    fi
}

# uses_proxy WHO NO_PROXY, uses_mirror WHO: found in somebody's configuration.
uses_proxy() {
    proxy_users="$proxy_users $1"
    ok "$1 uses the proxy door"
    check_no_proxy "$1" "$2"
}

uses_mirror() {
    mirror_users="$mirror_users $1"
    ok "$1 uses the mirror door"
}

unit_environment() {
    has systemctl || return 0
    systemctl show --property=Environment --value "$1.service" 2>/dev/null | tr ' ' '\n' | tr -d "\"'" |
        awk -F = -v name="$2" 'tolower($1) == tolower(name) { sub(/^[^=]*=/, ""); value = $0 } END { print value }'
}

# find_service SERVICE WHO: by the environment of its unit, or what OpenRC and others give it.
find_service() {
    used=$(unit_environment "$1" HTTPS_PROXY)
    excepted=$(unit_environment "$1" NO_PROXY)
    for file in "/etc/conf.d/$1" "/etc/default/$1"; do
        if [ -z "$used" ] && [ -r "$file" ]; then
            used=$(sed -n "s/^export HTTPS_PROXY=//p" "$file" | tr -d "\"'" | tail -n 1)
            excepted=$(sed -n "s/^export NO_PROXY=//p" "$file" | tr -d "\"'" | tail -n 1)
        fi
    done
    drop_in=/etc/systemd/system/$1.service.d/registry-proxy.conf
    case $used in
        *"$host"*) uses_proxy "$2" "$excepted" ;;
        '')
            if [ -r "$drop_in" ] && grep -qF "$proxy" "$drop_in"; then
                warn "$2 does not have the environment of $drop_in yet" "systemctl daemon-reload && systemctl restart $1"
                uses_proxy "$2" "$(tr -d '"' <"$drop_in" | sed -n 's/^Environment=NO_PROXY=//p')"
            fi
            ;;
        *) warn "$2 uses another proxy, $used" "curl -fsS '$proxy/setup/$1' | sudo sh" ;;
    esac
}

find_docker() {
    has docker || has dockerd || return 0
    before="$proxy_users$mirror_users"
    seen=$(docker info --format '{{.HTTPSProxy}} {{.NoProxy}}' 2>/dev/null) || seen=
    mirrors=$(docker info --format '{{range .RegistryConfig.Mirrors}}{{.}} {{end}}' 2>/dev/null) || mirrors=
    case $seen in
        *"$host"*) uses_proxy docker "${seen#* }" ;;
        *) find_service docker docker ;;
    esac
    if [ -z "$mirrors" ] && [ -r /etc/docker/daemon.json ]; then mirrors=$(tr -d ' \n' </etc/docker/daemon.json); fi
    case $mirrors in
        *"$proxy/"* | *"$proxy\""*)
            uses_mirror docker
            warn "docker asks a mirror for Docker Hub's images only" "for all registries: curl -fsS '$proxy/setup/docker?door=proxy' | sudo sh"
            ;;
    esac
    if grep -qsF "\"$proxy\"" /etc/docker/certs.d/_default/hosts.toml; then uses_mirror docker; fi
    if [ "$before" = "$proxy_users$mirror_users" ]; then
        warn "docker does not use this proxy" "curl -fsS '$proxy/setup/docker' | sudo sh"
    fi
}

find_containerd() {
    has containerd || return 0
    find_service containerd containerd
    folder=$(containerd config dump 2>/dev/null | sed -n "s/^ *config_path = [\"']\([^\"':]*\).*/\1/p" | grep . | head -n 1)
    hosts=${folder:-/etc/containerd/certs.d}/_default/hosts.toml
    grep -qsF "\"$proxy\"" "$hosts" || return 0
    uses_mirror containerd
    if [ -z "$folder" ] && ! containerd config dump 2>/dev/null | grep '^disabled_plugins' | grep -q cri; then
        fail "containerd does not look at $hosts: config_path is not set" "curl -fsS '$proxy/setup/containerd' | sudo sh"
    fi
}

find_registries() {
    for folder in /etc/containers "${XDG_CONFIG_HOME:-${HOME:-/}/.config}/containers"; do
        if grep -qsF "location = \"$host/" "$folder"/registries.conf.d/*.conf "$folder/registries.conf"; then
            uses_mirror "podman, buildah, skopeo or CRI-O by $folder"
        fi
        if grep -qsF "HTTPS_PROXY=$proxy" "$folder"/containers.conf.d/*.conf "$folder/containers.conf"; then
            uses_proxy "podman by $folder" \
                "$(sed -n 's/.*"NO_PROXY=\([^"]*\)".*/\1/p' "$folder"/containers.conf.d/*.conf 2>/dev/null | tail -n 1)"
        fi
    done
}

find_k3s() {
    for each in k3s rke2; do
        if grep -qsF "$proxy" "/etc/rancher/$each/registries.yaml"; then uses_mirror "$each"; fi
    done
    for file in /etc/systemd/system/k3s*.service.env /etc/default/rke2-*; do
        grep -qsF "HTTPS_PROXY=$proxy" "$file" || continue
        uses_proxy "$file" "$(sed -n 's/^CONTAINERD_NO_PROXY=//p' "$file" | tail -n 1)"
    done
}

find_shell() {
    case ${HTTPS_PROXY:-${https_proxy:-}} in
        *"$host"*) uses_proxy "this shell" "${NO_PROXY:-${no_proxy:-}}" ;;
    esac
    if [ -z "${HTTPS_PROXY:-${https_proxy:-}}" ]; then
        case ${HTTP_PROXY:-${http_proxy:-}} in
            *"$host"*) warn "this shell has HTTP_PROXY alone: registries speak https" "export HTTPS_PROXY=$proxy/" ;;
        esac
    fi
}

check_doors() {
    [ -z "$proxy_users$mirror_users" ] || return 0
    fail "nothing here uses this proxy" "see $proxy/setup/ for the line of your client"
}

# --- What is not to go through the proxy

# number A.B.C.D: the address as a number; nothing if it is none.
number() {
    printf '%s\n' "$1" | awk -F . 'NF == 4 && !/[^0-9.]/ { print (($1 * 256 + $2) * 256 + $3) * 256 + $4 }'
}

# contains NETWORK NETWORK: whether the first holds the second; IPv4.
contains() {
    outer=$(number "${1%/*}")
    inner=$(number "${2%/*}")
    [ -n "$outer" ] && [ -n "$inner" ] || return 1
    outer_bits=${1#*/} inner_bits=${2#*/}
    [ "$outer_bits" != "$1" ] || outer_bits=32
    [ "$inner_bits" != "$2" ] || inner_bits=32
    [ "$outer_bits" -le "$inner_bits" ] || return 1
    size=$((1 << (32 - outer_bits)))
    [ $((outer / size)) = $((inner / size)) ]
}

# is_excepted WHAT LIST: by the same words, by the domain, or by a network that holds it.
is_excepted() {
    for entry in $(printf '%s\n' "$2" | tr ',' ' ' | sed 's/\*\././g'); do
        case $entry in
            "$1" | '*') return 0 ;;
            .*) case $1 in *"$entry") return 0 ;; esac ;;
            */*) if contains "$entry" "$1"; then return 0; fi ;;
            *) case $1 in *".$entry") return 0 ;; esac ;;
        esac
    done
    return 1
}

# cluster_networks: the pods' and services' networks of a cluster on this host.
cluster_networks() {
    cat /etc/kubernetes/manifests/kube-apiserver.yaml /etc/kubernetes/manifests/kube-controller-manager.yaml 2>/dev/null |
        sed -n 's/.*--service-cluster-ip-range=\([0-9./,]*\).*/\1/p; s/.*--cluster-cidr=\([0-9./,]*\).*/\1/p' | tr ',' '\n'
    if [ -d /etc/rancher ] || [ -d /var/lib/rancher ]; then printf '10.42.0.0/16\n10.43.0.0/16\n'; fi
    if has kubelet || [ -d /etc/kubernetes/manifests ] || [ -d /etc/rancher ]; then printf '.svc\n.cluster.local\n'; fi
}

check_no_proxy() {
    lacking=
    for wanted in localhost 127.0.0.1 "$name" $(cluster_networks | sort -u) $(printf '%s\n' "$exceptions" | tr ',' ' '); do
        if ! is_excepted "$wanted" "$2"; then lacking="$lacking,$wanted"; fi
    done
    if [ -z "$lacking" ]; then
        ok "NO_PROXY of $1 has what it must have"
    else
        warn "NO_PROXY of $1 lacks ${lacking#,}" "add it, or run the set-up script again with ?no_proxy=${lacking#,}"
    fi
}

# --- The CA

bundle() {
    for file in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt \
        /etc/ssl/ca-bundle.pem /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem /etc/ssl/cert.pem; do
        if [ -n "$file" ] && [ -r "$file" ]; then
            printf '%s\n' "$file"
            return
        fi
    done
    return 1
}

# holds FILE: whether the proxy's CA is in it, however its lines are broken.
holds() {
    wanted=$(sed '/^-----/d' "$work/ca.crt" | tr -d '\r\n')
    [ -n "$wanted" ] && awk '/^-----BEGIN/ { text = "" } /^-----/ { if (text != "") print text; next }
        { gsub(/[ \t\r]/, ""); text = text $0 }' "$1" | grep -qxF "$wanted"
}

check_trust() {
    if ! file=$(bundle); then
        fail "this system has no list of authorities" "install the package ca-certificates, then run the set-up script again"
    elif holds "$file"; then
        ok "the proxy's CA is in $file"
        check_started_before "$file"
    else
        fail "the proxy's CA is not in $file" "run the set-up script of your client again, or add $proxy/ca.crt by hand"
    fi
    for daemon in dockerd containerd crio; do
        for pid in $(pidof "$daemon" 2>/dev/null); do
            other=$(tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | sed -n 's/^SSL_CERT_FILE=//p')
            if [ -n "$other" ] && ! holds "$other"; then
                fail "$daemon trusts $other (SSL_CERT_FILE) and the proxy's CA is not in it" "add $proxy/ca.crt to it"
            fi
        done
    done
}

# A daemon reads the list when it first needs it, and never again.
check_started_before() {
    changed=$(stat -c %Y "$1" 2>/dev/null) || return 0
    for daemon in dockerd containerd crio; do
        case $proxy_users in *"${daemon%d}"*) ;; *) continue ;; esac
        for pid in $(pidof "$daemon" 2>/dev/null); do
            age=$(ps -o etimes= -p "$pid" 2>/dev/null | tr -d ' ') || age=
            if [ -n "$age" ] && [ $(($(date +%s) - age)) -lt "$changed" ]; then
                warn "$daemon runs since before $1 was changed" "restart it if it does not trust the proxy"
            fi
        done
    done
}

# --- Does a request reach the cache?

check_through_proxy() {
    code=$(direct -o /dev/null -D "$work/fields" -w '%{http_code}' --noproxy '' --cacert "$work/ca.crt" --proxy "$proxy" \
        "https://$test_registry/v2/" 2>"$work/error") || true
    if grep -qi '^x-[a-z-]*-cache-\(upstream-status\|type\):' "$work/fields" 2>/dev/null; then
        ok "a request for $test_registry reached the cache through the proxy door (answer $code)"
    elif grep -q ' 407' "$work/fields" 2>/dev/null; then
        fail "the proxy wants a login (407)" "put it into the client's proxy address: http://user:password@$host/"
    elif [ "$code" = 000 ]; then
        fail "https://$test_registry through $proxy: $(cat "$work/error")" \
            "a certificate that our CA did not sign means that the proxy does not intercept this registry: REGISTRIES"
    else
        fail "https://$test_registry answered $code, but not through the cache" "is there another proxy on the way?"
    fi
}

check_through_mirror() {
    code=$(direct -o /dev/null -D "$work/fields" -w '%{http_code}' "$proxy/v2/" 2>"$work/error") || true
    case $code in
        200 | 401) ok "the mirror door answers at $proxy/v2/ ($code)" ;;
        *)
            fail "the mirror door answers $code at $proxy/v2/ $(cat "$work/error")" \
                "clients go to the registries themselves now: has this proxy a mirror door?"
            return
            ;;
    esac
    asked="$proxy/v2/library/hello-world/manifests/latest?ns=docker.io"
    case " $registries " in *" docker.io "*) ;; *) return ;; esac
    code=$(direct -o /dev/null -D "$work/fields" -w '%{http_code}' --head \
        -H 'Accept: application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json' \
        "$asked" 2>"$work/error") || true
    if grep -qi '^x-[a-z-]*-cache-upstream-status:' "$work/fields" 2>/dev/null; then
        ok "a request for a manifest of Docker Hub reached the cache through the mirror door (answer $code)"
    else
        fail "HEAD $asked: $code, not from the cache" "look at the proxy's log: can it reach Docker Hub, is Docker Hub mirrored?"
    fi
}
