"""The configuration that ``skerry node new`` writes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from string import Template

from skerry.errors import ConfigurationError

_TEMPLATE = """\
# A skerry node. Relative paths are relative to this file; `skerry node check` says what is wrong or missing.

name: $name

server:
  url: $url
$api_path
$ca_file
  # https_proxy: http://proxy.example.org:3128    # where the way to the server leads through one

# The node's key to the server, from the server's administrator. chmod 600.
api_key_file: api-key

# What the node remembers: runs under way and sealed results that wait to be delivered.
state_folder: state

# The organization's key file, from `skerry key new`. null in a collaboration that is not encrypted.
$encryption

# What algorithms may be given, read-only, under a label that tasks name. Types: csv, parquet, excel,
# sqlite, folder, and omop and other for files that algorithms read by themselves.
databases: []
#  - label: default
#    uri: data/patients.csv
#    type: csv
#    env: {schema: public}     # told as DEFAULT_DB_PARAM_SCHEMA, where a task names the database
#    only_for: {functions: [mean], organizations: [1, 2]}     # also: algorithms, users
#  - label: registry            # a service: sql, sparql or omop. Only runs that name it reach it, and only it
#    uri: postgresql://reader@db.example.org:5432/registry
#    password_file: registry-password   # chmod 600
#    type: sql

# Other services that algorithms may reach, each told as <NAME>_GATE_ADDRESS; and hosts that they reach by an
# HTTPS proxy that takes CONNECT only, to exactly these. Nothing else leads out.
gates: []
#  - name: terminology
#    destination: terms.example.org:8080
#    algorithms: [harbor.example.org/cohort]    # left out: all that are admitted
egress: null                   # {allowed: [api.example.org:443], algorithms: [harbor.example.org/cohort]}

# Variables for every algorithm.
# algorithm_env: {SITE: north}

# What you allow. A list that is left out allows all.
policies:
  # Images: names, names with a tag or a digest, or regular expressions that match whole names. Or rules, which also
  # say for what; all that one names must fit, and the first that fits decides. `skerry node algorithms` lists what
  # waits for approval.
  allowed_algorithms: []
  #  - algorithm: registry.example.org/team/mean
  #    functions: [mean, partial_mean]
  #    databases: [default]
  #    users: [7]
  #    organizations: [1, 2]
  #    approve_first: true
  #    gpus: all
  # allowed_algorithm_stores: ["https://store.example.org"]
  # allowed_organizations: [1, 2]
  # allowed_users: [7]
  # approval_hours: 72.0
  # unsigned_tasks: refuse     # allow: also tasks of vantage6's clients, which can't sign
  # vpn: refuse                # allow: images that declare ports talk to the other runs of their job (WireGuard);
  #                              see vpn below
  # require_confirmed_keys: false
  # relaxations: []            # single settings of the sandbox, for single images: docs/explanation/sandbox.md

# What leaves the node beside results: what algorithms write to their logs, what this file says of encryption,
# algorithms, users, organizations and databases, and the names of the columns of csv, parquet and excel files.
# share: {logs: true, configuration: true, columns: false}

# Where runs are reached by the other runs of their job, if policies.vpn allows it. Behind NAT: no endpoint, but the
# lines that skerry relay prints, where the federation's owner runs one.
# vpn: {endpoint: 192.0.2.7, ports: 51820-51883}   # UDP, one port for each run at a time

# Bounds of each run.
limits:
  parallel_runs: 4
  memory: 2g
  cpus: 1.0
  processes: 256
  input: 256m
  output: 256m
  in_memory: 1g                # a run whose input and output may be larger together has them on the disk
  temporary: 128m
  log: 1m
  seconds: 86400.0

docker:
  holder_image: skerry/holder
  pull: missing                # missing, always or never
  # Of the images that the node itself has pulled, those are removed that no run used for so long, or too many.
  # keep_images: {days: 30.0, size: 20g}
  # For images that want a log-in. chmod 600 registry-password
  # registries: [{registry: registry.example.org, username: node, password_file: registry-password}]
  # runtime: runsc             # gVisor, and nothing else
  # preflight_seconds: 3600    # how often the sandbox is tried from inside
  # gate: unix                 # for a runtime that shares no loopback with the gate (gVisor)

# log_level: info              # debug, info, warning or error
# log_format: text             # or json: an object a line, with the ids of the run and task that it is about
# metrics: {port: 9465}        # for Prometheus on this machine; nothing listens where this is left out
"""


@dataclass(frozen=True, slots=True)
class Entries:
    """What is known of a node when its configuration is written; the files are relative to it."""

    name: str = "our node"
    url: str = "https://server.example.org"
    api_path: str | None = None
    ca_file: str | None = None
    key_file: str | None = "key.pem"

    def fill(self) -> str:
        """The configuration. JSON's texts are YAML's too."""
        unsure = "  # ca_file: ca.pem            # where the server's certificate is of an authority of your own"
        return Template(_TEMPLATE).substitute(
            name=json.dumps(self.name, ensure_ascii=False),
            url=json.dumps(self.url),
            api_path="  # api_path: /api" if self.api_path is None else f"  api_path: {json.dumps(self.api_path)}",
            ca_file=unsure if self.ca_file is None else f"  ca_file: {self.ca_file}",
            encryption="encryption: null"
            if self.key_file is None
            else f"encryption:\n  private_key_file: {self.key_file}",
        )


def write_template(folder: Path, entries: Entries | None = None) -> Path:
    """A new configuration, readable by its owner only. Raises ConfigurationError when there is one."""
    path = folder / "node.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigurationError(f"{path} is there already; it is not overwritten.") from error
    except OSError as error:
        raise ConfigurationError(f"{path} can't be written: {error.strerror}.") from error
    with os.fdopen(descriptor, "w") as file:
        file.write((entries or Entries()).fill())
    return path
