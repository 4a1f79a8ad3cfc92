"""Connections to OMOP databases, by the OHDSI package of the image, where it has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from skerry import contract
from skerry.databases import Database
from skerry.errors import ConfigurationError, DataError

_PACKAGE = "ohdsi.database_connector"


@dataclass(frozen=True, slots=True)
class OHDSIMetaData:
    """Where in an OMOP database what lies, and where its tools may keep their files."""

    database: str
    cdm_schema: str
    results_schema: str
    incremental_folder: Path
    cohort_statistics_folder: Path
    export_folder: Path
    dbms: str


def connect(database: Database, environment: Mapping[str, str]) -> Any:
    """An open connection. Raises ConfigurationError without the package, DataError without a parameter."""
    try:
        connector = import_module(_PACKAGE)
    except ImportError as error:
        raise ConfigurationError(
            f"This image can't connect to OMOP databases: it lacks the package {_PACKAGE} (with R below it). Build it "
            "on a base image that has them."
        ) from error
    values = {name: _parameter(database, name.upper(), environment) for name in ("dbms", "user", "password")}
    return connector.connect(connection_string=database.uri, **values)


def metadata(database: Database, environment: Mapping[str, str]) -> OHDSIMetaData:
    """Raises DataError, naming the parameter that the node's owner has not set."""
    folder = Path(environment.get(contract.TEMPORARY, contract.TEMPORARY_FOLDER))
    return OHDSIMetaData(
        database=_parameter(database, "CDM_DATABASE", environment),
        cdm_schema=_parameter(database, "CDM_SCHEMA", environment),
        results_schema=_parameter(database, "RESULTS_SCHEMA", environment),
        incremental_folder=folder / "incremental",
        cohort_statistics_folder=folder / "cohort_statistics",
        export_folder=folder / "export",
        dbms=_parameter(database, "DBMS", environment),
    )


def _parameter(database: Database, name: str, environment: Mapping[str, str]) -> str:
    value = environment.get(contract.database_variable(database.label, f"DB_PARAM_{name}"), "")
    if not value:
        raise DataError(
            f'The database "{database.label}" lacks its parameter {name}: its node\'s owner sets it under "env".'
        )
    return value
