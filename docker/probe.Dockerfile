# What a node tries its sandbox with before it takes runs: the base image, and nothing else but the command.
ARG BASE=skerry/algorithm-base:latest
FROM ${BASE}
ENTRYPOINT ["python3", "-m", "skerry.probes"]
