#!/usr/bin/env bash
# Sets up a local cluster for ddpm-ray: Kubernetes, KubeRay, the project's images, its chart. ./kind-setup.sh --help
set -euo pipefail
((BASH_VERSINFO[0] >= 5)) || { echo "setup: bash $BASH_VERSION is too old: this script needs 5.0 (on macOS: brew install bash)" >&2 && exit 2; }
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")"
log_prefix=setup
source hack/images/lib/say.sh
source hack/images/lib/engine.sh
source hack/images/lib/cluster.sh
trap 'report_failed_step $?' EXIT

usage() {
  cat <<'X'
usage: ./kind-setup.sh [--provider kind|node|existing] [--skip-images] [--delete] [--help]

  --provider kind      a kind cluster in Docker. The default if a Docker engine responds
  --provider node      a one-node cluster of processes on this machine, for Linux as root without Docker (hack/node)
  --provider existing  the cluster of the current kubectl context. Images are pushed to a registry that it can pull from:
                       set REGISTRY=registry.example/prefix and log in to it first
  --skip-images        do not build or push images
  --delete             delete everything that this script created with this provider

The script can be run again at any time: it creates what is missing and updates what is outdated.
X
}

provider='' images=yes delete=no
while [ $# -gt 0 ]; do
  case $1 in
  --provider)
    [ $# -gt 1 ] || refuse "--provider needs a value" "Choose kind, node or existing"
    provider=$2 && shift 2
    ;;
  --provider=*) provider=${1#*=} && shift ;;
  --skip-images) images=no && shift ;;
  --delete) delete=yes && shift ;;
  -h | --help) usage && exit ;;
  *) refuse "unknown argument '$1'" "./kind-setup.sh --help lists the arguments" ;;
  esac
done

# --- prerequisites --------------------------------------------------------------------------------------------------

# need_tool NAME MIN_VERSION URL COMMAND…: the output of COMMAND contains NAME's version.
need_tool() {
  local name=$1 min_version=$2 url=$3 found
  shift 3
  command -v "$name" >/dev/null || refuse "$name is not installed" "Install $name $min_version or newer: $url"
  found=$("$@" 2>&1 | grep -oE '[0-9]+\.[0-9]+(\.[0-9]+)?' | head -n 1) || refuse "'$*' prints no version" "Check the installation of $name: $url"
  printf '%s\n%s\n' "$min_version" "$found" | sort -CV || refuse "$name $found is too old" "Install $name $min_version or newer: $url"
  tools+=("$name $found")
}

need_tools() {
  tools=()
  case $provider in
  kind)
    docker_responds || refuse "no Docker engine responds" "Start Docker, or, on Linux as root: ./kind-setup.sh --provider node"
    need_tool docker 23.0 https://docs.docker.com/engine/install docker version --format '{{.Server.Version}}'
    need_tool kind 0.24 https://kind.sigs.k8s.io kind version
    ;;&
  kind | existing)
    need_tool kubectl 1.30 https://kubernetes.io/docs/tasks/tools kubectl version --client
    need_tool helm 3.17 https://helm.sh/docs/intro/install helm version --template '{{.Version}}'
    say "found ${tools[*]/%/;}"
    ;;
  node) ;; # hack/node checks its own prerequisites, and builds kubectl and helm
  *) refuse "unknown provider '$provider'" "Choose kind, node or existing" ;;
  esac
}

# --- idempotent steps ------------------------------------------------------------------------------------------------------

cluster_kind() {
  if kind get clusters 2>/dev/null | grep -qx "$kind_cluster"; then
    say "the cluster $kind_cluster exists"
  else
    step "created the cluster $kind_cluster" kind create cluster --name "$kind_cluster" --wait 180s
  fi
  kubectl config use-context "kind-$kind_cluster" >/dev/null
  step "node is ready" kubectl wait --for=condition=Ready nodes --all --timeout=120s >/dev/null
}

# The registry is a container in kind's network, published on a loopback port of this machine.
registry_kind() {
  [ -z "$(docker ps --quiet --filter "name=^$kind_registry\$")" ] || return 0
  docker rm --force "$kind_registry" >/dev/null 2>&1 || true # a stopped one
  docker run --detach --restart unless-stopped --name "$kind_registry" --network kind \
    --publish "127.0.0.1:$kind_registry_port:5000" registry:3 >/dev/null
}

cluster_node() {
  source hack/node/lib/settings.sh # sets NO_PROXY for the node's API server
  KUBECONFIG=$(hack/node/up)
  export KUBECONFIG
  kubectl_dir=
  command -v kubectl >/dev/null || kubectl_dir=$(hack/node/build kubernetes)
  PATH=$(hack/node/build helm):${kubectl_dir:+$kubectl_dir:}$PATH
}

cluster_existing() {
  [ "$images" = no ] || [ -n "${REGISTRY:-}" ] ||
    refuse "REGISTRY is not set: this cluster needs a registry to pull images from" "Set REGISTRY=registry.example/prefix, or use --skip-images"
  step "reached $(kubectl config current-context)" kubectl get --raw /readyz >/dev/null
}

kuberay_version() { awk '$1 == "github.com/ray-project/kuberay/ray-operator" {print substr($2, 2); exit}' hack/node/programs/kuberay/go.mod; }

