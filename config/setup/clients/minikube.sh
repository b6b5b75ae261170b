
# --- minikube: files that it copies into every node it makes

restart_words='minikube takes these files when a node is made: minikube delete, then the command below'

prepare_client() {
    minikube_home=${MINIKUBE_HOME:-$HOME}
    case $minikube_home in */.minikube) ;; *) minikube_home=$minikube_home/.minikube ;; esac
}

plan_client() {
    if [ "$door" = mirror ]; then
        # The copy in the node is at the path below files/.
        want_hosts_toml "$minikube_home/files/etc/containerd/certs.d"
    else
        want whole - "$minikube_home/certs/registry-proxy.pem" <"$work/ca.crt"
        want_more_cas - "$minikube_home/certs/registry-proxy" pem
    fi
}

restart_client() { :; }

check_client() {
    if [ "$door" = mirror ]; then
        check_mirror || return 1
        say "With containerd: minikube start --container-runtime=containerd"
        say "With Docker, for Docker Hub only: minikube start --registry-mirror=$proxy"
    else
        passed "the CA is in $minikube_home/certs"
        say "HTTPS_PROXY=$proxy/ NO_PROXY=$(no_proxy_list "") minikube start --embed-certs \\"
        say "    --docker-env HTTPS_PROXY=$proxy/ --docker-env NO_PROXY=$(no_proxy_list "")"
    fi
    case $(name_of_proxy) in
        localhost | 127.*) failed "a node is a machine of its own, and $(host_of) is itself there: use a name or address of the host" ;;
    esac
}
