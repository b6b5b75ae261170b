
# --- The environment of a daemon

# unit_files UNIT: the lines of its unit files and drop-ins, without our own drop-in.
unit_lines() {
    systemctl cat "$1" 2>/dev/null | awk -v ours="# /etc/systemd/system/$1.d/registry-proxy.conf" '
        /^# \// { skip = ($0 == ours) } !skip { print }'
}

# unit_value UNIT VARIABLE: what others set it to, the last one wins.
unit_value() {
    unit_lines "$1" | sed -n 's/^[[:space:]]*Environment=//p' | tr ' ' '\n' | tr -d "\"'" |
        awk -F = -v name="$2" 'tolower($1) == tolower(name) { sub(/^[^=]*=/, ""); value = $0 } END { print value }'
}

# no_proxy_list THEIRS: what is never to go through the proxy, each once; only what is of the form of a host or network.
no_proxy_list() {
    printf '%s\n' "localhost,127.0.0.0/8,::1,$(name_of_proxy),$exceptions_client,$exceptions,$1" | tr ',' '\n' |
        awk '/^[][A-Za-z0-9._:\/*-]+$/ && !seen[$0]++ { printf "%s%s", comma, $0; comma = "," }'
}

has_systemd() { [ -d /run/systemd/system ] && has systemctl; }

# want_environment NAME PREFIX: HTTPS_PROXY and NO_PROXY for the daemon NAME; PREFIX stands before the variables.
want_environment() {
    if [ -d /etc/systemd/system ]; then
        foreign=$(unit_value "$1.service" HTTPS_PROXY)
        if [ -n "$foreign" ] && [ "${foreign%/}" != "$proxy" ]; then
            warn "$1 uses the proxy $foreign now; ours takes its place (give ours that one as its HTTPS_PROXY)"
        fi
        want whole restart "/etc/systemd/system/$1.service.d/registry-proxy.conf" <<END
[Service]
Environment="${2}HTTPS_PROXY=$proxy/"
Environment="${2}NO_PROXY=$(no_proxy_list "$(unit_value "$1.service" NO_PROXY)")"
END
    elif [ -d /etc/conf.d ]; then # OpenRC
        want_exports "/etc/conf.d/$1"
    elif [ -d /etc/default ]; then
        want_exports "/etc/default/$1"
    else
        die "how services get their environment on this system is not known here: set HTTPS_PROXY=$proxy/ for $1"
    fi
}

want_exports() {
    {
        their_lines "$1"
        block <<END
export HTTPS_PROXY='$proxy/'
export NO_PROXY='$(no_proxy_list "")'
END
    } >"$work/exports"
    want block restart "$1" <"$work/exports"
}

# restart_service NAME...: those that run here; a machine that is being built has none.
restart_service() {
    for service; do
        if has_systemd; then
            systemctl daemon-reload
            systemctl try-restart "$service.service"
        elif has rc-service; then
            if rc-service "$service" status >/dev/null 2>&1; then rc-service "$service" restart; fi
        else
            warn "restart $service yourself: no service manager was found"
        fi
    done
}