install_kuberay() {
  case $provider in
  node) hack/node/kuberay ;;
  kind) step "installed KubeRay $(kuberay_version)" kuberay_chart ;;
  existing)
    if kubectl get crd rayclusters.ray.io >/dev/null 2>&1 && ! helm status kuberay-operator --namespace "$kuberay_namespace" >/dev/null 2>&1; then
      say "KubeRay is installed already, by another release: not changed"
    else
      step "installed KubeRay $(kuberay_version)" kuberay_chart
    fi
    ;;
  esac
}

kuberay_namespace=ddpm-ray-kuberay
kuberay_chart() {
  helm upgrade --install kuberay-operator kuberay-operator --repo https://ray-project.github.io/kuberay-helm/ \
    --version "$(kuberay_version)" --namespace "$kuberay_namespace" --create-namespace --wait >/dev/null
}

# publish_image worker|operator: builds the image, pushes it to the cluster, and prints the name that pods use.
publish_image() {
  case $provider in
  existing) hack/images/build "$1" --to "$REGISTRY" ;;
  *) hack/images/build "$1" --to "$provider" ;;
  esac
}

# Runs after the operator's upgrade: the previous operator may have created pods of older images until then.
remove_old_images() {
  use_cluster "$provider"
  node_remove_old_images "$worker"
  node_remove_old_images "$operator"
}

# install_chart ARGUMENT…: takes over a CRD that tests or an uninstalled release left behind.
install_chart() {
  kubectl get namespace ddpm-ray >/dev/null 2>&1 || create_restricted_namespace ddpm-ray
  helm upgrade --install ddpm-ray charts/ddpm-ray --namespace ddpm-ray --take-ownership "$@" >/dev/null
}

# create_restricted_namespace NAME: it enforces the Pod Security level `restricted`.
create_restricted_namespace() {
  kubectl create -f - >/dev/null <<X
apiVersion: v1
kind: Namespace
metadata:
  name: $1
  labels: {pod-security.kubernetes.io/enforce: restricted}
X
}

print_next_steps() {
  local proxy=${HTTPS_PROXY:-${https_proxy:-${HTTP_PROXY:-${http_proxy:-}}}}
  echo
  [ "$provider" != node ] || echo "export KUBECONFIG=$KUBECONFIG${kubectl_dir:+ PATH=$kubectl_dir:\$PATH}${proxy:+ NO_PROXY=$NO_PROXY no_proxy=$no_proxy}"
  cat <<'X'
  kubectl apply -f examples/digits.yaml
  kubectl get ddpm --watch
  kubectl wait --for=condition=Complete ddpm/digits --timeout=10m
X
}

# --- deletion -----------------------------------------------------------------------------------------------------------

delete_all() {
  case $provider in
  kind)
    step "deleted the cluster $kind_cluster" kind delete cluster --name "$kind_cluster"
    step "deleted the registry" docker rm --force --volumes "$kind_registry" >/dev/null
    say "Docker keeps the images that were built: docker image ls 'ddpm-ray-*' lists them"
    ;;
  node) hack/node/down --purge ;;
  existing)
    need_no_active_samplings
    step "uninstalled ddpm-ray" uninstall ddpm-ray ddpm-ray
    step "uninstalled KubeRay, if this script had installed it" uninstall kuberay-operator "$kuberay_namespace"
    ;;
  esac
}

# need_no_active_samplings: without the operator, the RayClusters of active samplings would never be deleted.
need_no_active_samplings() {
  local active
  kubectl get crd rayclusters.ray.io >/dev/null 2>&1 || return 0
  active=$(kubectl get rayclusters --all-namespaces --selector app.kubernetes.io/managed-by=ddpm-operator --no-headers \
    --output 'custom-columns=:metadata.namespace,:metadata.name')
  [ -z "$active" ] || refuse "samplings are active, and their RayClusters would stay:$(awk '{printf " %s/%s", $1, $2}' <<<"$active")" \
    "Wait until they finish, or delete them: kubectl delete ddpm --all --all-namespaces"
}

# uninstall RELEASE NAMESPACE
uninstall() {
  helm uninstall "$1" --namespace "$2" --ignore-not-found --wait >/dev/null
  kubectl delete namespace "$2" --ignore-not-found >/dev/null
}

# --- main ---------------------------------------------------------------------------------------------------------------

if [ -z "$provider" ]; then
  if docker_responds; then provider=kind; else provider=node; fi
  say "provider: $provider ($([ $provider = kind ] && echo "a Docker engine responds" || echo "no Docker engine responds"))"
fi
need_tools
if [ "$delete" = yes ]; then
  delete_all
  exit
fi
"cluster_$provider"
[ "$provider" != kind ] || step "registry is running" registry_kind
install_kuberay
if [ "$images" = yes ]; then
  worker=$(publish_image worker)
  operator=$(publish_image operator)
  say "the cluster has the images $worker and $operator"
  step "installed the chart ddpm-ray; the operator is ready" install_chart --wait --set-string "worker.image=$worker,image.name=$operator"
  [ "$provider" = existing ] || step "removed older, unused images" remove_old_images
else
  step "installed the chart ddpm-ray; the operator starts once its image is available" install_chart --reset-then-reuse-values
fi
say "ready in $SECONDS s. Try:"
print_next_steps
