# shellcheck shell=bash
# The steps of `up`, in order.

launch() {
  rm -rf "$state/log"
  mkdir -p "$state/log" "$state/lib"
  program_path "${node_groups[@]}" >"$state/path"
  make_pki
  make_s3_keys
  make_cgroup
  (
    exec 9>&- </dev/null >"$state/log/init.log" 2>&1
    join_cgroup
    PATH=$(<"$state/path"):$PATH exec setsid unshare --mount --propagation slave --net --pid --fork bash "$here/lib/init.sh" "$state"
  ) &
  wait_for 60 test -s "$state/init.pid" || fail init "the node's first process did not start"
  connect_node
}

# connect_node: creates a veth pair between this machine and the node, and the route to pods and services.
connect_node() {
  ip link add "$link" type veth peer name eth0 netns "$(node_pid)"
  ip address add "$host_ip/30" dev "$link"
  ip link set "$link" up
  ip route add "$network" via "$node_ip"
}

make_s3_keys() {
  (
    umask 077
    cat >"$pki/s3.env" <<ENV
AWS_ENDPOINT_URL=http://$node_ip:$s3_port
AWS_ACCESS_KEY_ID=$(openssl rand -hex 8)
AWS_SECRET_ACCESS_KEY=$(openssl rand -hex 16)
AWS_REGION=us-east-1
ENV
  )
}

listens() { (: <"/dev/tcp/$node_ip/$1") 2>/dev/null; }

wait_for_registry() { wait_for 60 listens "${registry##*:}" || fail registry "the registry does not respond"; }

# Polls the port first, which is cheap: polling with kubectl would slow the start down.
wait_for_api() {
  wait_for 120 listens 6443 || fail kube-apiserver "the API server does not respond"
  wait_for 60 cluster get --raw /readyz || fail kube-apiserver "the API server is not ready"
}

# daemons.sh starts the provisioner once storage.installed exists.
install_storage() {
  in_node kubectl --kubeconfig /var/lib/kubernetes/admin.kubeconfig apply -f /run/node/storage.yaml >/dev/null
  in_node touch /run/node/storage.installed
}

# wait_for_object CONDITION OBJECT: watches the object for up to a minute.
wait_for_object() { cluster wait --for="$1" "$2" --timeout=60s >/dev/null; }

node_ready() { cluster get node "$node_name" --request-timeout=5s -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' | grep -qx True; }

wait_for_node() {
  wait_for_object create "node/$node_name" || fail kubelet "the node does not register"
  wait_for_object condition=Ready "node/$node_name" || fail kubelet "the node is not Ready"
  wait_for_object create serviceaccount/default || fail kube-controller-manager "the service account of the namespace default is missing"
  wait_for 60 listens 53 || fail coredns "the DNS server does not respond"
  wait_for 60 listens "$s3_port" || fail s3 "the S3 server does not respond"
}

# is_up: whether an `up` completed with the current versions, no daemon has exited since, and the node is Ready.
is_up() {
  [ -e "$state/complete" ] && node_pid >/dev/null && [ "$(<"$state/path")" = "$(program_path "${node_groups[@]}")" ] &&
    ! grep -q ' exited with status ' "$state/log/init.log" && node_ready 2>/dev/null
}

# fail DAEMON MESSAGE: prints the end of the daemon's log and exits. The node keeps running, for inspection.
fail() {
  say "$2"
  tail -n 5 "$state/log/$1.log" >&2
  say "logs: $state/log; hack/node/enter opens a shell in the node; hack/node/down removes it"
  exit 1
}
