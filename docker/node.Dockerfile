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

# For runs that may talk to each other.
COPY vpn /opt/skerry/vpn
RUN for program in /opt/skerry/vpn/nft /opt/skerry/vpn/wireguard-go; do \
        if [ -x $program ]; then printf '#!/bin/sh\nLD_LIBRARY_PATH=/opt/skerry/vpn/lib exec %s "$@"\n' $program >/usr/local/bin/${program##*/} \
            && chmod 0755 /usr/local/bin/${program##*/}; fi; done

ENTRYPOINT ["skerry", "node"]
CMD ["start", "--config", "/var/lib/skerry-node/node.yaml"]
