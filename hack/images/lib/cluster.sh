# shellcheck shell=bash
# Moves images to the local cluster: pushes them to a registry beside it, from which the node pulls them. Pods then name an
# image without a registry, `ddpm-ray-worker:TAG`, on both kinds of cluster, and never wait for a pull.

kind_cluster=ddpm-ray
kind_node=$kind_cluster-control-plane
kind_registry=$kind_cluster-registry
kind_registry_port=5001

# find_cluster: prints kind, node or nowhere.
find_cluster() {
  if docker_responds && [ -n "$(docker ps --quiet --filter "name=^$kind_node\$")" ]; then
    echo kind
  elif hack/node/kubeconfig >/dev/null 2>&1; then
    echo node
  else
    echo nowhere
  fi
}

# use_cluster kind|node: sets the registry's address for this machine and for the node, and how to run `ctr` on the node.
use_cluster() {
  case $1 in
  kind)
    push_to=localhost:$kind_registry_port pull_from=$kind_registry:5000
    ctr=(docker exec "$kind_node" ctr)
    ;;
  node)
    source hack/node/lib/settings.sh # sets NO_PROXY for the node's registry
    push_to=$(hack/node/registry)
    pull_from=$push_to
    ctr=(hack/node/enter ctr)
    ;;
  esac
}

node_images() { "${ctr[@]}" --namespace k8s.io images "$@"; }

# node_has IMAGE: whether a pod can start with it.
node_has() { [ -n "$(node_images ls --quiet "name==docker.io/library/$1")" ]; }

# node_pull IMAGE: pulls the pushed image to the node and tags it without the registry.
node_pull() {
  node_images pull --plain-http "$pull_from/$1" >/dev/null
  node_images tag --force "$pull_from/$1" "docker.io/library/$1" >/dev/null
  node_images rm "$pull_from/$1" >/dev/null
  node_tag_dev "$1"
}

# node_remove_old_images IMAGE: removes images from the node that differ from this one in the hash only (the last 12
# characters), unless an object of the cluster still names them. Also untags them in hack/node's registry, which removes
# their layers when it starts next.
node_remove_old_images() {
  local keep=docker.io/library/$1 repository=docker.io/library/${1%:*} used kept_digest name digest
  used=$(kubectl get pods,deployments,rayclusters,rayjobs,ddpmsamplings --all-namespaces --output yaml)
  kept_digest=$(node_images ls "name==$keep" | awk 'NR == 2 {print $3}')
  node_images ls | awk -v keep="$keep" -v prefix="${keep%????????????}" \
    'index($1, prefix) == 1 && length($1) == length(keep) && $1 != keep {print $1, $3}' |
    while read -r name digest; do
      ! grep -qF -e "${name#docker.io/library/}" -e "$digest" <<<"$used" || continue
      node_images rm "$name" </dev/null >/dev/null
      [ "$digest" = "$kept_digest" ] || node_images rm "$repository@$digest" </dev/null >/dev/null
      untag "${name#docker.io/library/}"
    done
}

# untag IMAGE: in hack/node's registry. kind's registry is deleted with the cluster.
untag() {
  [ "${ctr[0]}" = docker ] || hack/node/enter rm -rf "/var/lib/registry/docker/registry/v2/repositories/${1%:*}/_manifests/tags/${1##*:}" </dev/null
}

# node_tag_dev IMAGE: tags it `dev`, the name in the examples, and REPOSITORY@DIGEST, so that the kubelet reports the digest.
node_tag_dev() {
  local from=docker.io/library/$1 repository=docker.io/library/${1%:*} digest
  digest=$(node_images ls "name==$from" | awk 'NR == 2 {print $3}')
  node_images tag --force "$from" "$repository:dev" "$repository@$digest" >/dev/null
}
