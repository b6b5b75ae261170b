# --- What every script shares: ask, compare, back up, write, undo. Nothing is written before it was shown and agreed to.

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL=C
umask 022

say() { printf '%s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

usage() {
    say "usage: curl -fsS '$self' | sh -s -- [--yes] [--dry-run] [--uninstall]"
    say "Points $title at the registry proxy $proxy. Shows what it would change and asks."
    say "  --yes        do not ask"
    say "  --dry-run    show, change nothing"
    say "  --uninstall  restore what was there before"
}

read_options() {
    action=install consent=ask
    for option; do
        case $option in
            --yes | -y) consent=given ;;
            --dry-run) consent=never ;;
            --uninstall) action=uninstall ;;
            --help | -h)
                usage
                exit 0
                ;;
            *) die "unknown option $option (--help has the known ones)" ;;
        esac
    done
}

is_install() { [ "$action" = install ]; }

is_root() { [ "$(id -u)" = 0 ]; }

need_root() {
    is_root || die "this changes files of the whole machine: run it as root (curl -fsS '$self' | sudo sh)"
}

# What is remembered of this client: files (kind, what to do after a change, path), before/ and after/ with their texts,
# the directories that were made, and what is still to be done when a run was cut short.
prepare() {
    states=/var/lib/registry-proxy-setup
    is_root || states=${XDG_STATE_HOME:-$HOME/.local/state}/registry-proxy-setup
    state=$states/$client
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' HUP INT TERM
    : >"$work/wanted"
    : >"$work/plan"
    : >"$work/directories"
}

# get URL: prints it. Straight from the proxy's own port, never through a proxy.
get() {
    (
        unset http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY
        if has curl; then
            curl -fsS --connect-timeout 5 --max-time 30 "$1"
        elif has wget; then
            wget -q -T 10 -O - "$1"
        else
            die "neither curl nor wget is installed: install curl"
        fi
    )
}

host_of() { printf '%s\n' "${proxy#*://}"; }

name_of_proxy() { host_of | sed 's/:[0-9]*$//; s/^\[//; s/\]$//'; }

need_proxy() {
    get "$proxy/readyz" >/dev/null || die "the proxy does not answer at $proxy: is it running, is its port open from here?"
}

# --- The proxy's CA

# fetch_ca: the CA that signs, in $work/ca.crt; stops if it is not the expected one. While one CA follows another there
# are more, in $work/ca-2.crt and so on; with a fingerprint only what it fits is trusted. $work/ca.all has all of them.
fetch_ca() {
    get "$proxy/ca.crt${fingerprint:+?signing}" >"$work/ca.answer" || die "$proxy/ca.crt cannot be loaded"
    awk -v most="${fingerprint:+1}" -v folder="$work" '
        /^-----BEGIN CERTIFICATE-----/ { n++; file = folder "/ca" (n > 1 ? "-" n : "") ".crt"; inside = most == "" || n <= most }
        inside { print > file; print > (folder "/ca.all") }
        /^-----END CERTIFICATE-----/ { inside = 0 }' "$work/ca.answer"
    [ -f "$work/ca.crt" ] || die "$proxy/ca.crt is not a certificate"
    grep -q '^-----END CERTIFICATE-----' "$work/ca.crt" || die "$proxy/ca.crt is not a certificate"
    sed '/^-----/d' "$work/ca.crt" | tr -d '\r\n' | base64 -d >"$work/ca.der" || die "$proxy/ca.crt is not a certificate"
    ca_fingerprint=$(sha256sum <"$work/ca.der" | cut -d ' ' -f 1)
    if [ -n "$fingerprint" ] && [ "$fingerprint" != "$ca_fingerprint" ]; then
        die "the CA at $proxy has the fingerprint sha256:$ca_fingerprint, not sha256:$fingerprint as asked for:" \
            "nothing was changed; is this the right proxy, has it got a new CA?"
    fi
}

