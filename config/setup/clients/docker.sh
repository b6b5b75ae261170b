
# --- Docker Engine
# Its older image store asks certs.d for every registry but Docker Hub, so our CA has to be in the system's trust store.
# Its newer one (containerd's) reads hosts.toml and needs no CA: the mirror door covers every registry there.

restart_words='restart docker.service (its containers stop, unless "live-restore" is on)'

prepare_client() {
    need_root
    if is_install && [ -d /var/snap/docker ] && ! [ -d /etc/docker ]; then
        die "Docker comes from snap here, which keeps its files elsewhere: see $proxy/setup/"
    fi
    uses_containerd=no
    case $(docker info --format '{{.DriverStatus}}' 2>/dev/null) in
        *io.containerd.snapshotter*) uses_containerd=yes ;;
    esac
    if [ -z "$door" ]; then
        door=proxy
        if [ "$uses_containerd" = yes ]; then door=mirror; fi
    fi
}

plan_client() {
    daemon_json=/etc/docker/daemon.json
    if [ "$door" = proxy ]; then
        want_ca
        # Where daemon.json names a proxy, the daemon does not look at its environment.
        theirs $daemon_json >"$work/daemon.json"
        if names_a_proxy "$work/daemon.json"; then plan_proxies; else want_environment docker ''; fi
    elif [ "$uses_containerd" = yes ]; then
        want_hosts_toml /etc/docker/certs.d
    else
        warn "this Docker asks a mirror for Docker Hub's images only; ?door=proxy covers every registry"
        printf '{\n  "registry-mirrors": ["%s"]\n}\n' "$proxy" | want_json restart $daemon_json
    fi
    if [ -f "$work/new$daemon_json" ] && dockerd --help 2>/dev/null | grep -q -- --validate; then
        dockerd --validate --config-file "$work/new$daemon_json" >"$work/error" 2>&1 ||
            die "$daemon_json would not be valid, nothing was changed: $(cat "$work/error")"
    fi
}

names_a_proxy() {
    grep -q '"proxies"' "$1" || return 1
    answer=0
    json has "$1" proxies || answer=$?
    if [ "$answer" = 1 ]; then die "$daemon_json cannot be read: it must be valid JSON; nothing was changed"; fi
    [ "$answer" = 0 ]
}

plan_proxies() {
    their_no_proxy=$(tr -d '\n' <"$work/daemon.json" | sed -n 's/.*"no-proxy"[[:space:]]*:[[:space:]]*"\([^"]*\)".*/\1/p')
    printf '{\n  "proxies": {\n    "https-proxy": "%s/",\n    "no-proxy": "%s"\n  }\n}\n' \
        "$proxy" "$(no_proxy_list "$their_no_proxy")" | want_json restart $daemon_json
}

restart_client() { restart_service docker; }

check_client() {
    check_door || return 1
    if [ "$door" = proxy ] && seen=$(docker info --format '{{.HTTPSProxy}}' 2>/dev/null) && [ -n "$seen" ]; then
        case $seen in
            *"$(host_of)"*) passed "Docker uses $seen" ;;
            *) failed "Docker uses $seen: restart it, and look for another proxy in its unit and daemon.json" ;;
        esac
    fi
}
