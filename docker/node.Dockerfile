# The node, with its proxy. It needs the engine's socket, CAP_SYS_ADMIN, the host's processes and its folder at the same path as on
# the host: compose.yaml shows how.
ARG BASE=skerry/proxy:latest
FROM ${BASE}

# Root inside: it mounts each run's bounded folder and enters the namespaces of its holders. The proxy, which alone parses what
# an algorithm sends, is started as a user without rights.
USER 0:0
COPY lib /opt/skerry/lib
COPY app /opt/skerry/lib
RUN python3 /opt/skerry/settle.py /opt/skerry/lib

ENTRYPOINT ["skerry", "node"]
CMD ["start", "--config", "/var/lib/skerry-node/node.yaml"]
