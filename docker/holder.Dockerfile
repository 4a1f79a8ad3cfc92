# Owns the network namespace of one run after another: one static program that waits, no network, no rights.
FROM scratch
COPY busybox hold.sh /
USER 65534:65534
ENTRYPOINT ["/busybox", "sh", "/hold.sh"]
