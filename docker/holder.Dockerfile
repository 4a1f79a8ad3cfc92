# Owns the network namespace of one run: one static process that waits for ever, no network, no rights.
FROM scratch
COPY busybox /busybox
USER 65534:65534
ENTRYPOINT ["/busybox", "sleep", "2147483647"]
