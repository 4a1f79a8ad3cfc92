# What algorithm images start from: Python 3.11, skerry's base install and its data loaders.
# docker/images.sh chooses BASE and fills the context: `lib`, the wheels of others, and `app`, skerry's own packages.
ARG BASE=python:3.11-slim
FROM ${BASE}

# In a folder of their own, on the path by a .pth file: the same place whatever the base calls its own.
COPY lib /opt/skerry/lib
COPY settle.py /opt/skerry/settle.py
RUN python3 /opt/skerry/settle.py /opt/skerry/lib
COPY app /opt/skerry/lib
RUN python3 /opt/skerry/settle.py /opt/skerry/lib/skerry

# Never root by itself, and a node chooses a user for each run anyway.
USER 64100:64100
WORKDIR /tmp
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ENTRYPOINT ["python3", "-m", "skerry.entrypoint"]
