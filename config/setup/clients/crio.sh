
# --- CRI-O

restart_words='reload or restart crio.service (running containers go on)'

prepare_client() { need_root; }

plan_client() {
    if [ "$door" = mirror ]; then
        want_registries /etc/containers restart
    else
        want_ca
        want_environment crio ''
    fi
}

restart_client() {
    if [ "$door" = mirror ] && has_systemd; then
        # It reads its registries anew at HUP.
        systemctl reload crio.service 2>/dev/null || restart_service crio
    else
        restart_service crio
    fi
}

check_client() { check_door; }
