# shellcheck shell=bash disable=SC2034
# The folders and addresses of the node; defined here only.

cache_dir=${XDG_CACHE_HOME:-$HOME/.cache}/ddpm-ray
state=$cache_dir/node
kubeconfig=$state/kubeconfig

# 198.18.0.0/15 is reserved for test networks (RFC 2544): no office, VPN or other cluster should use it.
network=198.18.0.0/16
host_ip=198.18.0.1    # this machine's end of the veth pair
node_ip=198.18.0.2    # the node's end: API server, DNS, registry and S3 listen here
pods=198.18.1.0/24
services=198.18.16.0/20
kubernetes_service_ip=198.18.16.1
registry=$node_ip:5000
tools_image=$registry/node/busybox:1
s3_port=7070

# The proxies of this machine cannot reach the node. Not every program understands ranges, so the address is listed too.
add_node_to_no_proxy() { case ,$1, in *",$network,"*) echo "$1" ;; *) echo "${1:+$1,}$network,$node_ip,.svc" ;; esac; }
_initial=${no_proxy:-${NO_PROXY:-}}
NO_PROXY=$(add_node_to_no_proxy "${NO_PROXY:-$_initial}")
no_proxy=$(add_node_to_no_proxy "$_initial")
export NO_PROXY no_proxy

node_name=node1
link=ddpm-ray         # this machine's end of the veth pair
cgroup=ddpm-ray       # contains every process of the node, including those of pods
