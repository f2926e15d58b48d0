# shellcheck shell=bash disable=SC2034
# Where things lie and which addresses the node has. The one place for both.

cache_dir=${XDG_CACHE_HOME:-$HOME/.cache}/ddpm-ray
state=$cache_dir/node
kubeconfig=$state/kubeconfig

# 198.18.0.0/15 is set aside for test networks (RFC 2544): no office, VPN or other cluster should use it.
network=198.18.0.0/16
host_ip=198.18.0.1    # this machine's end of the wire to the node
node_ip=198.18.0.2    # the node's end: API server, DNS, registry and S3 listen here
pods=198.18.1.0/24
services=198.18.16.0/20
kubernetes_service_ip=198.18.16.1
registry=$node_ip:5000
tools_image=$registry/node/busybox:1
s3_port=7070

# No proxy of this machine knows the way there. Not every program reads ranges, so the node's own address is named too.
no_proxy_besides() { case ,$1, in *",$network,"*) echo "$1" ;; *) echo "${1:+$1,}$network,$node_ip,.svc" ;; esac; }
_given=${no_proxy:-${NO_PROXY:-}}
NO_PROXY=$(no_proxy_besides "${NO_PROXY:-$_given}")
no_proxy=$(no_proxy_besides "$_given")
export NO_PROXY no_proxy

node_name=node1
link=ddpm-ray         # the wire's end on this machine
cgroup=ddpm-ray       # every process of the node, pods' too, is in a cgroup below this one
