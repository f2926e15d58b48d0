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
  elif hack/node/kubeconfig >/dev/null 2>&1; then
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
    source hack/node/lib/settings.sh # proxies are not asked for its registry
    push_to=$(hack/node/registry)
    pull_from=$push_to
    ctr=(hack/node/enter ctr)
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

# node_tidy IMAGE: removes from the node those of older trees, whose names differ in the hash, the last 12 characters,
# alone; but none that an object of the cluster still names. From hack/node's registry too, whose next start drops the layers.
node_tidy() {
  local keep=docker.io/library/$1 repository=docker.io/library/${1%:*} used kept_digest name digest
  used=$(kubectl get pods,deployments,rayclusters,rayjobs,ddpmsamplings --all-namespaces --output yaml)
  kept_digest=$(node_images ls "name==$keep" | awk 'NR == 2 {print $3}')
  node_images ls | awk -v keep="$keep" -v own="${keep%????????????}" \
    'index($1, own) == 1 && length($1) == length(keep) && $1 != keep {print $1, $3}' |
    while read -r name digest; do
      ! grep -qF -e "${name#docker.io/library/}" -e "$digest" <<<"$used" || continue
      node_images rm "$name" </dev/null >/dev/null
      [ "$digest" = "$kept_digest" ] || node_images rm "$repository@$digest" </dev/null >/dev/null
      forget_tag "${name#docker.io/library/}"
    done
}

# forget_tag IMAGE: in hack/node's registry. kind's goes with the cluster.
forget_tag() {
  [ "${ctr[0]}" = docker ] || hack/node/enter rm -rf "/var/lib/registry/docker/registry/v2/repositories/${1%:*}/_manifests/tags/${1##*:}" </dev/null
}

# node_names IMAGE: the examples call the newest one `dev`. By the name with its digest the kubelet tells which it is.
node_names() {
  local from=docker.io/library/$1 repository=docker.io/library/${1%:*} digest
  digest=$(node_images ls "name==$from" | awk 'NR == 2 {print $3}')
  node_images tag --force "$from" "$repository:dev" "$repository@$digest" >/dev/null
}
