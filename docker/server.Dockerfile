# The central server. Its folder, with configuration, database and payloads, is the volume /var/lib/skerry.
# docker/images.sh chooses BASE and fills the context: `lib`, the wheels of others, and `app`, skerry's own packages.
ARG BASE=python:3.11-slim
FROM ${BASE}

COPY lib /opt/skerry/lib
COPY settle.py /opt/skerry/settle.py
RUN python3 /opt/skerry/settle.py /opt/skerry/lib
COPY app /opt/skerry/lib
RUN python3 /opt/skerry/settle.py /opt/skerry/lib \
    && printf '#!/usr/bin/env python3\nimport sys\nfrom skerry.cli.main import main\nsys.exit(main())\n' >/usr/local/bin/skerry && chmod 0755 /usr/local/bin/skerry \
    && mkdir -p /var/lib/skerry && chown 64200:64200 /var/lib/skerry

USER 64200:64200
VOLUME /var/lib/skerry
WORKDIR /var/lib/skerry
EXPOSE 5000
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["skerry", "server"]
CMD ["start", "--config", "server.yaml"]
