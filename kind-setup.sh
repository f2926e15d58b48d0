#!/usr/bin/env bash
# A ready local cluster for ddpm-ray: Kubernetes, KubeRay, the project's images, its chart. ./kind-setup.sh --help
set -euo pipefail
((BASH_VERSINFO[0] >= 5)) || { echo "setup: bash $BASH_VERSION is too old: this needs 5.0 (on macOS: brew install bash)" >&2 && exit 2; }
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")"
speaker=setup
source hack/images/lib/say.sh
source hack/images/lib/engine.sh
source hack/images/lib/cluster.sh
trap 'failed_step $?' EXIT

usage() {
  cat <<'X'
usage: ./kind-setup.sh [--provider kind|node|existing] [--skip-images] [--delete] [--help]

  --provider kind      a cluster in Docker, made by kind. The default where a Docker engine answers
  --provider node      a one-node cluster of this machine's own processes, for Linux as root without Docker (hack/node)
  --provider existing  the cluster that kubectl talks to now. Images go to a registry that it can pull from, named by
                       REGISTRY=registry.example/prefix, which you are logged in to
  --skip-images        leave the images as they are
  --delete             undo all that this script did with this provider

May be run again at any time: what is there is kept, what is missing or older is brought up to date.
X
}

provider='' images=yes delete=no
while [ $# -gt 0 ]; do
  case $1 in
  --provider)
    [ $# -gt 1 ] || refuse "--provider needs a name" "There are kind, node and existing"
    provider=$2 && shift 2
    ;;
  --provider=*) provider=${1#*=} && shift ;;
  --skip-images) images=no && shift ;;
  --delete) delete=yes && shift ;;
  -h | --help) usage && exit ;;
  *) refuse "'$1' is not known" "./kind-setup.sh --help lists what is" ;;
  esac
done

# --- what is needed -------------------------------------------------------------------------------------------------

# need_tool NAME LEAST WHERE COMMAND…: COMMAND prints NAME's version somewhere in its words.
need_tool() {
  local name=$1 least=$2 where=$3 found
  shift 3
  command -v "$name" >/dev/null || refuse "$name is not there" "Install $name $least or newer: $where"
  found=$("$@" 2>&1 | grep -oE '[0-9]+\.[0-9]+(\.[0-9]+)?' | head -n 1) || refuse "'$*' says no version" "Is $name installed rightly? $where"
  printf '%s\n%s\n' "$least" "$found" | sort -CV || refuse "$name $found is too old" "Install $name $least or newer: $where"
  tools+=("$name $found")
}

need_tools() {
  tools=()
  case $provider in
  kind)
    docker_answers || refuse "no Docker engine answers" "Start Docker, or, on Linux as root: ./kind-setup.sh --provider node"
    need_tool docker 23.0 https://docs.docker.com/engine/install docker version --format '{{.Server.Version}}'
    need_tool kind 0.24 https://kind.sigs.k8s.io kind version
    ;;&
  kind | existing)
    need_tool kubectl 1.30 https://kubernetes.io/docs/tasks/tools kubectl version --client
    need_tool helm 3.17 https://helm.sh/docs/intro/install helm version --template '{{.Version}}'
    say "found ${tools[*]/%/;}"
    ;;
  node) ;; # hack/node checks what it needs, and brings its own kubectl and helm
  *) refuse "'$provider' is no provider" "There are kind, node and existing" ;;
  esac
}

# --- the steps, each of which may be run again --------------------------------------------------------------------------

cluster_kind() {
  if kind get clusters 2>/dev/null | grep -qx "$kind_cluster"; then
    say "the cluster $kind_cluster is there"
  else
    step "made the cluster $kind_cluster" kind create cluster --name "$kind_cluster" --wait 180s
  fi
  kubectl config use-context "kind-$kind_cluster" >/dev/null
  step "its node is ready" kubectl wait --for=condition=Ready nodes --all --timeout=120s >/dev/null
}

# The registry is a neighbour of kind's node on its network, and a port of this machine's loopback.
registry_kind() {
  [ -z "$(docker ps --quiet --filter "name=^$kind_registry\$")" ] || return 0
  docker rm --force "$kind_registry" >/dev/null 2>&1 || true # one that was stopped
  docker run --detach --restart unless-stopped --name "$kind_registry" --network kind \
    --publish "127.0.0.1:$kind_registry_port:5000" registry:3 >/dev/null
}

cluster_node() {
  source hack/node/lib/settings.sh # proxies are not asked for its API server
  KUBECONFIG=$(hack/node/up)
  export KUBECONFIG
  brought=
  command -v kubectl >/dev/null || brought=$(hack/node/build kubernetes)
  PATH=$(hack/node/build helm):${brought:+$brought:}$PATH
}

cluster_existing() {
  [ "$images" = no ] || [ -n "${REGISTRY:-}" ] ||
    refuse "no registry is named that this cluster pulls from" "Set REGISTRY=registry.example/prefix, or use --skip-images"
  step "reached $(kubectl config current-context)" kubectl get --raw /readyz >/dev/null
}

kuberay_version() { awk '$1 == "github.com/ray-project/kuberay/ray-operator" {print substr($2, 2); exit}' hack/node/programs/kuberay/go.mod; }

