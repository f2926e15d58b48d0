# shellcheck shell=bash
# The local cluster that images go to: a registry beside it takes the layers it lacks, then the node pulls. So pods name
# an image without any registry, `ddpm-ray-worker:TAG`, alike on both kinds of cluster, and never wait for a pull.

kind_cluster=ddpm-ray
kind_node=$kind_cluster-control-plane
kind_registry=$kind_cluster-registry
kind_registry_port=5001

# find_cluster: prints kind, node or nowhere.
find_cluster() {
  if docker_answers && [ -n "$(docker ps --quiet --filter "name=^$kind_node\$")" ]; then
    echo kind
  elif tests/node/kubeconfig >/dev/null 2>&1; then
    echo node
  else
    echo nowhere
  fi
}

# use_cluster kind|node: sets where this machine pushes, where the node pulls, and how to run `ctr` on the node.
use_cluster() {
  case $1 in
  kind)
    push_to=localhost:$kind_registry_port pull_from=$kind_registry:5000
    ctr=(docker exec "$kind_node" ctr)
    ;;
  node)
    push_to=$(tests/node/registry)
    pull_from=$push_to
    ctr=(tests/node/enter ctr)
    ;;
  esac
}

node_images() { "${ctr[@]}" --namespace k8s.io images "$@"; }

# node_has IMAGE: can a pod start with it?
node_has() { [ -n "$(node_images ls --quiet "name==docker.io/library/$1")" ]; }

# node_takes IMAGE: what the node lacks of the pushed image.
node_takes() {
  node_images pull --plain-http "$pull_from/$1" >/dev/null
  node_images tag --force "$pull_from/$1" "docker.io/library/$1" >/dev/null
  node_images rm "$pull_from/$1" >/dev/null
  node_names "$1"
}

# node_names IMAGE: the examples call the newest one `dev`. By the name with its digest the kubelet tells which it is.
node_names() {
  local from=docker.io/library/$1 repository=docker.io/library/${1%:*} digest
  digest=$(node_images ls "name==$from" | awk 'NR == 2 {print $3}')
  node_images tag --force "$from" "$repository:dev" "$repository@$digest" >/dev/null
}