# trust_anchor: where this system looks for authorities of its administrator; none is an error.
trust_anchor() {
    if [ -d /etc/pki/ca-trust/source/anchors ]; then # Red Hat, Fedora
        say "/etc/pki/ca-trust/source/anchors/registry-proxy-$client.crt"
    elif [ -d /etc/pki/trust/anchors ]; then # SUSE
        say "/etc/pki/trust/anchors/registry-proxy-$client.crt"
    elif has update-ca-certificates; then # Debian, Ubuntu, Alpine
        say "/usr/local/share/ca-certificates/registry-proxy-$client.crt"
    else
        die "this system's trust store is not known here: install the package ca-certificates"
    fi
}

refresh_trust() {
    if [ -d /etc/pki/ca-trust/source/anchors ]; then
        update-ca-trust extract
    else
        update-ca-certificates >/dev/null || return 1
        # Some leave the link of what is gone unless all are made afresh.
        for link in "/etc/ssl/certs/registry-proxy-$client"*.pem; do
            if [ -L "$link" ] && ! [ -e "$link" ]; then
                update-ca-certificates --fresh >/dev/null
                break
            fi
        done
    fi
}

want_ca() {
    ca_path=$(trust_anchor) || exit 1
    want whole trust+restart "$ca_path" <"$work/ca.crt"
    want_more_cas trust+restart "${ca_path%.crt}" crt
}

# want_more_cas AFTERWARDS PATH SUFFIX: each in a file of its own, as OpenSSL's folders pass over a file with two.
want_more_cas() {
    for number in 2 3 4 5 6 7 8 9; do
        [ -f "$work/ca-$number.crt" ] || continue
        want whole "$1" "$2-$number.$3" <"$work/ca-$number.crt"
    done
}

# --- Plans: what each file is to hold

# recorded PATH: whether an earlier run has changed it; sets its kind.
recorded() {
    [ -f "$state/files" ] || return 1
    kind=$(awk -v path="$1" '{ k = $1; sub(/^[^ ]* [^ ]* /, "") } $0 == path { print k; exit }' "$state/files")
    [ -n "$kind" ]
}

same() { if [ -f "$1" ]; then cmp -s "$1" "$2"; else [ ! -e "$2" ]; fi; }

# theirs PATH: prints what it holds without what an earlier run put there.
theirs() {
    if ! recorded "$1" || same "$state/before$1" "$1"; then
        if [ -f "$1" ]; then cat "$1"; fi
    elif same "$state/after$1" "$1"; then
        if [ -f "$state/before$1" ]; then cat "$state/before$1"; fi
    elif [ "$kind" = block ]; then
        sed '/^# >>> registry-proxy/,/^# <<< registry-proxy/d; /# registry-proxy$/d' "$1"
    elif [ "$kind" = json ]; then
        [ -f "$state/before$1" ] || printf '{}\n' >"$work/none.json"
        earlier=$state/before$1
        [ -f "$earlier" ] || earlier=$work/none.json
        json undo "$earlier" "$state/after$1" "$1"
    fi
}

# their_lines PATH: the same with an end to its last line, to be put together with ours.
their_lines() {
    theirs "$1" >"$work/their.text"
    awk '{ print }' "$work/their.text"
}

# want KIND AFTERWARDS PATH: standard input is what PATH is to hold. KIND says how it is taken back when it was changed
# meanwhile: whole (a file of ours alone), block (marked lines), json. AFTERWARDS: trust, restart, trust+restart or -.
want() {
    mkdir -p "$work/new$(dirname "$3")"
    cat >"$work/new$3"
    printf '%s %s %s\n' "$1" "$2" "$3" >>"$work/wanted"
    if same "$work/new$3" "$3"; then return; fi
    printf 'write %s %s %s\n' "$1" "$2" "$3" >>"$work/plan"
}

# block: standard input between the marks by which it is found again.
block() {
    say "# >>> registry-proxy: put here by $proxy/setup/$client"
    cat
    say "# <<< registry-proxy"
}

