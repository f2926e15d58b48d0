# shellcheck shell=bash
# A certificate authority for the cluster, and the certificates and kubeconfigs of its components. New at each start.

pki=$state/lib/kubernetes

make_pki() {
  mkdir -p "$pki"
  key ca
  openssl req -x509 -new -key "$pki/ca.key" -subj /CN=kubernetes -days 365 -out "$pki/ca.crt"
  key service-accounts
  openssl pkey -in "$pki/service-accounts.key" -pubout -out "$pki/service-accounts.pub"

  local names=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost
  certificate kube-apiserver /CN=kube-apiserver "subjectAltName=$names,IP:$node_ip,IP:$kubernetes_service_ip"
  certificate kubelet "/O=system:nodes/CN=system:node:$node_name" "subjectAltName=DNS:$node_name,IP:$node_ip"
  certificate kube-controller-manager /CN=system:kube-controller-manager
  certificate kube-scheduler /CN=system:kube-scheduler
  certificate kube-proxy /CN=system:kube-proxy
  certificate admin /O=system:masters/CN=admin

  ( # private: each contains a key
    umask 077
    for user in kubelet kube-controller-manager kube-scheduler kube-proxy admin; do write_kubeconfig $user >"$pki/$user.kubeconfig"; done
    cp "$pki/admin.kubeconfig" "$kubeconfig"
  )
}

key() { (umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$pki/$1.key"); }

# certificate NAME SUBJECT [EXTENSION]
certificate() {
  key "$1"
  openssl req -new -key "$pki/$1.key" -subj "$2" |
    openssl x509 -req -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -days 365 -out "$pki/$1.crt" \
      -extfile <(echo "${3:-keyUsage=digitalSignature}") 2>/dev/null
}

write_kubeconfig() {
  encoded() { base64 -w0 <"$pki/$1"; }
  cat <<YAML
apiVersion: v1
kind: Config
clusters: [{name: node, cluster: {server: "https://$node_ip:6443", certificate-authority-data: $(encoded ca.crt)}}]
users: [{name: $1, user: {client-certificate-data: $(encoded "$1.crt"), client-key-data: $(encoded "$1.key")}}]
contexts: [{name: ddpm-ray-node, context: {cluster: node, user: $1}}]
current-context: ddpm-ray-node
YAML
}
