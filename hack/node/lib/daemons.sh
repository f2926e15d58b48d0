# shellcheck shell=bash
# The node's processes. Sourced by init.sh inside the node, where /run, /var/lib and /var/log are the node's own, so each
# process uses its default folders. README.md explains the processes, comments here explain the flags.

# start NAME COMMAND…: runs it in the background, logging to /var/log/NAME.log. `daemons` maps PIDs to names.
declare -A daemons=()
start() {
  local name=$1
  shift
  "$@" >"/var/log/$name.log" 2>&1 </dev/null &
  daemons[$!]=$name
}

# --flex-volume-plugin-dir: the default is a folder below /usr, which would be created on this machine.
start_daemons() {
  start etcd etcd --data-dir /var/lib/etcd --unsafe-no-fsync \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
  start kube-apiserver restart_after_away kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
    --bind-address="$node_ip" --advertise-address="$node_ip" --service-cluster-ip-range="$services" \
    --tls-cert-file="$(crt kube-apiserver)" --tls-private-key-file="$(key kube-apiserver)" --client-ca-file="$(crt ca)" \
    --kubelet-client-certificate="$(crt admin)" --kubelet-client-key="$(key admin)" --kubelet-certificate-authority="$(crt ca)" \
    --kubelet-preferred-address-types=InternalIP \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file=$pki/service-accounts.pub --service-account-signing-key-file="$(key service-accounts)" \
    --authorization-mode=Node,RBAC --allow-privileged=true
  start kube-controller-manager kube-controller-manager --kubeconfig="$(identity kube-controller-manager)" --bind-address=127.0.0.1 \
    --root-ca-file="$(crt ca)" --service-account-private-key-file="$(key service-accounts)" --use-service-account-credentials \
    --flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins --leader-elect=false
  start kube-scheduler kube-scheduler --kubeconfig="$(identity kube-scheduler)" --bind-address=127.0.0.1 --leader-elect=false
  # The conntrack limits apply to the whole machine: 0 leaves them unchanged.
  start kube-proxy kube-proxy --kubeconfig="$(identity kube-proxy)" --hostname-override="$node_name" --proxy-mode=iptables \
    --cluster-cidr="$pods" --healthz-bind-address=127.0.0.1 --metrics-bind-address=127.0.0.1 \
    --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
  start coredns coredns -conf $config/Corefile
  start registry start_registry
  start s3 start_s3
  start containerd containerd --config $config/containerd.toml
  start kubelet run_after 60 test -S /run/containerd/containerd.sock -- \
    once_cri_responds kubelet --config=$config/kubelet.yaml --kubeconfig="$(identity kubelet)" --hostname-override="$node_name" --node-ip="$node_ip"
  # The provisioner exits if its ConfigMap does not exist yet.
  start local-path-provisioner run_after 180 test -e /run/node/storage.installed -- \
    local-path-provisioner start --kubeconfig="$(identity admin)" --service-account-name=default
}

config=/run/node pki=/var/lib/kubernetes away=/run/node/api-away
crt() { echo "$pki/$1.crt"; }
key() { echo "$pki/$1.key"; }
identity() { echo "$pki/$1.kubeconfig"; }

# restart_after_away COMMAND…: runs it again after `api-away` has killed it and removed its marker file.
restart_after_away() {
  local status
  while :; do
    status=0
    "$@" || status=$?
    [ -e "$away" ] || return "$status"
    while [ -e "$away" ]; do sleep 0.1; done
  done
}

# run_after SECONDS CONDITION… -- COMMAND…: waits for the condition, then runs the command.
run_after() {
  local seconds=$1 condition=()
  shift
  while [ "$1" != -- ]; do condition+=("$1") && shift; done
  shift
  wait_for "$seconds" "${condition[@]}" || { echo "gave up waiting for: ${condition[*]}" && return 1; }
  "$@"
}

# once_cri_responds COMMAND…: retries, because containerd listens a moment before it can respond, and the kubelet then exits.
once_cri_responds() {
  local status=0
  for _ in {1..50}; do
    status=0
    "$@" || status=$?
    tail -n 1 /var/log/kubelet.log | grep -q "server is not initialized yet" || break
    sleep 0.2
  done
  return "$status"
}

# Removes untagged layers first, while no push can be in progress.
start_registry() {
  export OTEL_TRACES_EXPORTER=none
  [ ! -d /var/lib/registry/docker ] || registry garbage-collect --quiet --delete-untagged $config/registry.yaml
  exec registry serve $config/registry.yaml
}

start_s3() {
  mkdir -p /var/lib/s3
  # shellcheck source=/dev/null
  source /var/lib/kubernetes/s3.env
  ROOT_ACCESS_KEY_ID=$AWS_ACCESS_KEY_ID ROOT_SECRET_ACCESS_KEY=$AWS_SECRET_ACCESS_KEY \
    exec versitygw --quiet --port "$node_ip:$s3_port" posix /var/lib/s3
}
