
# --- podman, buildah and skopeo
# As root for the whole machine, else for this user alone.

restart_words='nothing has to be restarted (podman.service, if you use it: systemctl restart podman)'

prepare_client() {
    folder=/etc/containers
    is_root || folder=${XDG_CONFIG_HOME:-$HOME/.config}/containers
}

plan_client() {
    if [ "$door" = mirror ]; then
        want_registries "$folder" -
        return
    fi
    need_root
    want_ca
    # Read by podman and buildah; skopeo has its environment only.
    want whole - "$folder/containers.conf.d/registry-proxy.conf" <<END
# Put here by $proxy/setup/$client.
[engine]
env = ["HTTPS_PROXY=$proxy/", "NO_PROXY=$(no_proxy_list "")"]
END
    say "skopeo needs it in its environment: HTTPS_PROXY=$proxy/ skopeo ..."
}

restart_client() { :; }

check_client() { check_door; }