install_kuberay() {
  case $provider in
  node) hack/node/kuberay ;;
  kind) step "KubeRay $(kuberay_version) is installed" kuberay_chart ;;
  existing)
    if kubectl get crd rayclusters.ray.io >/dev/null 2>&1 && ! helm status kuberay-operator --namespace "$kuberay_namespace" >/dev/null 2>&1; then
      say "this cluster has a KubeRay of its own: left as it is"
    else
      step "KubeRay $(kuberay_version) is installed" kuberay_chart
    fi
    ;;
  esac
}

kuberay_namespace=ddpm-ray-kuberay
kuberay_chart() {
  helm upgrade --install kuberay-operator kuberay-operator --repo https://ray-project.github.io/kuberay-helm/ \
    --version "$(kuberay_version)" --namespace "$kuberay_namespace" --create-namespace --wait >/dev/null
}

# move_image worker|operator: prints the name that pods use.
move_image() {
  case $provider in
  existing) hack/images/build "$1" --to "$REGISTRY" ;;
  *) hack/images/build "$1" --to "$provider" ;;
  esac
}

# Only now: until here the operator before made pods of the images before.
tidy_node() {
  use_cluster "$provider"
  node_tidy "$worker"
  node_tidy "$operator"
}

# install_chart VALUE…: the CRD may be there already, from tests or from a release that left it.
install_chart() {
  kubectl get namespace ddpm-ray >/dev/null 2>&1 || restricted_namespace ddpm-ray
  helm upgrade --install ddpm-ray charts/ddpm-ray --namespace ddpm-ray --take-ownership "$@" >/dev/null
}

# restricted_namespace NAME: one that takes no pod but of the restricted Pod Security level, which the operator's is.
restricted_namespace() {
  kubectl create -f - >/dev/null <<X
apiVersion: v1
kind: Namespace
metadata:
  name: $1
  labels: {pod-security.kubernetes.io/enforce: restricted}
X
}

what_to_try() {
  local proxy=${HTTPS_PROXY:-${https_proxy:-${HTTP_PROXY:-${http_proxy:-}}}}
  echo
  [ "$provider" != node ] || echo "export KUBECONFIG=$KUBECONFIG${brought:+ PATH=$brought:\$PATH}${proxy:+ NO_PROXY=$NO_PROXY no_proxy=$no_proxy}"
  cat <<'X'
  kubectl apply -f examples/digits.yaml
  kubectl get ddpm --watch
  kubectl wait --for=condition=Complete ddpm/digits --timeout=10m
X
}

# --- undoing ------------------------------------------------------------------------------------------------------------

delete_all() {
  case $provider in
  kind)
    step "deleted the cluster $kind_cluster" kind delete cluster --name "$kind_cluster"
    step "deleted its registry" docker rm --force --volumes "$kind_registry" >/dev/null
    say "images that were built stay with Docker: docker image ls 'ddpm-ray-*' lists them"
    ;;
  node) hack/node/down --purge ;;
  existing)
    need_no_work
    step "uninstalled ddpm-ray" uninstall ddpm-ray ddpm-ray
    step "uninstalled KubeRay, if it was installed by this script" uninstall kuberay-operator "$kuberay_namespace"
    ;;
  esac
}

# need_no_work: without the operator nobody takes down the clusters of samplings at work.
need_no_work() {
  local at_work
  kubectl get crd rayclusters.ray.io >/dev/null 2>&1 || return 0
  at_work=$(kubectl get rayclusters --all-namespaces --selector app.kubernetes.io/managed-by=ddpm-operator --no-headers \
    --output 'custom-columns=:metadata.namespace,:metadata.name')
  [ -z "$at_work" ] || refuse "samplings are at work, and their RayClusters would stay:$(awk '{printf " %s/%s", $1, $2}' <<<"$at_work")" \
    "Wait for their end, or stop them: kubectl delete ddpm --all --all-namespaces"
}

# uninstall RELEASE NAMESPACE
uninstall() {
  helm uninstall "$1" --namespace "$2" --ignore-not-found --wait >/dev/null
  kubectl delete namespace "$2" --ignore-not-found >/dev/null
}

# --- the whole ----------------------------------------------------------------------------------------------------------

if [ -z "$provider" ]; then
  if docker_answers; then provider=kind; else provider=node; fi
  say "provider: $provider ($([ $provider = kind ] && echo "a Docker engine answers" || echo "no Docker engine answers"))"
fi
need_tools
if [ "$delete" = yes ]; then
  delete_all
  exit
fi
"cluster_$provider"
[ "$provider" != kind ] || step "its registry runs" registry_kind
install_kuberay
if [ "$images" = yes ]; then
  worker=$(move_image worker)
  operator=$(move_image operator)
  say "pods can use the images $worker and $operator"
  step "the operator runs" install_chart --wait --set-string "worker.image=$worker,image.name=$operator"
  [ "$provider" = existing ] || step "older images that nothing uses are gone" tidy_node
else
  step "the chart ddpm-ray is installed; its operator runs as soon as its image is there" install_chart --reset-then-reuse-values
fi
say "ready in $SECONDS s. Try:"
what_to_try