# unwant: plans to take back what earlier runs changed and this one does not want.
unwant() {
    [ -f "$state/files" ] || return 0
    while read -r kind afterwards path; do
        if grep -qxF "$kind $afterwards $path" "$work/wanted"; then continue; fi
        if same "$state/before$path" "$path"; then continue; fi
        if [ "$kind" = whole ] && ! same "$state/after$path" "$path"; then
            warn "$path was changed by somebody since: it is left as it is, look at it yourself"
            continue
        fi
        mkdir -p "$work/new$(dirname "$path")"
        theirs "$path" >"$work/new$path" || die "$path cannot be restored; what it held is in $state/before$path"
        if [ -f "$state/before$path" ] || [ -s "$work/new$path" ]; then
            printf 'restore %s %s %s\n' "$kind" "$afterwards" "$path" >>"$work/plan"
        else
            printf 'remove %s %s %s\n' "$kind" "$afterwards" "$path" >>"$work/plan"
        fi
    done <"$state/files"
}

show_plan() {
    while read -r step kind afterwards path; do
        case $step:$path in
            write:*-[2-9].crt) say "trust the CA that comes after it, or came before it, in $path" ;;
            write:*.crt) say "trust the proxy's CA, sha256:$ca_fingerprint, in $path" ;;
            remove:*) say "remove $path" ;;
            *)
                say "$step $path"
                old=$path
                [ -f "$old" ] || old=/dev/null
                if has diff; then
                    # Without the lines around them: they may be passwords.
                    diff -U 0 "$old" "$work/new$path" | sed '1,2d; s/^/    /'
                else
                    sed 's/^/    /' "$work/new$path"
                fi
                ;;
        esac
    done <"$work/plan"
    if is_planned trust; then say "then: renew the system's trust store"; fi
    if is_planned restart; then say "then: $restart_words"; fi
}

# is_planned trust|restart: whether a change makes it necessary, of this run or of one that was cut short.
is_planned() {
    awk -v word="$1" 'index($3, word) { found = 1 } END { exit !found }' "$work/plan" ||
        { [ -f "$state/pending" ] && grep -q "$1" "$state/pending"; }
}

ask() {
    case $consent in
        given) return ;;
        never) exit 0 ;;
    esac
    # Standard input is this script when it is piped into sh.
    if ! (: </dev/tty) 2>/dev/null; then die "there is no terminal to ask on: add --yes"; fi
    printf 'Do this? [y/N] ' >/dev/tty
    read -r answer </dev/tty || answer=n
    case $answer in
        y | Y | yes | Yes | YES) ;;
        *) die "nothing was changed" ;;
    esac
}

# --- Changes

make_directory() {
    if [ -d "$1" ]; then return; fi
    make_directory "$(dirname "$1")"
    mkdir "$1"
    printf '%s\n' "$1" >>"$work/directories"
}

# put SOURCE PATH: at once, with the owner and mode that PATH has; a link stays one.
put() {
    target=$2
    if [ -L "$target" ]; then target=$(readlink -f "$target"); fi
    if [ -e "$target" ]; then
        cp -p "$target" "$target.registry-proxy"
        cat "$1" >"$target.registry-proxy"
    else
        make_directory "$(dirname "$target")"
        cp "$1" "$target.registry-proxy"
        chmod 644 "$target.registry-proxy"
    fi
    mv -f "$target.registry-proxy" "$target"
}

# remember KIND AFTERWARDS PATH: its text from before the first run is kept until the end.
remember() {
    if ! recorded "$3"; then
        if [ -e "$3" ]; then
            mkdir -p "$state/before$(dirname "$3")"
            cp -p "$3" "$state/before$3"
        fi
        printf '%s %s %s\n' "$1" "$2" "$3" >>"$state/files"
    fi
    mkdir -p "$state/after$(dirname "$3")"
    cp "$work/new$3" "$state/after$3"
}

forget() {
    awk -v path="$1" '{ line = $0; sub(/^[^ ]* [^ ]* /, "") } $0 != path { print line }' "$state/files" >"$work/files"
    cat "$work/files" >"$state/files"
    rm -f "$state/before$1" "$state/after$1"
}

