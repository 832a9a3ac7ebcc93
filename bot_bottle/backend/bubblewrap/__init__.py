"""The bubblewrap backend: Linux namespaces and a seccomp filter, no daemon and no root needed."""
