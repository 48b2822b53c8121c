#!/usr/bin/env bash
# A development script: the images that the tests build on, also on a machine that reaches no image registry.
#
# What cannot be pulled is made of Debian's packages, from the mirror that this machine uses itself, with its
# certificates and its pip's settings. Nothing of this is in torpor's own images. $ENGINE: podman or docker.
set -euo pipefail
DEBIAN=docker.io/library/debian:bookworm-slim
PYTHON=docker.io/library/python:3.11-slim
CERTIFICATES=/etc/ssl/certs/ca-certificates.crt
SOURCES=/etc/apt/sources.list.d/debian.sources
export DEBIAN_FRONTEND=noninteractive

ENGINE=${ENGINE:-$(command -v podman || command -v docker || true)}
if [ -z "$ENGINE" ]; then
  echo "no container engine is installed: apt-get install podman" >&2
  exit 1
fi

there() { "$ENGINE" image inspect "$1" >/dev/null 2>&1; }
had() { there "$1" || "$ENGINE" pull --quiet "$1" 2>/dev/null; }

needs() {
  if [ "$(id -u)" != 0 ]; then
    echo "$1 can neither be pulled, nor be made by this user: debootstrap wants root" >&2
    exit 1
  fi
  if [ ! -e "$SOURCES" ] || ! command -v debootstrap >/dev/null; then
    echo "$1 can neither be pulled, nor be made here: install debootstrap, and name a mirror in $SOURCES" >&2
    exit 1
  fi
}

debian() {
  needs "$DEBIAN"
  mirror=$(sed -n 's/^URIs: *//p' "$SOURCES" | head -n 1)
  echo "making $DEBIAN from this machine's mirror"
  debootstrap --variant=minbase bookworm "$work/root" "$mirror" >"$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; exit 1; }
  # As in the official image: what apt downloads and reckons is not kept.
  echo 'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";' >"$work/root/etc/apt/apt.conf.d/docker-clean"
  rm -rf "$work"/root/var/cache/apt/*.bin "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/*
  tar -C "$work/root" -c . | "$ENGINE" import - "$DEBIAN" >/dev/null
}

python() {
  needs "$PYTHON"
  echo "making $PYTHON from $DEBIAN"
  mkdir -p "$work/context/etc/ssl/certs" "$work/context/etc/apt/sources.list.d"
  cp "$CERTIFICATES" "$work/context/etc/ssl/certs/"
  cp "$SOURCES" "$work/context/etc/apt/sources.list.d/"
  if [ -e /etc/pip.conf ]; then cp /etc/pip.conf "$work/context/etc/"; fi
  cat >"$work/context/Containerfile" <<END
FROM $DEBIAN
COPY etc /etc
# The host's certificates once more: the package makes the file anew.
RUN rm -f /etc/apt/sources.list && apt-get update \\
 && apt-get install -y --no-install-recommends ca-certificates python3 python3-pip python3-venv \\
 && ln -s python3 /usr/bin/python && rm -rf /var/lib/apt/lists/*
COPY etc/ssl /etc/ssl
ENV SSL_CERT_FILE=$CERTIFICATES PIP_CERT=$CERTIFICATES PIP_BREAK_SYSTEM_PACKAGES=1 UV_NATIVE_TLS=1
${PIP_INDEX_URL:+ENV PIP_INDEX_URL=$PIP_INDEX_URL}
END
  "$ENGINE" build --network host -t "$PYTHON" -f "$work/context/Containerfile" "$work/context" >"$work/log" 2>&1 \
    || { tail -n 20 "$work/log" >&2; exit 1; }
}

if had "$PYTHON" >/dev/null && had "$DEBIAN" >/dev/null; then exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
had "$DEBIAN" >/dev/null || debian
had "$PYTHON" >/dev/null || python