apply() {
    make_directory "$state"
    chmod 700 "$state"
    # What has to follow is known also to the next run, should this one be cut short.
    cut -d ' ' -f 3 "$work/plan" >>"$state/pending"
    while read -r step kind afterwards path; do
        case $step in
            write)
                remember "$kind" "$afterwards" "$path"
                put "$work/new$path" "$path"
                ;;
            restore)
                if same "$state/after$path" "$path" && [ ! -L "$path" ]; then
                    cp -p "$state/before$path" "$path"
                else
                    put "$work/new$path" "$path"
                fi
                forget "$path"
                ;;
            remove)
                rm -f "$path"
                forget "$path"
                ;;
        esac
    done <"$work/plan"
    cat "$work/directories" >>"$state/directories"
    if is_planned trust; then refresh_trust || die "the trust store could not be renewed; run this again"; fi
    if is_planned restart; then restart_client || die "$title could not be restarted; repair it and run this again"; fi
    rm -f "$state/pending"
}

has_plan() { [ -s "$work/plan" ] || [ -f "$state/pending" ]; }

install_client() {
    need_proxy
    if [ -n "$fingerprint" ] || [ "$door" = proxy ]; then fetch_ca; fi
    if [ "$door" = mirror ] && ! has_mirror; then
        die "the proxy at $proxy has no mirror door: nothing was changed; ?door=proxy is the other one"
    fi
    plan_client
    unwant
    if ! has_plan; then
        say "$title: nothing to change"
    else
        say "$title, through the $door door of $proxy:"
        show_plan
        ask
        apply
        get "$self" >"$state/script" || rm -f "$state/script"
    fi
    say "Undo: curl -fsS '$self' | sh -s -- --uninstall (or: sh $state/script --uninstall)"
    check_client || die "the check failed; --uninstall takes everything back"
}

uninstall_client() {
    if [ ! -f "$state/files" ]; then
        say "$title: nothing to undo"
        return
    fi
    unwant
    say "$title, back to what was before:"
    show_plan
    ask
    apply
    if [ -s "$state/files" ]; then
        cut -d ' ' -f 3- "$state/files" >"$work/left"
        while read -r path; do
            if same "$state/before$path" "$path"; then forget "$path"; fi
        done <"$work/left"
    fi
    if [ -s "$state/files" ]; then
        die "these were left as they are, what they held before is in $state/before:" "$(cut -d ' ' -f 3- "$state/files")"
    fi
    sort -ru "$state/directories" >"$work/directories"
    rm -rf "$state"
    while read -r path; do rmdir "$path" 2>/dev/null || true; done <"$work/directories"
    say "$title: restored"
}

main() {
    set -eu
    read_options "$@"
    prepare
    prepare_client
    if [ "$action" = uninstall ]; then uninstall_client; else install_client; fi
}

# --- Checks at the end

passed() { say "ok    $*"; }
failed() {
    say "FAIL  $*"
    return 1
}

# check_proxy: a request through the proxy door, as this system's clients will send it.
check_proxy() {
    if ! has curl; then
        passed "the proxy answers at $proxy (curl would test more)"
        return
    fi
    code=$(curl -sS -o /dev/null -w '%{http_code}' --connect-timeout 5 --max-time 30 --noproxy '' --proxy "$proxy" \
        "https://$test_registry/v2/" 2>"$work/error") || true
    case $code in
        200 | 401) passed "https://$test_registry/v2/ answers $code through $proxy, with a trusted certificate" ;;
        *) failed "https://$test_registry/v2/ through $proxy: $code $(cat "$work/error")" ;;
    esac
}

# has_mirror: what a client asks a mirror first.
has_mirror() { get "$proxy/v2/" >/dev/null 2>&1; }

check_mirror() {
    if has_mirror; then
        passed "the mirror answers at $proxy/v2/"
    else
        failed "the mirror does not answer at $proxy/v2/"
    fi
}

check_door() { if [ "$door" = proxy ]; then check_proxy; else check_mirror; fi; }
