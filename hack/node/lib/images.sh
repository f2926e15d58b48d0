# shellcheck shell=bash
# Small images FROM scratch, built and pushed inside the node, where podman's store is the node's /var/lib/containers.

# in_registry IMAGE: looks into the registry's folder, so it works without a running registry.
in_registry() {
  local name=${1#"$registry/"}
  [ -d "$state/lib/registry/docker/registry/v2/repositories/${name%:*}/_manifests/tags/${name##*:}/current" ]
}

# push_image IMAGE CONTEXT: builds the image of a folder with a Dockerfile and pushes it.
push_image() {
  wait_for_registry
  in_node podman build --quiet --tag "$1" "$2" >/dev/null
  in_node podman push --quiet --tls-verify=false "$1"
}

# The one image that the node itself needs: for pod sandboxes, and the shell of the provisioner's helper pods. It contains
# Debian's static busybox, extracted from its package, because installing that would replace another busybox.
make_tools_image() {
  local context=$state/busybox tool
  rm -rf "$context"
  mkdir -p "$context"
  (cd "$context" && { download || { apt_get update && download; }; }) >>"$state/log/apt.log" 2>&1 || # a fresh machine has no package lists
    refuse "apt-get could not download busybox-static" "See $state/log/apt.log."
  dpkg-deb -x "$context"/busybox-static_*.deb "$context/package"
  mkdir -p "$context/root/bin"
  find "$context/package" -type f -path '*/bin/busybox' -exec cp {} "$context/root/bin/" \;
  for tool in $("$context/root/bin/busybox" --list | grep -vx busybox); do ln -s busybox "$context/root/bin/$tool"; done
  printf 'FROM scratch\nCOPY root/ /\nUSER 65534:65534\nENTRYPOINT ["/bin/sleep", "infinity"]\n' >"$context/Dockerfile"
  push_image "$tools_image" "$context"
  rm -rf "$context"
}

download() { apt-get download -q busybox-static; }

# program_image GROUP PROGRAM: prints the image's name, which has the same hash as the program's folder.
program_image() {
  local built
  built=$(dirname "$(program_bin "$1")")
  echo "$registry/node/$2:${built##*-}"
}

# make_program_image PROGRAM IMAGE
make_program_image() {
  local context
  context=$(mktemp -d "$state/image.XXXX")
  cp "$1" "$context/program"
  cp /etc/ssl/certs/ca-certificates.crt "$context/"
  cat >"$context/Dockerfile" <<DOCKERFILE
FROM scratch
COPY program /$(basename "$1")
COPY ca-certificates.crt /etc/ssl/certs/
USER 65532:65532
ENTRYPOINT ["/$(basename "$1")"]
DOCKERFILE
  push_image "$2" "$context"
  rm -rf "$context"
}
